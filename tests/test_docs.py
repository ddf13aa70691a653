"""What the documents show is what the program does."""

import importlib
import json
import re
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import pytest

import macllm
from macllm.engine.events import Counted, Machine, Token
from macllm.engine.protocol import Count, Generate, ModelRef, Train
from macllm.engine.recording import Exchange, read_recording, write_recording
from macllm.engine.training_events import Saved, Trained
from macllm.tokenizer.messages import Message
from macllm_tui import themes
from macllm_tui.actions import slash_commands
from macllm_tui.bindings import keymap
from macllm_tui.settings import Settings

ROOT = Path(__file__).parent.parent
PICTURES = ("chat.svg", "chat-light.svg", "chat-small.svg", "compare.svg", "models.svg", "finetune.svg")
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        return importlib.import_module("docs")


@pytest.mark.parametrize(
    "name",
    [
        "commands.md",
        "catalogue.md",
        "families.md",
        "keys.md",
        "roofline.md",
        "kernel-check.md",
        "finetuning-methods.md",
        "finetuning-objectives.md",
        "../README.md",
    ],
)
def test_generated_pages_are_up_to_date(docs: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    expected = docs.PAGES[name]()
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == expected, "run `python scripts/docs.py`"


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_show_what_the_app_shows(docs: ModuleType, name: str) -> None:
    """Words and figures, all of them: a recording gives the same screen each time."""
    recorded = docs.words_of((ROOT / "docs" / name).read_text(encoding="utf-8"))
    assert len(recorded) > 200
    assert recorded == docs.words_of(docs.PICTURES[name].svg()), "run `python scripts/docs.py`"


def test_every_picture_is_shown_and_checked(docs: ModuleType) -> None:
    drawn = {path.name for path in (ROOT / "docs").glob("*.svg")}
    assert drawn == set(docs.PICTURES) == set(PICTURES)
    pages = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert {name for name in drawn if f"{name})" not in pages} == set()


def test_the_example_of_a_family_is_one() -> None:
    page = (ROOT / "docs" / "adding-a-family.md").read_text()
    families = ROOT / "macllm" / "families"
    code, line = (re.search(rf"```{kind}\n(.*?)\n```", page, re.S) for kind in ("python", "json"))
    assert code is not None
    assert line is not None
    assert code[1] in (families / "mixtral.py").read_text()
    assert line[1] in (families / "tiny.json").read_text()


def test_recordings_tell_nothing_of_the_machine_that_made_them(docs: ModuleType, tmp_path: Path) -> None:
    for path in (ROOT / "docs" / "recordings").glob("*.jsonl"):
        assert path.stat().st_size < 200_000
        for exchange in read_recording(path).exchanges:
            assert exchange.request.model.path == exchange.request.model.name
            assert not isinstance(exchange.request, Count)
            events = (event for _, batch in exchange.batches for event in batch)
            assert all("/" not in event.path for event in events if isinstance(event, Saved | Trained))


def test_a_recording_is_taken_without_its_paths_and_counts(
    docs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelRef("tiny", "/home/somebody/models/tiny")
    machine = Machine("cpu", "test", 2, 1, "float32")
    reply = Exchange(Generate(model, (Message.of("user", "Hi"),)), ((0.5, (Token(0, "Ho"),)),), at=1.0)
    counted = Exchange(Count(model, (), "H"), ((0.1, (Counted(1, 2),)),))
    trained = Exchange(
        Train(model, "rows.jsonl", "poems", {}),
        ((0.2, (Trained("finished", 3, "/home/somebody/adapters/poems", 1.0, 2.0),)),),
        at=2.0,
    )
    raw = tmp_path / "raw.jsonl"
    write_recording(raw, machine, (counted, reply, trained))
    monkeypatch.setattr(docs, "RECORDINGS", tmp_path)
    docs.take(raw, "taken")
    taken = read_recording(tmp_path / "taken.jsonl")
    assert "somebody" not in (tmp_path / "taken.jsonl").read_text(encoding="utf-8")
    assert taken.machine == machine
    assert [one.request.model for one in taken.exchanges] == [ModelRef("tiny", "tiny")] * 2
    assert taken.exchanges[0] == replace(reply, request=taken.exchanges[0].request)
    assert taken.exchanges[1].batches[0][1] == (Trained("finished", 3, "poems", 1.0, 2.0),)


@pytest.mark.parametrize("page", ["chat.md", "models.md", "privacy.md"])
def test_slash_commands_in_pages_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`/([a-z]+)(?![/.a-z])", text))
    assert named <= set(slash_commands()), named - set(slash_commands())


def test_settings_in_pages_are_settings() -> None:
    text = (ROOT / "docs" / "chat.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert keymap(json.loads(example)["keys"]).problems == ()
    assert set(json.loads(example)) <= {field.name for field in fields(Settings)}
    assert [name for name in themes.NAMES if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", ["Llama-3.1-8B", "gemma-3-1b-it"])
def test_examples_of_explain_are_what_it_prints(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from macllm.cli.main import main

    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text((ROOT / "tests" / "configs" / f"{name.lower()}.json").read_text())
    assert main(["explain", str(folder)]) == 0
    printed = capsys.readouterr().out
    page = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```text\n(.*?)```", page, re.DOTALL) if block.startswith(name)]
    assert len(blocks) == 1
    assert printed.startswith(blocks[0].rstrip())


def test_rows_and_functions_of_the_page_of_rewards_are_judged(tmp_path: Path) -> None:
    from macllm.tune.rewards.weighted import BUILT_IN, Judged, rewards_of
    from macllm.tune.schema import read_row

    text = (ROOT / "docs" / "finetuning-rewards.md").read_text(encoding="utf-8")
    sections = re.findall(r"^### `(\w+)`\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in sections} == set(BUILT_IN)
    for name, section in sections:
        lines = "".join(re.findall(r"```jsonl\n(.*?)```", section, re.DOTALL)).splitlines()
        assert lines, name
        for line in lines:
            assert read_row(line).schema == "prompt"
            assert rewards_of(name).missing(json.loads(line)) is None, line
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "rewards.py").write_text(code)
    rewards = rewards_of(f"{tmp_path / 'rewards.py'}:brief*0.2")
    assert rewards.total(rewards.each([Judged("", "a b c", {"words": 4}), Judged("", "a", {})])) == [
        0.05,
        0.196,
    ]


def test_every_objectives_rows_are_shown_and_read() -> None:
    from macllm.tune.objectives.kinds import KINDS
    from macllm.tune.schema import read_row

    text = (ROOT / "docs" / "finetuning-objectives.md").read_text(encoding="utf-8")
    found = dict(re.findall(r"`(\w+)`:\n\n```json\n(.*?)\n```", text))
    assert set(found) == {schema for kind in KINDS.values() for schema in kind.schemas}
    assert {name: read_row(row).schema for name, row in found.items()} == {name: name for name in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_pages_exist(page: Path) -> None:
    """Every ``macllm`` command line in a code block parses, options included."""
    from macllm.cli.main import COMMANDS, MODULES, CommandParser

    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.DOTALL):
        for line in re.findall(r"(?:^|[|/ ])macllm ([a-z]+)([^|\n#]*)", block):
            name, rest = line
            assert name in COMMANDS, f"macllm {name}"
            module = importlib.import_module(f"macllm.cli.{MODULES.get(name, name)}")
            parser = CommandParser(f"macllm {name}", module.HELP)
            module.configure(parser)
            known = {option for action in parser._actions for option in action.option_strings}
            for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", rest):
                assert option in known, f"macllm {name} {option}"


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_python_examples_run(page: str, starter_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    loaded = macllm.load(starter_gguf)
    monkeypatch.setattr(macllm, "load", lambda *words, **options: loaded)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
