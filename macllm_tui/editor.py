"""A text in the editor that the person has chosen with $VISUAL or $EDITOR."""

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from macllm.errors import InputError, MacllmError


def command() -> list[str]:
    """The editor's command line. Raises InputError where none is set."""
    for name in ("VISUAL", "EDITOR"):
        value = os.environ.get(name, "").strip()
        if value:
            try:
                return shlex.split(value)
            except ValueError:
                raise InputError(f"{name}={value} has a quote without an end; correct it") from None
    raise InputError("no editor is set; say which in your shell, for example: export EDITOR=nano")


def edit(text: str, arguments: list[str]) -> str:
    """What the person made of ``text``; returns when the editor ends. Raises MacllmError where it fails."""
    handle, name = tempfile.mkstemp(prefix="macllm-", suffix=".md")  # only its owner can read it
    path = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        with _interrupts_are_the_editors():
            done = subprocess.run([*arguments, name], check=False)
        if done.returncode != 0:
            raise MacllmError(f"{arguments[0]} ended with status {done.returncode}; the prompt is as it was")
        edited = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise MacllmError(f"{arguments[0]} did not save UTF-8; the prompt is as it was") from None
    except OSError as error:
        raise MacllmError(
            f"the editor '{arguments[0]}' cannot be used ({error.strerror}); the prompt is as it was"
        ) from None
    finally:
        path.unlink(missing_ok=True)
    # editors end the last line, which nobody asked for
    return edited.removesuffix("\n") if not text.endswith("\n") else edited


@contextlib.contextmanager
def _interrupts_are_the_editors() -> Iterator[None]:
    """Ctrl-C in the editor must not end the app. A handler, since an ignored signal would be inherited."""
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
