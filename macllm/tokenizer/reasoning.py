"""Takes what a model thinks apart from what it answers, by the marks that its format puts around a thought.

A mark is text, or a special token that adds no text to a reply. In the stream that a splitter reads, such a
token stands as one lone surrogate, which no UTF-8 text can hold: what a model spells out is never taken for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from macllm.tokenizer.base import Tokenizer

Marks = tuple[str, ...]  # parts of one mark; a part that is a special token stands for itself

# Each format's opening and closing mark.
_TAGS: tuple[tuple[Marks, Marks], ...] = (
    (("<think>",), ("</think>",)),  # Qwen, DeepSeek, GLM, MiniMax, Nemotron, SmolLM, Olmo
    (("[THINK]",), ("[/THINK]",)),  # Magistral, Ministral
    (("<seed:think>",), ("</seed:think>",)),  # Seed-OSS
    (("<|START_THINKING|>",), ("<|END_THINKING|>",)),  # Command A
    (("<|inner_prefix|>",), ("<|inner_suffix|>",)),  # Apertus
    (("<|channel>", "thought"), ("<channel|>",)),  # Gemma 4
    (("◁think▷",), ("◁/think▷",)),  # Kimi-VL
    (("<thought>",), ("</thought>",)),  # EXAONE Deep
    (("<thinking>",), ("</thinking>",)),
    (("<reasoning>",), ("</reasoning>",)),
)
# gpt-oss: <|channel|>analysis<|message|> a thought <|end|><|start|>assistant<|channel|>final<|message|> the answer
_HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>")
_THOUGHT_CHANNEL = "analysis"
_FIRST_SURROGATE = 0xD800
_ENDING = 16  # a prompt's last tokens: enough for any opening mark and the white space after it


class Splitter(Protocol):
    """Pieces of a reply in, (text, thought) out: joined, the same however the reply was cut."""

    @property
    def thinking(self) -> bool:
        """Whether what comes next belongs to a thought."""

    def feed(self, piece: str) -> tuple[str, str]:
        """What became certain with ``piece``: only what may be the start of a mark waits."""

    def finish(self) -> tuple[str, str]:
        """What waited, at the reply's end."""


@dataclass(frozen=True)
class Markers:
    """How a model marks its thoughts. ``tokens`` are the special tokens among the marks, as the stream has them."""

    opening: str
    closing: str
    tokens: Mapping[int, str] = field(default_factory=dict)
    channels: Marks = ()  # harmony's four marks, where sections have names

    def shown(self, text: str) -> str:
        """``text`` without special tokens that turned out to mark nothing."""
        for mark in self.tokens.values():
            text = text.replace(mark, "")
        return text


@dataclass(frozen=True)
class Reasoning:
    """What is known of a reply's thoughts before it begins: the marks, and whether the prompt opened one."""

    markers: Markers
    open: bool = False

    def splitter(self) -> Splitter:
        """A new splitter for one reply."""
        kind = _Channels if self.markers.channels else _Tags
        return kind(self.markers, self.open)


def reasoning_of(tokenizer: Tokenizer, prompt: Sequence[int]) -> Reasoning | None:
    """How a reply to ``prompt`` will mark its thoughts; None for a model without marks."""
    markers = find_markers(tokenizer)
    return Reasoning(markers, _ends_open(tokenizer, markers, prompt)) if markers is not None else None


def find_markers(tokenizer: Tokenizer) -> Markers | None:
    """The marks that the chat template writes, else those in the vocabulary; None where neither has any."""
    template = tokenizer.chat_template or ""
    if all(mark in template for mark in _HARMONY[1:3]):
        return _harmony(tokenizer)
    for opening, closing in _TAGS:
        if "".join(closing) in template or "".join(opening) in template:
            return _tags(tokenizer, opening, closing)
    if all(tokenizer.token_to_id(mark) is not None for mark in _HARMONY):
        return _harmony(tokenizer)
    for opening, closing in _TAGS:
        if all(tokenizer.token_to_id(marks[0]) is not None for marks in (opening, closing)):
            return _tags(tokenizer, opening, closing)
    return None


def _tags(tokenizer: Tokenizer, opening: Marks, closing: Marks) -> Markers:
    tokens = _special(tokenizer, (*opening, *closing))
    return Markers(_spelled(tokenizer, tokens, opening), _spelled(tokenizer, tokens, closing), tokens)


def _harmony(tokenizer: Tokenizer) -> Markers:
    tokens = _special(tokenizer, _HARMONY)
    start, channel, message, end = (_spelled(tokenizer, tokens, (mark,)) for mark in _HARMONY)
    return Markers(f"{channel}{_THOUGHT_CHANNEL}{message}", end, tokens, (start, channel, message, end))


def _special(tokenizer: Tokenizer, parts: Marks) -> dict[int, str]:
    """Those of ``parts`` that are special tokens, each with the surrogate that stands for it."""
    ids = (tokenizer.token_to_id(part) for part in parts)
    special = [token for token in ids if token is not None and token in tokenizer.special_ids]
    return {token: chr(_FIRST_SURROGATE + index) for index, token in enumerate(special)}


def _spelled(tokenizer: Tokenizer, tokens: Mapping[int, str], parts: Marks) -> str:
    """A mark as the stream has it."""
    ids = [tokenizer.token_to_id(part) for part in parts]
    return "".join(
        part if token is None else tokens.get(token, part) for part, token in zip(parts, ids, strict=True)
    )


