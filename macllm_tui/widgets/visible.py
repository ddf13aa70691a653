"""Makes what a model or a file says safe to show: no character of it steers the terminal or turns the text around."""

import re

# Controls but tab and newline, marks that reorder text, line ends that are not "\n", tags nobody sees, half characters.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_LINE_ENDS = re.compile("\r\n?")


def visible(text: str) -> str:
    """The text with each unsafe character replaced by one that shows it: ESC as ``␛``, others as ``�``.

    It is as long as before, so that positions in it stay true.
    """
    return _UNSAFE.sub(_picture, text)


def with_newlines(text: str) -> str:
    """Line ends of every system as ``\\n``."""
    return _LINE_ENDS.sub("\n", text) if "\r" in text else text


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"
