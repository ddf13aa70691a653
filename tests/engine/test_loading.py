"""What a loaded model takes from the files beside its weights, and what of them is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from macllm.engine.loading import load_model
from macllm.engine.request import Sampling
from macllm.errors import ConfigError, TokenizerError


@pytest.fixture
def folder(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A tiny model's own copy of its folder."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))


@pytest.mark.parametrize(
    ("stated", "sampling"),
    [
        ({"temperature": 0.7, "top_p": 0.9, "top_k": 0}, Sampling(temperature=0.7, top_p=0.9)),
        ({"temperature": 0.7, "do_sample": False}, Sampling()),
        ({}, Sampling()),
    ],
)
def test_a_models_own_sampling(folder: Path, stated: dict[str, object], sampling: Sampling) -> None:
    (folder / "generation_config.json").write_text(json.dumps(stated))
    assert load_model(folder).sampling == sampling


def test_a_setting_out_of_range_is_named_with_its_file(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"top_k": -1}))
    with pytest.raises(ConfigError, match=r"generation_config\.json: top_k=-1 is out of range"):
        load_model(folder)


def test_a_folder_without_a_tokenizer_takes_ids(folder: Path) -> None:
    loaded = load_model(folder)
    assert loaded.tokenizer is None
    with pytest.raises(TokenizerError, match="there is no tokenizer"):
        loaded.require_tokenizer()


@pytest.mark.parametrize("name", ["tokenizer.json", "spiece.model", "qwen.tiktoken", "vocab.json"])
def test_a_damaged_tokenizer_is_not_taken_for_none(folder: Path, name: str) -> None:
    (folder / name).write_text("nothing")
    with pytest.raises(TokenizerError):
        load_model(folder)
