"""``macllm explain --roofline``: the bounds it shows are the cost model's, of the weights as they lie."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import config_of, write_with_mlx_lm

sys.path.insert(0, str(Path(__file__).parent.parent / "weights"))

from gguf_maker import make_gguf

from macllm.cli.main import main
from macllm.kernels.chips import CHIPS
from macllm.kernels.cost import step
from macllm.weights.model_files import open_model

CONFIGS = Path(__file__).parent.parent / "configs"


def shown(path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["explain", str(path), "--roofline", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text((CONFIGS / "llama-3.1-8b.json").read_text())
    return tmp_path


def test_bounds_are_bandwidth_over_bytes(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(llama, capsys)
    assert found["parameters"] == 8_030_261_248  # all that it shows otherwise is there too
    bounds = found["roofline"]
    assert bounds["context_tokens"] == 4096
    assert len(bounds["chips"]) == len(CHIPS)
    choices = {choice["weights"]: choice for choice in bounds["choices"]}
    assert [round(choices[name]["bits_per_weight"], 1) for name in ("stored", "8", "4")] == [16.0, 8.5, 4.5]
    for chip in bounds["chips"]:
        for name, choice in choices.items():
            moved = choice["read_bytes"] + choice["written_bytes"]
            assert chip["decode_tps"][name] == pytest.approx(chip["bandwidth_gb_per_s"] * 1e9 / moved)
        assert (chip["prefill_tps"] is None) == (chip["tflops"] is None)


def test_context_lowers_them(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short, long = (shown(llama, capsys, "--context", str(n))["roofline"] for n in (1024, 131072))
    assert (short["context_tokens"], long["context_tokens"]) == (1024, 131072)
    for one, other in zip(short["chips"], long["chips"], strict=True):
        assert one["decode_tps"]["4"] > 2 * other["decode_tps"]["4"]


def test_a_short_context_is_the_models_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config_of("llama")))
    assert shown(tmp_path, capsys)["roofline"]["context_tokens"] == 512


@pytest.mark.parametrize("quantization", [{}, {"bits": 4}, {"mode": "mxfp4"}], ids=str)
def test_weights_are_taken_as_they_lie(
    quantization: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the files' headers, whatever the config leaves out."""
    chosen = quantization | {"predicate": lambda path, _: "mlp" not in path} if quantization else {}
    write_with_mlx_lm("llama", tmp_path, dtype="float16", **chosen)
    files = open_model(tmp_path)
    formats = files.stored_formats()
    assert formats["layers.0.channel.up.weight"] is None
    assert (formats["layers.0.mixer.q.weight"] is None) == (not quantization)
    stored = shown(tmp_path, capsys)["roofline"]["choices"][0]
    assert stored["read_bytes"] == step(files.spec, formats, 512).total.read_bytes


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "F16"])
def test_a_gguf_is_read_as_it_is_held(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_gguf(tmp_path / "tiny.gguf", "llama", kind).path
    bits = shown(path, capsys)["roofline"]["choices"][0]["bits_per_weight"]
    low, high = {"Q4_0": (4.4, 6), "Q8_0": (8.4, 10), "F16": (16, 17)}[kind]
    assert low < bits < high


def test_the_tables_fit_80_columns(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(llama), "--roofline"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for text in ("CHIP", "M3 Max", "4-bit", "LAUNCHES", "4,096 tokens"):
        assert text in out
    assert "MAC " not in out  # the other tables are not


def test_what_is_not_known_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nemotron", "vocab_size": 128}))
    assert main(["explain", str(tmp_path), "--roofline"]) == 2
    error = capsys.readouterr().err
    assert "mlx-lm's classes" in error
    assert error.count("\n") == 1
