"""Tokenizers with the chat templates of models, for what is learned from a conversation."""

import sys
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tokenizer"))

from template_samples import CHATML, GEMMA, LLAMA3, MISTRAL, QWEN3, VISION
from tiny_tokenizers import train_byte_level
from tokenizers import AddedToken, processors

from macllm.tokenizer import Tokenizer
from macllm.tokenizer.base import Profile
from macllm.tokenizer.fast import FastTokenizer

# As Qwen3's own, without its tools: thoughts stay after the last question only, and an empty one is written
# into the last turn.
QWEN3_FULL = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') }}
            {{- '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + content + '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# As DeepSeek-R1's: the generation prompt opens a thought, and no reply in the text has one.
R1 = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'user' %}{{- '<|User|>' + message.content }}{%- endif %}
    {%- if message.role == 'assistant' %}
        {{- '<|Assistant|>' + message.content.split('</think>')[-1] + '<|eos|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|Assistant|><think>\\n' }}{%- endif %}
"""

# As GLM-4's: the token that opens the next turn ends this one.
GLM = """\
[gMASK]
{%- for message in messages %}{{- '<|' + message.role + '|>\\n' + message.content }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}
"""

# As gpt-oss's: a past reply ends otherwise than the last.
HARMONY = """\
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|start|>assistant<|channel|>final<|message|>' + message.content }}
        {{- '<|return|>' if loop.last else '<|end|>' }}
    {%- else %}
        {{- '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}
"""

# As Phi-3's: its special tokens swallow the white space behind them.
PHI3 = """\
{%- for message in messages %}
    {{- '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- else %}{{- eos_token }}{%- endif %}
"""

# As Mistral 7B v0.3's: what the system says stands before the last question, and there only while it waits.
MISTRAL3 = """\
{%- set system = '' %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'user' and loop.last and system %}
        {{- '[INST] ' + system + '\\n\\n' + message.content + '[/INST]' }}
    {%- elif message.role == 'user' %}
        {{- '[INST] ' + message.content + '[/INST]' }}
    {%- else %}
        {{- ' ' + message.content | trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""

# What the system says moves as in Mistral's, and every reply has a thought, if an empty one.
MOVING = """\
{%- set system = messages[0].content if messages[0].role == 'system' else '' %}
{%- for message in messages if message.role != 'system' %}
    {%- if message.role == 'user' %}
        {{- '<|im_start|>user\\n' + (system + '\\n\\n' if loop.last and system else '') + message.content }}
    {%- else %}
        {%- set parts = message.content.split('</think>') %}
        {%- set thought = message.reasoning_content or parts[0].split('<think>')[-1].strip('\\n') %}
        {%- set thought = thought if message.reasoning_content or parts | length > 1 else '' %}
        {{- '<|im_start|>assistant\\n<think>\\n' + thought + '\\n</think>\\n\\n' + parts[-1].lstrip('\\n') }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

_TURNS = ("<|im_start|>", "<|im_end|>")
_KINDS: dict[str, tuple[str | None, tuple[str, ...], dict[str, Any]]] = {
    "chatml": (CHATML, _TURNS, {"eos": "<|im_end|>"}),
    "vision": (VISION, _TURNS, {"eos": "<|im_end|>"}),
    "qwen3": (QWEN3, _TURNS, {"eos": "<|im_end|>"}),
    "moving": (MOVING, _TURNS, {"eos": "<|im_end|>"}),
    "qwen3-full": (QWEN3_FULL, _TURNS, {"eos": "<|im_end|>"}),
    "llama3": (
        LLAMA3,
        ("<|begin|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        {"bos": "<|begin|>", "eos": "<|eot_id|>", "adds_bos": True},
    ),
    "gemma": (
        GEMMA,
        ("<bos>", "<start_of_turn>", "<end_of_turn>", "<eos>"),
        {"bos": "<bos>", "eos": "<eos>", "adds_bos": True},
    ),
    "mistral": (MISTRAL, ("<s>", "</s>", "[INST]", "[/INST]"), {"bos": "<s>", "eos": "</s>"}),
    "mistral3": (MISTRAL3, ("<s>", "</s>", "[INST]", "[/INST]"), {"bos": "<s>", "eos": "</s>"}),
    "r1": (R1, ("<|bos|>", "<|eos|>", "<|User|>", "<|Assistant|>"), {"bos": "<|bos|>", "eos": "<|eos|>"}),
    "glm": (
        GLM,
        ("[gMASK]", "<|user|>", "<|assistant|>", "<|endoftext|>"),
        {"eos": "<|endoftext|>", "stops": ("<|user|>",)},
    ),
    "harmony": (
        HARMONY,
        ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"),
        {"eos": "<|return|>"},
    ),
    "phi3": (
        PHI3,
        ("<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"),
        {"eos": "<|endoftext|>", "stops": ("<|end|>",), "rstrip": True},
    ),
}


@cache
def templated(kind: str) -> Tokenizer:
    """A byte-level tokenizer with the special tokens and the template of a kind of model."""
    source, tokens, more = _KINDS[kind]
    return byte_level(source, tokens, **more)


def byte_level(
    source: str | None,
    tokens: tuple[str, ...] = (),
    *,
    bos: str | None = None,
    eos: str | None = None,
    stops: tuple[str, ...] = (),
    adds_bos: bool = False,
    rstrip: bool = False,
    normalizer: Any = None,
) -> Tokenizer:
    """A byte-level tokenizer with these special tokens and this template."""
    library = train_byte_level()
    library.add_special_tokens([AddedToken(token, normalized=False, rstrip=rstrip) for token in tokens])
    if normalizer is not None:
        library.normalizer = normalizer
    ids = {token: library.token_to_id(token) for token in (bos, eos, *stops) if token is not None}
    if adds_bos and bos is not None:
        library.post_processor = processors.TemplateProcessing(
            single=[bos, "$A"], special_tokens=[(bos, ids[bos])]
        )
    special = frozenset(token for token, added in library.get_added_tokens_decoder().items() if added.special)
    named = {"bos_token": bos, "eos_token": eos}
    return FastTokenizer(
        library,
        Profile(
            bos_id=ids[bos] if bos else None,
            eos_ids=frozenset(ids[token] for token in (eos, *stops) if token is not None),
            special_ids=special,
            special_tokens={name: token for name, token in named.items() if token is not None},
            templates={"default": source} if source is not None else {},
        ),
    )
