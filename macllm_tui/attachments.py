"""Text files for a prompt: read with care, refused in one sentence, fenced so that their end is plain."""

import re
import shlex
from pathlib import Path

from macllm.errors import InputError
from macllm.units import size

LIMIT = 1_000_000  # bytes; about a quarter of a million tokens, more than most contexts hold
_SAMPLE = 8192  # bytes looked at first: a video must not be read to be refused
_ENCODINGS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),  # before utf-16, whose mark it begins with
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_COLOURS = re.compile("\x1b\\[[0-9;:?]*[ -/]*[@-~]")  # of a log that was written for a terminal
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # never in text; escape is, in a log with colours


def attach(path: Path) -> str:
    """The file as it goes into a prompt: a block with its name, fenced by more backticks than any inside.

    Raises InputError where it is missing, a folder, too large or not text.
    """
    return fenced(path.name, read_text(path))


def fenced(name: str, text: str) -> str:
    """A block that holds ``text`` unchanged but for its line ends."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    longest = max((len(run) for run in re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    end = "" if text.endswith("\n") or not text else "\n"
    return f"{fence}file:{' '.join(name.split())}\n{text}{end}{fence}"


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or with a mark in UTF-8, -16 or -32. Raises InputError."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; name one of the files in it")
        if not path.is_file():
            there = path.exists()  # a device or a pipe may never end
            raise InputError(f"{path} is not a file" if there else f"there is no file {path}; check the name")
        with path.open("rb") as file:
            data = file.read(_SAMPLE)
            encoding = _encoding(data)
            if encoding == "utf-8" and b"\x00" in data:
                raise _not_text(path)
            data += file.read(LIMIT + 1 - len(data))
        if len(data) > LIMIT:
            bytes_ = path.stat().st_size
            raise InputError(
                f"{path} has {size(bytes_)}, more than the {size(LIMIT)} that fit; attach a part of it"
            )
        text = data.decode(encoding)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({(error.strerror or str(error)).lower()})") from None
    except UnicodeDecodeError:
        raise _not_text(path) from None
    if _CONTROL.search(text):
        raise _not_text(path)
    return _COLOURS.sub("", text)


def path_from(text: str) -> Path:
    """The path that a person typed, or that a terminal writes when a file is dropped on it."""
    text = text.strip()
    path = Path(text).expanduser()
    if not text or path.exists() or not re.search(r"['\"\\]", text):
        return path
    try:
        words = shlex.split(text)
    except ValueError:  # a quote that does not end
        return path
    return Path(words[0]).expanduser() if len(words) == 1 else path


def _encoding(start: bytes) -> str:
    return next((name for mark, name in _ENCODINGS if start.startswith(mark)), "utf-8")


def _not_text(path: Path) -> InputError:
    return InputError(f"{path} is not text in UTF-8 or UTF-16; convert it, or attach another file")
