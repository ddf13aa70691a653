"""``macllm families``: what is native, what mlx-lm runs, and that a family which is wrong is found out."""

import json
from dataclasses import replace
from typing import Any

import pytest

from macllm.cli.main import main
from macllm.families import spec_from_config
from macllm.families.config import Config
from macllm.families.registry import FAMILIES
from macllm.families.tiny import tiny_config
from macllm.spec import ModelSpec


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["families", *words]) == code
    out, err = capsys.readouterr()
    return err if code == 2 else out


def test_every_family_has_a_tiny_config_and_no_config_is_left_over() -> None:
    for model_type in FAMILIES:
        spec = spec_from_config(tiny_config(model_type))
        assert spec.family == model_type
        assert spec.parameters < 400_000


def test_rows_say_who_runs_what(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(printed(capsys, "--json"))
    by_type = {row["model_type"]: row for row in rows}
    assert len(by_type) == len(rows)
    assert {row["model_type"] for row in rows if row["native"]} == set(FAMILIES)
    assert by_type["llama"]["blocks"] == ["attention", "mlp"]
    assert by_type["qwen3_next"]["blocks"] == ["gated delta", "experts", "attention"]
    assert by_type["nemotron"] == {"model_type": "nemotron", "native": False, "blocks": []}
    assert not {"base", "cache", "rope_utils", "switch_layers", "llama"} & {
        row["model_type"] for row in rows if not row["native"]
    }
    text = printed(capsys)
    assert "Through mlx-lm's classes:" in text
    assert all(model_type in text for model_type in by_type)


def test_a_family_is_compared_with_its_original(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "--check", "olmo2", "--json"))
    assert list(found) == ["model_type", "reference", "whole", "stepwise", "tolerance", "ok"]
    assert found["ok"]
    assert found["reference"].startswith("transformers ")
    assert 0 < max(found["whole"], found["stepwise"]) < found["tolerance"] == 1e-4
    assert "equal" in printed(capsys, "--check", "olmo2")


def test_a_family_that_is_wrong_is_found_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = FAMILIES["llama"]

    def wrong(c: Config) -> ModelSpec:
        spec = right(c)
        return replace(spec, norm=replace(spec.norm, eps=0.5))

    monkeypatch.setitem(FAMILIES, "llama", wrong)
    assert "DIFFERS" in printed(capsys, "--check", "llama", code=1)


def test_without_transformers_mlx_lm_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from macllm import parity

    real = parity.find_spec

    def without(name: str) -> Any:
        return None if name == "transformers" else real(name)

    monkeypatch.setattr(parity, "find_spec", without)
    found = json.loads(printed(capsys, "--check", "qwen3", "--json"))
    assert found["reference"].startswith("mlx-lm ")
    assert found["ok"]


def test_what_has_no_family_cannot_be_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert "model_type='nemotron' has no native family" in printed(capsys, "--check", "nemotron", code=2)