def _ends_open(tokenizer: Tokenizer, markers: Markers, prompt: Sequence[int]) -> bool:
    """Whether ``prompt`` ends inside a thought, judged by its last turn: what follows the last special token.

    Marks in earlier turns, or in what a user wrote, say nothing. Without special tokens around turns only a
    mark at the very end counts.
    """
    beyond = tokenizer.special_ids - markers.tokens.keys() - {tokenizer.bos_id}
    start = next((index for index in range(len(prompt), 0, -1) if prompt[index - 1] in beyond), None)
    stream = tokenizer.stream()
    tail = prompt[start if start is not None else -_ENDING :]
    text = "".join(markers.tokens.get(token) or stream.add(token) for token in tail)
    _, found, after = text.rpartition(markers.opening)
    if start is None and not markers.channels:
        return bool(found) and not after.strip()
    return bool(found) and markers.closing not in after


class _Tags:
    """Thoughts between an opening and a closing mark.

    Marks that a model could also spell in an answer about them open a thought only before any answer; special
    tokens open one anywhere. Line breaks right after a mark belong to the mark.
    """

    def __init__(self, markers: Markers, thinking: bool) -> None:
        self._markers = markers
        self._anywhere = any(mark in markers.opening for mark in markers.tokens.values())
        self._place: Literal["before", "thought", "answer"] = "thought" if thinking else "before"
        self._held = ""
        self._after_mark = thinking

    @property
    def thinking(self) -> bool:
        return self._place == "thought"

    def feed(self, piece: str) -> tuple[str, str]:
        text, thought, rest = "", "", self._held + piece
        waits = False
        while rest and not waits:
            if self._place == "before":
                rest, waits = self._look_for_start(rest)
                continue
            if self._place == "answer" and not self._anywhere:
                text, rest = text + self._shown(rest), ""
                continue
            mark = self._markers.closing if self.thinking else self._markers.opening
            part, found, rest = _cut(rest, (mark,))
            if self.thinking:
                thought += self._shown(part)
            else:
                text += self._shown(part)
            if found:
                self._enter("before" if self.thinking else "thought")
            waits = not found
        self._held = rest
        return text, thought

    def finish(self) -> tuple[str, str]:
        rest, self._held = self._shown(self._held), ""
        return ("", rest) if self.thinking else (rest, "")

    def _look_for_start(self, rest: str) -> tuple[str, bool]:
        """Before an answer: white space may still belong to an opening mark. Returns what is left, and if it waits."""
        start, opening = rest.lstrip(), self._markers.opening
        if start.startswith(opening):
            self._enter("thought")
            return start[len(opening) :], False
        if opening.startswith(start):
            return rest, True
        self._place = "answer"
        return rest, False

    def _enter(self, place: Literal["before", "thought"]) -> None:
        self._place, self._after_mark = place, True

    def _shown(self, part: str) -> str:
        shown = self._markers.shown(part)
        if self._after_mark:
            shown = shown.lstrip("\n")
            self._after_mark = not shown
        return shown


class _Channels:
    """Sections with a header that names a channel: analysis is thought, the others are for the user."""

    def __init__(self, markers: Markers, thinking: bool) -> None:
        self._markers = markers
        self._place: Literal["header", "thought", "answer"] = "thought" if thinking else "answer"
        self._header = ""
        self._held = ""
        self._begun: set[str] = set()  # places that something was said in
        self._first = False  # in this section nothing was said yet

    @property
    def thinking(self) -> bool:
        return self._place == "thought"

    def feed(self, piece: str) -> tuple[str, str]:
        text, thought, rest, found = "", "", self._held + piece, "-"
        while found:
            part, found, rest = _cut(rest, self._markers.channels)
            if self._place == "header":
                self._header += part
            elif self.thinking:
                thought += self._shown(part)
            else:
                text += self._shown(part)
            if found:
                self._turn(found)
        self._held = rest
        return text, thought

    def finish(self) -> tuple[str, str]:
        rest, self._held = self._held, ""
        if self._place == "header":
            return "", ""
        return ("", self._shown(rest)) if self.thinking else (self._shown(rest), "")

    def _turn(self, mark: str) -> None:
        if mark == self._markers.channels[2]:  # the header ends
            name = self._header.split()[:1]
            self._place = "thought" if name == [_THOUGHT_CHANNEL] else "answer"
            self._first = True
        else:
            self._place, self._header = "header", ""

    def _shown(self, part: str) -> str:
        if part and self._first:  # sections of one kind are paragraphs of one text
            part = ("\n\n" if self._place in self._begun else "") + part
            self._first = False
        if part:
            self._begun.add(self._place)
        return part


def _cut(text: str, marks: Marks) -> tuple[str, str, str]:
    """``text`` before the first of ``marks``, that mark, and what follows; without one, what may become one follows."""
    places = [(text.find(mark), mark) for mark in marks]
    start, mark = min((place for place in places if place[0] >= 0), default=(-1, ""))
    if mark:
        return text[:start], mark, text[start + len(mark) :]
    longest = max(len(mark) for mark in marks) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(len(mark) > length and text.endswith(mark[:length]) for mark in marks):
            return text[:-length], "", text[-length:]
    return text, "", ""
