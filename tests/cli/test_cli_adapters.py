"""``macllm adapters``: what is kept here, what an adapter is, and other tools' formats."""

import json
from pathlib import Path
from typing import Any

import chatty
import pytest
import random_adapters

import macllm
from macllm.adapters import kept
from macllm.adapters.files import read, write_peft
from macllm.cli.main import main
from macllm.weights.model_files import open_model

BASE = chatty.folder("endless")
Capture = pytest.CaptureFixture[str]


def told(capsys: Capture, *words: str) -> Any:
    assert main(["adapters", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def failed(capsys: Capture, *words: str) -> str:
    assert main(["adapters", *words]) == 2
    return capsys.readouterr().err


def test_the_list_shows_what_is_kept_and_names_what_is_not_whole(capsys: Capture) -> None:
    assert told(capsys) == []
    assert main(["adapters"]) == 0
    assert "no adapters yet" in capsys.readouterr().out
    random_adapters.written(BASE, kept.folder() / "poems")
    random_adapters.written(BASE, kept.folder() / "broken")
    (kept.folder() / "broken" / kept.WEIGHTS).write_bytes(b"nothing")
    (kept.folder() / "started").mkdir()
    (found,) = told(capsys, "list")
    assert (found["name"], found["method"], found["rank"], found["base"]) == ("poems", "lora", 4, str(BASE))
    assert main(["adapters"]) == 0
    shown = capsys.readouterr()
    assert "poems" in shown.out and "broken" not in shown.out
    assert "broken" in shown.err and "save the adapter again" in shown.err


def test_info_tells_methods_formats_and_shapes(tmp_path: Path, capsys: Capture) -> None:
    folder = random_adapters.written(BASE, tmp_path / "poems")
    found = told(capsys, "info", str(folder))
    assert (found["format"], found["scale"]) == ("mlx-lm", 1.0)
    assert found["tensors"]["model.layers.0.self_attn.q_proj.lora_a"][1] == 4
    spec = open_model(BASE).spec
    write_peft(tmp_path / "theirs", spec, read(folder, spec), "org/name")
    theirs = told(capsys, "info", str(tmp_path / "theirs"))
    assert (theirs["format"], theirs["rank"], theirs["base"]) == ("peft", 4, "org/name")
    assert theirs["parameters"] == found["parameters"]
    assert main(["adapters", "info", str(folder)]) == 0
    assert f"macllm chat {BASE} --adapter {folder}" in capsys.readouterr().out


def test_convert_writes_what_other_tools_read(tmp_path: Path, capsys: Capture) -> None:
    folder = random_adapters.written(BASE, tmp_path / "poems")
    done = told(capsys, "convert", str(folder), str(tmp_path / "peft"), "--to", "peft")
    assert done == {"path": str(tmp_path / "peft"), "format": "peft", "base": str(BASE)}
    llm = macllm.load(BASE, adapter=folder)
    other = macllm.load(BASE, adapter=tmp_path / "peft")
    assert abs(llm.logits([5, 6, 7]) - other.logits([5, 6, 7])).max() < 1e-4
    assert main(["adapters", "convert", str(folder), str(tmp_path / "lora.gguf"), "--to", "gguf"]) == 0
    assert (tmp_path / "lora.gguf").read_bytes()[:4] == b"GGUF"
    config = folder / kept.CONFIG
    config.write_text(
        json.dumps({key: value for key, value in json.loads(config.read_text()).items() if key != "model"})
    )
    words = ("convert", str(folder), str(tmp_path / "mlx"), "--to", "mlx")
    assert "name the model with --base" in failed(capsys, *words)
    assert told(capsys, *words, "--base", str(BASE))["base"] == str(BASE)
    assert "exists already" in failed(capsys, *words, "--base", str(BASE))
    assert "is not on this machine" in failed(capsys, *words, "--base", "org/none")


def test_what_does_not_fit_is_said(capsys: Capture) -> None:
    assert "did you mean info?" in failed(capsys, "inf", "x")
    assert "needs NAME OUT" in failed(capsys, "convert", "x")
    assert "one argument too many" in failed(capsys, "list", "x")
    assert "--to does not go with" in failed(capsys, "list", "--to", "peft")
    assert "needs --to peft or mlx or gguf" in failed(capsys, "convert", "x", "y")
    assert "no adapter 'x', and none kept here" in failed(capsys, "info", "x")
