"""Models in mode nf4: written, read, written again, and the same model whatever the pieces it is written in."""

from pathlib import Path

import mlx.core as mx
import pytest
import tiny
from conversions import IDS, config, macllm_logits, same_tensors, tensors

from macllm.errors import CheckpointError, ConfigError
from macllm.kernels import nf4
from macllm.nn.stored import Packed
from macllm.quantization import Quantization
from macllm.sizes import weight_bytes
from macllm.weights import source
from macllm.weights.convert import convert
from macllm.weights.model_files import open_model
from macllm.weights.plan import Target

NF4 = Target(mode="nf4")
VARIANTS = ["llama-tied", "qwen3", "phi3", "mixtral"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_is_that_of_its_expanded_weights(variant: str, tmp_path: Path) -> None:
    done = convert(tiny.reference(variant, wide=True).folder, tmp_path / "out", NF4)
    written = config(done.path)["quantization"]
    assert written | {"bits": 4, "group_size": 64, "mode": "nf4"} == written
    plain = convert(done.path, tmp_path / "plain", Target(dequantize=True, dtype="float32"))
    assert not any(name.endswith(".scales") for name in tensors(plain.path))
    assert tiny.difference(macllm_logits(done.path), macllm_logits(plain.path)) < 1e-5


def test_the_ways_to_place_its_weights_agree(tmp_path: Path) -> None:
    """As it is, expanded for one long product, expanded at load."""
    done = convert(tiny.reference("qwen3", wide=True).folder, tmp_path / "out", NF4)
    ids = mx.array([IDS])
    packed = tiny.decoder(done.path)(ids)
    for placement in ({"dense_rows": 8}, {"expand": True}):
        assert tiny.difference(tiny.decoder(done.path, **placement)(ids), packed) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_bytes_are_known_from_the_config(variant: str, tmp_path: Path) -> None:
    done = convert(tiny.reference(variant, wide=True).folder, tmp_path / "out", NF4)
    files = open_model(done.path)
    assert weight_bytes(files.spec, files.formats()) == done.size_bytes


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_taken_over_as_it_is(variant: str, tmp_path: Path) -> None:
    first = convert(tiny.reference(variant, wide=True).folder, tmp_path / "first", NF4)
    again = convert(first.path, tmp_path / "again")
    assert same_tensors(tensors(again.path), tensors(first.path))


def test_pieces_end_where_groups_of_scales_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.reference("llama-tied", wide=True).folder
    whole = convert(folder, tmp_path / "whole", NF4)
    monkeypatch.setattr(source, "_CHUNK", 100)
    pieces = convert(folder, tmp_path / "pieces", NF4)
    assert same_tensors(tensors(pieces.path), tensors(whole.path))


def test_rows_torn_out_of_groups_are_grouped_again() -> None:
    stored = Packed(*nf4.quantize(mx.random.normal((40, 128))), Quantization(4, 64, "nf4"))
    torn = stored.rows(slice(3, 21))
    assert torn.biases is None
    back = torn.grouped()
    assert back.biases is not None and mx.array_equal(back.weight, torn.weight)
    near = mx.abs(back.dequantize(mx.float32) - torn.dequantize(mx.float32)).max()
    assert near < 0.02 * mx.abs(torn.dequantize(mx.float32)).max()


def test_other_bits_and_groups_are_refused() -> None:
    with pytest.raises(ConfigError, match="mode 'nf4' has 4 bits and groups of 64"):
        Target(mode="nf4", bits=8)


def test_a_file_whose_groups_do_not_go_with_its_shapes_is_refused(tmp_path: Path) -> None:
    done = convert(tiny.reference("llama-tied", wide=True).folder, tmp_path / "out", NF4)
    file = done.path / "model.safetensors"
    arrays = dict(mx.load(str(file)))
    name = next(name for name in arrays if name.endswith("down_proj.biases"))
    mx.save_safetensors(str(file), {**arrays, name: mx.zeros((99, 2))}, {"format": "mlx"})
    with pytest.raises(CheckpointError, match=r"down_proj\.biases has shape \(99, 2\)"):
        macllm_logits(done.path)
