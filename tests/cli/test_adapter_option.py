"""``--adapter`` of chat and generate, and ``/adapter`` in the plain chat: what answers is the adapter's."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import chatty
import pytest
import random_adapters

import macllm
from macllm.adapters import kept
from macllm.chats.store import Store
from macllm.cli.main import main
from macllm.cli.talk import Output, Talk, Voice
from macllm.cli.talk_commands import run_command
from macllm.engine.request import Limits
from macllm.errors import InputError

BASE = chatty.folder("endless")
GREEDY = ("--temp", "0", "--max-tokens", "6")


def completed(capsys: pytest.CaptureFixture[str], *more: str) -> list[int]:
    assert main(["generate", str(BASE), "-p", "Hello", "--json", *GREEDY, *more]) == 0
    found: list[int] = json.loads(capsys.readouterr().out)["tokens"]
    return found


def test_generate_completes_with_the_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = random_adapters.written(BASE, tmp_path / "one")
    random_adapters.written(BASE, kept.folder() / "poems")
    adapted = completed(capsys, "--adapter", str(folder))
    assert adapted != completed(capsys)
    assert adapted == completed(capsys, "--adapter", "poems")
    assert main(["generate", str(BASE), "-p", "Hello", "--adapter", "poem"]) == 2
    assert "did you mean poems?" in capsys.readouterr().err
    other = random_adapters.written(chatty.folder("big"), tmp_path / "other")
    assert main(["generate", str(BASE), "-p", "Hello", "--adapter", str(other)]) == 2
    assert "the adapter belongs to another base" in capsys.readouterr().err


def test_a_piped_chat_answers_with_the_adapter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = random_adapters.written(BASE, tmp_path / "one")

    def said(*more: str) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n"))
        assert main(["chat", str(BASE), *GREEDY, *more]) == 0
        return capsys.readouterr().out

    assert said("--adapter", str(folder)) != said()


@pytest.fixture
def talk() -> Iterator[Talk]:
    store = Store.open()
    yield Talk(macllm.load(BASE), None, macllm.Sampling(), Limits(max_tokens=6, ignore_eos=True), store=store)
    store.close()


def test_the_plain_chat_switches_adapters(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    random_adapters.written(BASE, kept.folder() / "poems")

    def command(line: str) -> str:
        run_command(talk, line, Voice("", "", with_figures=False))
        return capsys.readouterr().out

    out = Output(lambda piece: None)
    assert "without an adapter" in command("/adapter")
    first = talk.say("Hello", out).text
    assert command("/adapter poems") == f"{talk.llm.name} answers with poems from here on\n"
    listed = command("/adapter")
    assert "answers with poems;" in listed and "  poems\n" in listed
    asked = talk.branch[0].id
    assert talk.answer(asked, out).text != first
    with pytest.raises(InputError, match="did you mean poems"):
        command("/adapter poem")
    assert command("/adapter none") == f"{talk.llm.name} answers without an adapter from here on\n"
    assert talk.answer(asked, out).text == first
