"""How a stored token becomes the bytes it adds to the text, and how the first ones are trimmed."""

import re
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from typing import Any

from macllm.errors import TokenizerError

SPACE_MARK = "▁"  # U+2581, what SentencePiece writes for a space
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")

Step = Callable[[str], str | bytes]


class TextStart(Enum):
    """What decoding drops at the start of a text: the mirror of the space that encoding put there."""

    KEEP = "keep"
    DROP_SPACE = "one space"
    DROP_SPACES = "spaces, one a token, until there is text"
    DROP_MARKS = "every space of the first token"

    def trim(self, data: bytes) -> tuple[bytes, bool]:
        """The bytes left of a token at the start, and whether the next token is still at the start."""
        if self is TextStart.KEEP:
            return data, False
        if self is TextStart.DROP_MARKS:
            return data.replace(b" ", b""), False
        left = data.removeprefix(b" ")
        return left, not left if self is TextStart.DROP_SPACES else not data


@cache
def byte_alphabet() -> Mapping[str, int]:
    """GPT-2's printable stand-in character of each byte: itself where it prints, else from U+0100 up."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + index): byte for index, byte in enumerate(hidden)})
    return alphabet


def byte_level(text: str) -> bytes:
    """Bytes of a byte-level token; a token with other characters (an added one) stands for itself."""
    alphabet = byte_alphabet()
    try:
        return bytes([alphabet[char] for char in text])
    except KeyError:
        return text.encode()


def byte_fallback(text: str) -> str | bytes:
    """The byte that a token like ``<0x0A>`` names; other tokens as they are."""
    found = _BYTE_TOKEN.match(text)
    return bytes([int(found[1], 16)]) if found else text


def spm_piece(text: str) -> bytes:
    """Bytes of a SentencePiece token: a byte token, or text with marks for spaces."""
    value = byte_fallback(text)
    return value if isinstance(value, bytes) else value.replace(SPACE_MARK, " ").encode()


def decoder_rules(state: Mapping[str, Any] | None) -> tuple[Callable[[str], bytes], TextStart]:
    """The piece function and start rule of a ``tokenizer.json`` decoder; TokenizerError for an unknown one.

    Tables are exact because these decoders work on each token alone, but for the trimmed start. One
    difference from the library is wanted: an invalid run of byte tokens is read as UTF-8 with U+FFFD
    for what is broken, where the library gives up valid characters beside it too.
    """
    if state is None:  # the library joins tokens with spaces
        return lambda text: b" " + text.encode(), TextStart.DROP_SPACE
    steps: list[Step] = []
    start = TextStart.KEEP
    fused = False
    for step in state["decoders"] if state["type"] == "Sequence" else [state]:
        kind = step["type"]
        if kind == "Fuse":
            fused = True
        elif kind == "Strip" and fused and (step["content"], step["start"], step["stop"]) == (" ", 1, 0):
            start = TextStart.DROP_SPACE
        elif kind == "Metaspace" and not fused:
            steps.append(_replacing(step["replacement"], " "))
            start = TextStart.KEEP if step.get("prepend_scheme") == "never" else TextStart.DROP_MARKS
        elif kind == "Replace" and not fused and "String" in step["pattern"]:
            steps.append(_replacing(step["pattern"]["String"], step["content"]))
        elif kind == "ByteFallback" and not fused:
            steps.append(byte_fallback)
        elif kind == "ByteLevel" and not fused:
            steps.append(byte_level)
        else:
            raise TokenizerError(
                f"tokenizer.json: decoder step {step!r} is not supported (expected ByteLevel, Metaspace, "
                "ByteFallback, Replace of a string, Fuse, or Strip of one leading space)"
            )
    return _composed(steps), start


def _replacing(old: str, new: str) -> Step:
    return lambda text: text.replace(old, new)


def _composed(steps: list[Step]) -> Callable[[str], bytes]:
    def piece(text: str) -> bytes:
        value: str | bytes = text
        for step in steps:
            if isinstance(value, bytes):
                break
            value = step(value)
        return value if isinstance(value, bytes) else value.encode()

    return piece
