"""What is fenced in a message: the code to copy, and the files that a person attached. No widget here."""

import re
from dataclasses import dataclass

from macllm.units import size

_FILE = re.compile(
    r"^(?P<mark>`{3,})file:(?P<name>[^\n`]+)\n(?P<text>.*?)^(?P=mark)`*[ \t]*$\n?", re.M | re.S
)


@dataclass(frozen=True)
class File:
    """A text file in a message: its name and its text."""

    name: str
    text: str

    @property
    def title(self) -> str:
        """``file notes.txt (3.1 kB)``."""
        return f"file {self.name} ({size(len(self.text.encode(errors='replace')))})"


def code_of(text: str) -> list[str]:
    """The code of a Markdown text: what each fence holds, without the fence, in lists and quotes too."""
    from macllm_tui.widgets.markdown import parser

    return [token.content for token in parser().parse(text) if token.type in ("fence", "code_block")]


def with_files(text: str) -> list[str | File]:
    """A person's message as text and files in their order."""
    parts: list[str | File] = []
    start = 0
    for match in _FILE.finditer(text):
        if before := text[start : match.start()].strip("\n"):
            parts.append(before)
        parts.append(File(match["name"].strip(), match["text"]))
        start = match.end()
    if (rest := text[start:].strip("\n")) or not parts:
        parts.append(rest)
    return parts
