"""Writes the parts of docs/ that are generated: help texts, the catalogue's table, the picture of a chat.

python scripts/docs.py          writes them
python scripts/docs.py --check  fails where one is out of date (tests/test_docs.py does the same)
"""

import argparse
import contextlib
import io
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTE = "<!-- written by scripts/docs.py -->\n"
QUESTIONS = ("What is the capital of France?", "And of Italy?")
_CONTROL = re.compile(r"\x1b\[\?\d+[hl]|\x1b\[[0-9]*[JKHABCD]|\r")
_FIGURES = re.compile(r"\d[\d.]*")
_PATIENCE_S = 120.0


def commands() -> str:
    """``docs/commands.md``: every command's help, as the program prints it."""
    from macllm.cli.main import COMMANDS, main

    os.environ["COLUMNS"] = "100"
    parts = [NOTE, "# Commands\n"]
    for words in ([], *([name] for name in COMMANDS)):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            main([*words, "--help"])
        title = " ".join(["macllm", *words])
        parts.append(f"## {title}\n\n```text\n{out.getvalue().strip()}\n```\n")
    return "\n".join(parts)


def catalogue() -> str:
    """``docs/catalogue.md``: the models known by name."""
    from macllm.hub.catalogue import entries
    from macllm.units import size

    rows = [
        f"| `{e.name}` | {e.title} | {size(e.size_bytes)} | {e.context:,} | {e.min_memory_gb} GB | {e.licence} |"
        for e in entries().values()
    ]
    head = "| name | model | download | context | smallest Mac | licence |\n| --- | --- | --: | --: | --: | --- |"
    return "\n".join([NOTE, "# Catalogue\n", "`macllm pull NAME` fetches one.\n", head, *rows]) + "\n"


def transcript(model: str = "starter") -> str:
    """What a terminal shows of a real conversation, colours included."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "macllm", "chat", model, "--temp", "0"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "90", "LINES": "24"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    shown = ""
    try:
        for line in (*QUESTIONS, "/quit"):
            shown = _read_until_prompt(parent, shown)
            os.write(parent, f"{line}\n".encode())
        process.wait(_PATIENCE_S)
    finally:
        process.kill()
        os.close(parent)
    text = _CONTROL.sub("", shown)
    text = text[text.index("\x1b[1m") :]  # from the model's name on: a slow load shows a bar before it
    return text.rstrip().removesuffix(">").rstrip()


def _read_until_prompt(terminal: int, shown: str) -> str:
    start, end = len(shown), time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        ready, _, _ = select.select([terminal], [], [], 0.2)
        if ready:
            shown += os.read(terminal, 65536).decode()
        elif _CONTROL.sub("", shown[start:]).endswith("> "):
            return shown
    raise TimeoutError(f"the chat showed no prompt: {shown[-500:]!r}")


def picture(text: str) -> str:
    """The transcript as an SVG."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=90, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("$ macllm chat starter --temp 0\n" + text))
    svg = console.export_svg(title="macllm", unique_id="chat")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # no font is fetched from anywhere


def words_of(svg: str) -> str:
    """The picture's text with its figures blanked: what does not differ from run to run."""
    import html

    lines = re.findall(r"<text [^>]*>(.*?)</text>", svg)
    return _FIGURES.sub("#", " ".join(html.unescape(line).replace("\xa0", " ") for line in lines))


FILES: dict[str, Callable[[], str]] = {"commands.md": commands, "catalogue.md": catalogue}
PICTURE = "chat.svg"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [name for name, make in FILES.items() if _differs(name, make())]
    svg = picture(transcript())
    old = DOCS / PICTURE
    if not old.exists() or words_of(old.read_text(encoding="utf-8")) != words_of(svg):
        stale.append(PICTURE)
    if check:
        print(f"out of date: {', '.join(stale)}" if stale else "docs are up to date")
        return 1 if stale else 0
    for name, make in FILES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
    old.write_text(svg, encoding="utf-8")
    return 0


def _differs(name: str, text: str) -> bool:
    file = DOCS / name
    return not file.exists() or file.read_text(encoding="utf-8") != text


if __name__ == "__main__":
    sys.exit(main())
