"""What the documents show is what the program does."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import macllm
from macllm.hub.pull import pull

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs", ROOT / "scripts" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["commands.md", "catalogue.md"])
def test_generated_pages_are_up_to_date(docs: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    expected = docs.FILES[name]()
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == expected, "run `python scripts/docs.py`"


def test_the_picture_shows_what_a_chat_shows(docs: ModuleType, starter_gguf: Path) -> None:
    pull(str(starter_gguf), name="starter")  # into this test's own home
    shown = docs.picture(docs.transcript())
    recorded = (ROOT / "docs" / "chat.svg").read_text(encoding="utf-8")
    assert docs.words_of(shown) == docs.words_of(recorded)


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
