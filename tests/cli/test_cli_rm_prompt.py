"""``macllm rm`` asks on a terminal, and only there."""

import io
import sys

import pytest

from macllm.cli.main import main
from macllm.hub import store


class Terminal(io.StringIO):
    """Input that a person types."""

    def isatty(self):
        return True


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("MACLLM_HOME", str(tmp_path / "home"))
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    store.save(store.at_path(file))
    return file


@pytest.mark.parametrize(
    ("words", "typed", "code"),
    [((), "n\n", 1), ((), "", 1), ((), "y\n", 0), ((), "yes\n", 0), (("--yes",), "", 0)],
)
def test_deletes_when_agreed(model, monkeypatch, capsys, words, typed, code):
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert main(["rm", "m", *words]) == code
    assert (store.named("m") is None) == (code == 0)
    asked = "delete the entry m, not its files? [y/N]" in capsys.readouterr().err
    assert asked == (words == ())
    assert model.exists(), "a file that macllm did not fetch stays"


def test_a_pipe_is_not_asked(model, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["rm", "m"]) == 0 and store.named("m") is None
