"""GGUF's names: all of them known to the format's own tables, and every layout undone exactly."""

import mlx.core as mx
import numpy as np
import pytest
from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
from gguf_variants import gguf_config, gguf_variants

from macllm.families import spec_from_config
from macllm.nn.stored import Dense, Packed, Stored
from macllm.quantization import Quantization
from macllm.spec import ModelSpec, TensorSpec
from macllm.spec.names import Decay, HeadPairs, Scaled
from macllm.weights.gguf.metadata import architecture_of
from macllm.weights.gguf.names import gguf_naming
from macllm.weights.names import Naming
from macllm.weights.operations import Relation

RNG = np.random.default_rng(0)


def naming_of(variant: str) -> tuple[ModelSpec, Naming]:
    spec = spec_from_config(gguf_config(variant))
    return spec, gguf_naming(spec, architecture_of(spec))


@pytest.mark.parametrize("variant", gguf_variants())
def test_every_name_is_one_that_the_format_knows(variant: str) -> None:
    """The architecture's own tables hold it, and no two tensors share one unless they are its parts."""
    spec, naming = naming_of(variant)
    architecture = {text: arch for arch, text in MODEL_ARCH_NAMES.items()}[architecture_of(spec)]
    known = {name for _, name in get_tensor_name_map(architecture, len(spec.layers)).mapping.values()}
    stored = [name for relation in naming.relations() for name in relation.stored]
    assert len(stored) == len(set(stored))
    for name in stored:
        module, _, kind = name.rpartition(".")
        lerps = module.endswith("time_mix_lerp_fused")  # the tables lack it, llama.cpp does not
        assert name in known or (module in known and kind in ("weight", "bias", "scale")) or lerps, name


def values(tensor: TensorSpec) -> list[Stored]:
    """A plain tensor, and for matrices one packed in each mode."""
    plain = mx.array(RNG.normal(size=tensor.shape).astype(np.float32))
    found: list[Stored] = [Dense(plain)]
    if tensor.quantizable and tensor.shape[-1] % 32 == 0:
        for q in (Quantization(4, 32), Quantization(8, 32), Quantization(4, 32, "mxfp4")):
            packed, scales, *biases = mx.quantize(plain, q.group_size, q.bits, q.mode)
            found.append(Packed(packed, scales, biases[0] if biases else None, q))
    return found


def same(a: Stored, b: Stored) -> bool:
    return a.shape == b.shape and all(
        mx.array_equal(x, y).item() for x, y in zip(a.arrays(), b.arrays(), strict=True)
    )


def plain(tensor: Stored) -> mx.array:
    return tensor.dequantize(mx.float32) if isinstance(tensor, Packed) else tensor.array


@pytest.mark.parametrize("variant", gguf_variants())
def test_layouts_are_undone_exactly(variant: str) -> None:
    for relation in naming_of(variant)[1].relations():
        for canonical in zip(*map(values, relation.canonical), strict=True):
            back = relation.load(relation.store(canonical))
            if any(isinstance(each, Decay | Scaled) for each in relation.operations):  # these round
                pairs = zip(back, canonical, strict=True)
                assert all(mx.allclose(plain(a), plain(b), rtol=1e-5, atol=1e-5).item() for a, b in pairs)
                continue
            assert all(same(a, b) for a, b in zip(back, canonical, strict=True)), relation.stored


def test_head_rows_are_reordered_as_llama_cpp_does() -> None:
    """Its converter's permutation, from the format's description: (heads, 2, d/2) to (heads, d/2, 2)."""
    heads, width = 3, 8
    halves = np.arange(heads * width)  # row numbers in Hugging Face's order
    pairs = halves.reshape(heads, 2, width // 2).swapaxes(1, 2).reshape(-1)
    tensor = TensorSpec("q.weight", (heads * width,), "matrix")
    (loaded,) = Relation(("q",), (tensor,), (HeadPairs(width),)).load([Dense(mx.array(pairs))])
    assert isinstance(loaded, Dense)
    assert loaded.array.tolist() == halves.tolist()


def test_superfluous_tensors_pass_and_others_do_not() -> None:
    """Among the first the layers that predict further tokens, told by what only they have."""
    for variant in ("llama", "llama-tied"):
        spec, naming = naming_of(variant)
        stored = [name for relation in naming.relations() for name in relation.stored]
        harmless = ["rope_freqs.weight", "output.weight", "blk.3.nextn.eh_proj.weight", "blk.3.attn_q.weight"]
        tensors = {name: RNG.normal(size=(2, 2)) for name in (*stored, *harmless)}
        naming = gguf_naming(spec, "llama", tensors)
        assert naming.unexpected(tensors) == []
        strange = ["blk.9.attn_q.weight", "blk.0.attn_q.lora_a", "v.blk.0.attn_q.weight"]
        assert naming.unexpected([*tensors, *strange]) == strange
