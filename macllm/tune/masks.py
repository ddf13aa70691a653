"""Finds the assistant's turns in a rendered conversation: what is learned from a row, to the character.

A turn is what a model writes after the generation prompt, up to and with the token that ends it. It is found by
rendering the conversation up to the turn and past it: where both are the start of the whole text, they say where
the turn lies. Templates that write earlier turns in another way (Qwen3 strips their thoughts) or whose generation
prompt opens what a reply in the text does not have (DeepSeek-R1) are asked with probes in the turn's place, and
what comes before and after a probe must stand in the text as it is. What fits neither way is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias

from macllm.errors import MacllmError
from macllm.tokenizer import Message, TextPart, Tokenizer
from macllm.tune.schema import RowError

Span: TypeAlias = tuple[int, int]  # characters of the text, the end not included

_PROBES = ("alpha1", "bravo2")  # they share neither their first nor their last character
_ENDING = 64  # characters: more than any special token has


@dataclass(frozen=True)
class _Around:
    """The text before and after a message's own, which does not depend on what the message says."""

    head: str
    tail: str


@dataclass(frozen=True)
class Talk:
    """A conversation and how it is rendered. ``now`` is the date that templates may write."""

    tokenizer: Tokenizer
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    now: datetime

    def text(self) -> str:
        """The whole conversation. Raises RowError where the template refuses it."""
        try:
            return self._render(self.messages)
        except MacllmError as error:
            raise RowError(str(error)) from None

    def turn(self, index: int, text: str) -> Span:
        """Where the assistant's message ``index`` lies in ``text``. Raises RowError where that cannot be told."""
        prompt, closed = self._start_of(index, prompt=True), self._start_of(index + 1, prompt=False)
        start = len(prompt) if prompt is not None and text.startswith(prompt) else None
        end = None
        if closed is not None and text.startswith(closed):
            end = self._end(text, start or 0, len(closed))
        if start is None or end is None:
            probed_start, probed_end = self._probed(index, text, prompt)
            start = probed_start if start is None else start
            end = probed_end if end is None else end
        if start >= end or not self._holds(text[start:end], self.messages[index]):
            raise RowError(
                f"message {index + 1}: the chat template leaves out what the assistant says; change the row"
            )
        return start, end

    def ends_itself(self, text: str) -> bool:
        """Whether a special token ends ``text``."""
        return self._closing(text) is not None

    def _is_special(self, token: int) -> bool:
        return token in self.tokenizer.special_ids or token in self.tokenizer.stop_ids

    def _render(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        return self.tokenizer.render(
            messages, tools=self.tools or None, add_generation_prompt=prompt, now=self.now
        )

    def _start_of(self, count: int, *, prompt: bool) -> str | None:
        """The first ``count`` messages alone; None where the template does not take them so."""
        try:
            return self._render(self.messages[:count], prompt=prompt)
        except MacllmError:
            return None

    def _end(self, text: str, start: int, end: int) -> int:
        """The turn's end, when the conversation up to it renders as ``text[:end]``.

        White space after the end token is the template's. A format without one may end a turn by the token that
        opens the next (GLM), which is then what the model stops with.
        """
        stops, at = self.tokenizer.stop_ids, len(text[:end].rstrip())
        ends: list[tuple[int, int]] = []  # end tokens, from the last to the first
        while at > start and (token := self._closing(text[:at])) is not None:
            ends.append((token, at))
            at = len(text[: at - len(self.tokenizer.token_text(token))].rstrip())
        if ends:
            # a template may write more behind the first (Phi-3 the end of text), but there a reply is over
            return next((place for token, place in reversed(ends) if token in stops), ends[0][1])
        opening = self._opening(text[end:])
        return end + len(self.tokenizer.token_text(opening)) if opening in stops else end

    def _closing(self, text: str) -> int | None:
        """The token that ``text`` ends with, where it is a special one."""
        ids = self.tokenizer.encode(text[-_ENDING:])
        if ids and self._is_special(ids[-1]) and text.endswith(self.tokenizer.token_text(ids[-1])):
            return ids[-1]
        return None

    def _opening(self, text: str) -> int | None:
        """The token that ``text`` opens with, where it is a special one."""
        ids = self.tokenizer.encode(text[:_ENDING])
        if ids and self._is_special(ids[0]) and text.startswith(self.tokenizer.token_text(ids[0])):
            return ids[0]
        return None

    def _probed(self, index: int, text: str, prompt: str | None) -> Span:
        """Start and end of the turn by what stands around probes in its place."""
        for around in self._fitting(index, text):
            start = len(around.head) - self._written(index, around.head, prompt or "")
            end = self._turn_end(around.tail, len(text) - len(around.tail))
            if end is not None:
                return start, end
        raise RowError(
            f"message {index + 1}: where the assistant's turn begins and ends cannot be told from this model's chat"
            " template; leave the row out, or learn from all tokens"
        )

    def _written(self, index: int, head: str, prompt: str) -> int:
        """How many characters a template puts between its generation prompt and a reply: the model's to write.

        Behind the message before, ``prompt`` ends with the generation prompt; ``head`` goes on from there.
        """
        before = self.messages[index - 1].text.strip() if index else ""
        _, found, ending = prompt.rpartition(before) if before else ("", "", "")
        _, there, longer = head.rpartition(before) if before else ("", "", "")
        return len(longer) - len(ending) if found and there and longer.startswith(ending) else 0

    def _turn_end(self, tail: str, at: int) -> int | None:
        """The end of a turn whose text ends at ``at`` and is followed by ``tail``; None without a token for it.

        A token that is none to stop at ends a turn all the same (gpt-oss's in past turns) where another special one
        comes behind it: what opens a turn has the role or the text behind it.
        """
        blank = len(tail) - len(tail.lstrip())
        token = self._opening(tail[blank:])
        if token is None:
            return None
        end = blank + len(self.tokenizer.token_text(token))
        after = tail[end:].lstrip()
        ends = token in self.tokenizer.stop_ids or not after or self._opening(after) is not None
        return at + end if ends else None

    def _fitting(self, index: int, text: str) -> list[_Around]:
        """What stands around the message's stand-ins, where it stands so in ``text``."""
        found = []
        for stand_in in _stand_ins(self.messages[index]):
            around = self._around(self.messages[:index], stand_in, self.messages[index + 1 :])
            if around is None or len(around.head) + len(around.tail) >= len(text):
                continue
            if text.startswith(around.head) and text.endswith(around.tail):
                found.append(around)
        return found

    def _around(
        self, before: Sequence[Message], stand_in: Message, after: Sequence[Message]
    ) -> _Around | None:
        """What two renderings that differ in one message's words alone have in common before and after them."""
        try:
            first, second = (self._render([*before, _saying(stand_in, probe), *after]) for probe in _PROBES)
        except MacllmError:
            return None
        if first == second:
            return None
        return _Around(_common(first, second), _common(first[::-1], second[::-1])[::-1])

    def _holds(self, part: str, message: Message) -> bool:
        """Whether the turn has the message's text; a template may take a thought out of it."""
        said = message.text.strip()
        return "</think>" in said or all(line.strip() in part for line in said.splitlines())


def _stand_ins(message: Message) -> list[Message]:
    """Messages of the same shape, or a simpler one, for :func:`_saying` to fill; the plainest first."""
    plain = Message(message.role, (TextPart("{}"),), name=message.name)
    found = [plain]
    if message.reasoning is not None:
        found.append(replace(plain, reasoning="{}"))
    if "</think>" in message.text:
        found.append(replace(plain, parts=(TextPart("<think>\n{}\n</think>\n\n{}"),)))
    return found


def _saying(stand_in: Message, words: str) -> Message:
    filled = stand_in.text.replace("{}", words)
    reasoning = None if stand_in.reasoning is None else words
    return replace(stand_in, parts=(TextPart(filled),), reasoning=reasoning)


def _common(first: str, second: str) -> str:
    """The start that two texts share."""
    length = min(len(first), len(second))
    ends = (index for index in range(length) if first[index] != second[index])
    return first[: next(ends, length)]
