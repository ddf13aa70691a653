"""How many tokens a prompt has while it is being typed, at a cost that does not grow with the conversation."""

from collections.abc import Sequence

from macllm.engine.events import Counted
from macllm.tokenizer.base import Tokenizer
from macllm.tokenizer.messages import Message


class PromptCounter:
    """Counts drafts after the same messages.

    The first draft after other messages is rendered and encoded with all of them. For the next only the draft
    is: the rest stays what it was, since templates put control tokens around a message.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._messages: tuple[Message, ...] = ()
        self._around: int | None = None  # tokens of the prompt that are not the draft's

    def count(self, messages: Sequence[Message], draft: str) -> Counted:
        """Tokens of ``draft``, and of the prompt that it makes as the user's next message.

        Where it is blank nothing would be sent: the prompt is that of ``messages`` alone. Raises
        TokenizerError.
        """
        own = len(self._tokenizer.encode(draft))
        if not draft.strip():
            return Counted(own, len(self._tokenizer.encode_chat(messages)) if messages else 0)
        if self._around is None or tuple(messages) != self._messages:
            prompt = self._tokenizer.encode_chat([*messages, Message.of("user", draft)])
            self._messages, self._around = tuple(messages), len(prompt) - own
        return Counted(own, self._around + own)
