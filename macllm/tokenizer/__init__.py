"""Text to token ids and back: tokenizers, chat templates, streaming detokenizer. Never imports mlx."""

from macllm.tokenizer.base import Tokenizer
from macllm.tokenizer.gguf import from_gguf_metadata
from macllm.tokenizer.load import load_tokenizer
from macllm.tokenizer.messages import Message, TextPart, ToolCall, to_messages
from macllm.tokenizer.stream import Detokenizer

__all__ = [
    "Detokenizer",
    "Message",
    "TextPart",
    "Tokenizer",
    "ToolCall",
    "from_gguf_metadata",
    "load_tokenizer",
    "to_messages",
]
