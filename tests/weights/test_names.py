"""Names of tensors: the table of each origin against that origin's own, and every operation undone exactly."""

import mlx.core as mx
import numpy as np
import pytest
from tiny import config_of, reference, variants

from macllm.errors import CheckpointError
from macllm.families import spec_from_config
from macllm.nn.stored import Dense, Packed, Stored
from macllm.quantization import Quantization
from macllm.spec import ModelSpec
from macllm.weights.names import InterleavedHeads, Naming, Offset, Operation, Same, gguf, hugging_face

RNG = np.random.default_rng(0)
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3"}


def spec_of(variant: str) -> ModelSpec:
    return spec_from_config(config_of(variant))


@pytest.mark.parametrize("variant", variants())
def test_hugging_face_names_and_shapes_are_the_originals(variant: str) -> None:
    spec, model = spec_of(variant), reference(variant).model
    naming = hugging_face(spec)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if spec.tied:
        expected.pop("lm_head.weight")  # the same tensor as the embedding
    assert {naming.stored(tensor.name): tensor.shape for tensor in spec.tensors()} == expected
    assert sum(p.numel() for p in model.parameters()) == spec.parameters


@pytest.mark.parametrize("variant", variants())
def test_gguf_names_are_those_of_the_formats_own_tables(variant: str) -> None:
    """What llama.cpp's converter makes of each Hugging Face name is what macllm looks for."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    spec = spec_of(variant)
    name = ARCHITECTURES[variant.split("-")[0].replace("llama3", "llama")]
    architecture = {text: arch for arch, text in MODEL_ARCH_NAMES.items()}[name]
    assert architecture in MODEL_ARCH
    table = get_tensor_name_map(architecture, len(spec.layers))
    theirs, ours = hugging_face(spec), gguf(spec, name)
    for tensor in spec.tensors():
        converted = table.get_name(theirs.stored(tensor.name), try_suffixes=(".weight", ".bias"))
        assert converted == ours.stored(tensor.name), tensor.name


def tensors_for(name: str, rows: int) -> list[Stored]:
    """A plain vector or matrix, and for matrices one packed in each mode."""
    if name.endswith(("norm.weight", ".bias")):
        return [Dense(mx.array(RNG.normal(size=rows).astype(np.float32)))]
    weight = mx.array(RNG.normal(size=(rows, 64)).astype(np.float32))
    found: list[Stored] = [Dense(weight)]
    for q in (Quantization(4, 32), Quantization(3, 64), Quantization(4, 32, "mxfp4")):
        packed, scales, *biases = mx.quantize(weight, q.group_size, q.bits, q.mode)
        found.append(Packed(packed, scales, biases[0] if biases else None, q))
    return found


def arrays(tensor: Stored) -> list[mx.array]:
    if isinstance(tensor, Dense):
        return [tensor.array]
    return [array for array in (tensor.weight, tensor.scales, tensor.biases) if array is not None]


def same(a: Stored, b: Stored) -> bool:
    pairs = zip(arrays(a), arrays(b), strict=True)
    return all(x.shape == y.shape and mx.array_equal(x, y).item() for x, y in pairs)


def namings(variant: str) -> list[Naming]:
    spec = spec_of(variant)
    return [hugging_face(spec), *(gguf(spec, name) for name in sorted(set(ARCHITECTURES.values())))]


@pytest.mark.parametrize("variant", ["llama", "llama-biases", "qwen2", "qwen3", "gemma3"])
def test_every_operation_is_undone_by_its_inverse(variant: str) -> None:
    for naming in namings(variant):
        for tensor in spec_of(variant).tensors():
            operation = naming.operation(tensor.name)
            for stored in tensors_for(tensor.name, tensor.shape[0]):
                back = operation.store(operation.load(stored))
                if isinstance(operation, Offset):  # float32: 1 + (w - 1) rounds
                    assert np.allclose(arrays(back)[0], arrays(stored)[0], atol=1e-6)
                else:
                    assert same(back, stored)
                    assert same(operation.load(operation.store(stored)), stored)


def test_offsets_of_sixteen_bit_norms_come_back_exactly() -> None:
    for dtype in (mx.bfloat16, mx.float16):
        weight = mx.array(RNG.normal(0, 0.5, size=256).astype(np.float32)).astype(dtype)
        operation = Offset(1.0)
        back = operation.store(operation.load(Dense(weight)))
        assert isinstance(back, Dense)
        assert mx.array_equal(back.array.astype(dtype), weight)


def test_an_offset_needs_plain_values() -> None:
    with pytest.raises(CheckpointError, match="norm's weight is stored quantized"):
        Offset(1.0).load(tensors_for("x.weight", 4)[1])


def test_head_rows_are_reordered_as_llama_cpp_does() -> None:
    """Its converter's permutation, from the format's description: (heads, 2, d/2) to (heads, d/2, 2)."""
    heads, width = 3, 8
    halves = np.arange(heads * width)  # row numbers in Hugging Face's order
    pairs = halves.reshape(heads, 2, width // 2).swapaxes(1, 2).reshape(-1)
    operation = InterleavedHeads(heads)
    loaded = operation.load(Dense(mx.array(pairs)))
    assert isinstance(loaded, Dense)
    assert loaded.array.tolist() == halves.tolist()


def operations(variant: str, architecture: str) -> dict[str, Operation]:
    naming = gguf(spec_of(variant), architecture)
    return {tensor.name: naming.operation(tensor.name) for tensor in spec_of(variant).tensors()}


def test_only_llama_files_have_reordered_heads_and_only_folders_an_offset() -> None:
    """GGUF norms of gemma are stored with the 1 added."""
    for name, operation in operations("llama-biases", "llama").items():
        reordered = ".mixer.q." in name or ".mixer.k." in name
        assert isinstance(operation, InterleavedHeads if reordered else Same), name
    assert isinstance(operations("llama", "llama")["layers.0.mixer.k.weight"], InterleavedHeads)
    for variant, architecture in (("qwen2", "qwen2"), ("qwen3", "qwen3"), ("gemma3", "gemma3")):
        assert set(map(type, operations(variant, architecture).values())) == {Same}
    spec = spec_of("gemma3")
    naming = hugging_face(spec)
    offset = {t.name for t in spec.tensors() if isinstance(naming.operation(t.name), Offset)}
    assert offset == {tensor.name for tensor in spec.tensors() if tensor.kind == "norm"}


def test_unexpected_tensors_are_found_and_superfluous_ones_pass() -> None:
    untied, tied = spec_of("llama"), spec_of("llama-tied")
    for spec, extra in ((untied, []), (tied, ["lm_head.weight", "lm_head.scales", "lm_head.biases"])):
        naming = hugging_face(spec)
        known = [naming.stored(tensor.name) for tensor in spec.tensors()]
        harmless = [*extra, "model.layers.0.self_attn.rotary_emb.inv_freq"]
        strange = ["model.layers.3.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.lora_a", "visual.x"]
        assert naming.unexpected(spec, [*known, *harmless]) == []
        assert naming.unexpected(spec, [*known, *strange, *harmless]) == strange
    assert gguf(tied, "llama").unexpected(tied, ["rope_freqs.weight", "output.weight"]) == []
    assert gguf(untied, "llama").unexpected(untied, ["rope_freqs.weight", "blk.9.attn_q.weight"]) == [
        "blk.9.attn_q.weight"
    ]
