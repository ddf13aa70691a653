"""Names of tensors: the table of each origin against that origin's own, and every operation undone exactly."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tiny import config_of, decoder, reference, variants

from macllm.errors import CheckpointError
from macllm.families import spec_from_config
from macllm.nn.stored import Dense, Packed, Stored
from macllm.quantization import Quantization
from macllm.spec import ModelSpec, TensorSpec
from macllm.spec.names import (
    HeadPairs,
    LatentHeads,
    Offset,
    Operation,
    Rows,
    Scaled,
    Squeezed,
    Stack,
    Transposed,
)
from macllm.weights.gguf.names import gguf_naming
from macllm.weights.model_files import open_model
from macllm.weights.names import Naming, hugging_face
from macllm.weights.operations import Relation

RNG = np.random.default_rng(0)
PACKINGS = (Quantization(4, 32), Quantization(3, 64), Quantization(4, 32, "mxfp4"))


def spec_of(variant: str) -> ModelSpec:
    return spec_from_config(config_of(variant))


def header(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what a folder holds."""
    with (folder / "model.safetensors").open("rb") as file:
        entries = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    entries.pop("__metadata__", None)
    return {name: tuple(entry["shape"]) for name, entry in entries.items()}


@pytest.mark.parametrize("variant", variants())
def test_the_hubs_names_and_shapes_are_what_the_original_writes(variant: str) -> None:
    files = open_model(reference(variant).folder)
    written = header(files.path)
    relations = list(files.naming.relations())
    ours = {
        name: shape
        for relation in relations
        for name, shape in zip(relation.stored, relation.stored_shapes(), strict=True)
    }
    assert set(files.naming.unexpected(written)) == set()
    assert ours == {name: shape for name, shape in written.items() if name in ours}
    assert (
        sum(tensor.size for relation in relations for tensor in relation.canonical) == files.spec.parameters
    )


@pytest.mark.parametrize("variant", variants())
def test_every_tensor_survives_the_way_there_and_back(variant: str) -> None:
    """Stored by the original, loaded, stored again: nothing is lost, in either form of names."""
    files = open_model(reference(variant).folder)
    checkpoint = files.checkpoint(mx.float32)
    for form in ("hub", "mlx"):
        canonical: dict[str, Stored] = {}
        for relation in files.naming.relations():
            tensors = relation.load([checkpoint.read(name) for name in relation.stored])
            canonical |= dict(zip((t.name for t in relation.canonical), tensors, strict=True))
        for relation in hugging_face(files.spec, form).relations():
            inside = [canonical[tensor.name] for tensor in relation.canonical]
            back = relation.load(relation.store(inside))
            assert [t.shape for t in inside] == [t.shape for t in relation.canonical]
            for found, expected in zip(back, inside, strict=True):
                assert close(found, expected)


def close(found: Stored, expected: Stored) -> bool:
    """To the last bit but for what an addition rounds."""
    assert isinstance(found, Dense)
    assert isinstance(expected, Dense)
    return bool(mx.allclose(found.array, expected.array, rtol=1e-6, atol=1e-6).item())


def matrices(*shapes: tuple[int, ...]) -> list[list[Stored]]:
    """Plain and packed matrices of those shapes, one list a way to store them."""
    dense = [mx.array(RNG.normal(size=shape).astype(np.float32)) for shape in shapes]
    found: list[list[Stored]] = [[Dense(array) for array in dense]]
    for q in PACKINGS:
        packed = [mx.quantize(array, q.group_size, q.bits, q.mode) for array in dense]
        found.append([Packed(w, scales, *(biases or [None]), q) for w, scales, *biases in packed])
    return found


def relation(operations: tuple[Operation, ...], *shapes: tuple[int, ...], stored: int = 1) -> Relation:
    kinds = ["matrix" if len(shape) == 2 else "stack" for shape in shapes]
    tensors = [
        TensorSpec(f"t{i}", shape, kind) for i, (shape, kind) in enumerate(zip(shapes, kinds, strict=True))
    ]
    return Relation(tuple(f"s{i}" for i in range(stored)), tuple(tensors), operations)


def same(a: Stored, b: Stored) -> bool:
    pairs = zip(a.arrays(), b.arrays(), strict=True)
    return all(x.shape == y.shape and mx.array_equal(x, y).item() for x, y in pairs)


@pytest.mark.parametrize(
    ("operations", "shapes", "stored"),
    [
        ((Rows(),), [(12, 64), (6, 64), (6, 64)], 1),
        ((Rows(3),), [(12, 64), (6, 64), (6, 64)], 1),
        ((Rows(),), [(5, 8, 64), (5, 4, 64)], 1),
        ((Rows(4),), [(5, 8, 64), (5, 8, 64)], 1),
        ((Stack(),), [(5, 8, 64)], 5),
        ((Stack(), Rows()), [(5, 8, 64), (5, 6, 64)], 5),
        ((HeadPairs(3),), [(24, 64)], 1),
        ((Squeezed(1),), [(24, 64)], 1),
    ],
    ids=str,
)
def test_operations_along_rows_keep_packed_codes(
    operations: tuple[Operation, ...], shapes: list[tuple[int, ...]], stored: int
) -> None:
    held = relation(operations, *shapes, stored=stored)
    assert held.moves_whole_groups
    for tensors in matrices(*shapes):
        kept = held.store(tensors)
        assert len(kept) == stored
        assert [tensor.shape for tensor in kept] == held.stored_shapes()
        for found, expected in zip(held.load(kept), tensors, strict=True):
            assert same(found, expected)


def test_rows_by_group_are_where_the_format_says() -> None:
    """q, k and v of head 0, then of head 1: what GPT-NeoX's fused matrix holds."""
    heads, width = 2, 3
    stored = Dense(mx.arange(heads * 3 * width).reshape(-1, 1))
    q, k, v = relation((Rows(heads),), *[(heads * width, 1)] * 3).load([stored])
    assert q.array.reshape(-1).tolist() == [0, 1, 2, 9, 10, 11]
    assert k.array.reshape(-1).tolist() == [3, 4, 5, 12, 13, 14]
    assert v.array.reshape(-1).tolist() == [6, 7, 8, 15, 16, 17]


def test_biases_are_cut_like_their_matrices() -> None:
    tensors = tuple(TensorSpec(f"t{i}.bias", (6,), "bias") for i in range(2))
    gate, up = Relation(("s.bias",), tensors, (Transposed(), Rows(6))).load([Dense(mx.arange(12))])
    assert gate.array.tolist() == [0, 2, 4, 6, 8, 10]  # in turns
    assert up.array.tolist() == [1, 3, 5, 7, 9, 11]


def test_latent_keys_and_values_are_taken_out_of_one_matrix() -> None:
    heads, nope, value, rank = 2, 3, 4, 32
    whole = mx.array(RNG.normal(size=(heads * (nope + value), rank)).astype(np.float32))
    held = relation((LatentHeads(heads, nope),), (heads, rank, nope), (heads, value, rank))
    keys, values = held.load([Dense(whole)])
    by_head = whole.reshape(heads, nope + value, rank)
    assert mx.array_equal(keys.array, by_head[:, :nope].swapaxes(1, 2))
    assert mx.array_equal(values.array, by_head[:, nope:])
    assert mx.array_equal(held.store([keys, values])[0].array, whole)
    assert not held.moves_whole_groups


def test_a_transposed_packed_matrix_gives_its_values() -> None:
    weight = matrices((32, 64))[1][0]
    assert isinstance(weight, Packed)
    held = relation((Transposed(),), (64, 32))
    (loaded,) = held.load([weight])
    assert isinstance(loaded, Dense)
    assert mx.array_equal(loaded.array, weight.dequantize(mx.float32).T)


@pytest.mark.parametrize(("factors", "rows"), [((0.37,), ()), ((2.0, 0.3, 1.0), (10, 2, 20))])
def test_factors_become_part_of_the_rows_they_are_of(
    factors: tuple[float, ...], rows: tuple[int, ...]
) -> None:
    each = np.repeat(factors, rows or 32).astype(np.float32)
    held = relation((Scaled(factors, rows),), (32, 64))
    assert not held.moves_whole_groups  # a packed matrix's scales have not room for any factor
    for stored in (tensors[0] for tensors in matrices((32, 64))):
        plain = stored.dequantize(mx.float32) if isinstance(stored, Packed) else stored.array
        (loaded,) = held.load([stored])
        assert np.array_equal(loaded.array, np.array(plain) * each[:, None])
        assert np.allclose(held.store([loaded])[0].array, plain, rtol=1e-6)
    bias = Relation(("s.bias",), (TensorSpec("t.bias", (32,), "bias"),), held.operations)
    (loaded,) = bias.load([Dense(mx.ones(32))])
    assert np.array_equal(loaded.array, each)


def test_a_sixteen_bit_matrix_with_a_factor_stays_in_sixteen_bits() -> None:
    model = decoder(reference("falcon-h1").folder, dtype=mx.bfloat16)
    assert {stored.array.dtype for name, stored in model.tensors() if name.endswith("in.weight")} == {
        mx.bfloat16
    }


def test_offsets_of_sixteen_bit_norms_come_back_exactly() -> None:
    for dtype in (mx.bfloat16, mx.float16):
        weight = mx.array(RNG.normal(0, 0.5, size=256).astype(np.float32)).astype(dtype)
        held = Relation(("s",), (TensorSpec("t", (256,), "norm"),), (Offset(1.0),))
        (back,) = held.store(held.load([Dense(weight)]))
        assert isinstance(back, Dense)
        assert mx.array_equal(back.array.astype(dtype), weight)


def test_an_offset_needs_plain_values() -> None:
    with pytest.raises(CheckpointError, match="norm's weight is stored quantized"):
        relation((Offset(1.0),), (4, 64)).load(matrices((4, 64))[1])


def test_head_rows_are_reordered_as_llama_cpp_does() -> None:
    """Its converter's permutation, from the format's description: (heads, 2, d/2) to (heads, d/2, 2)."""
    heads, width = 3, 8
    halves = np.arange(heads * width).reshape(-1, 1)  # row numbers in Hugging Face's order
    pairs = halves.reshape(heads, 2, width // 2).swapaxes(1, 2).reshape(-1, 1)
    (loaded,) = relation((HeadPairs(width),), (heads * width, 1)).load([Dense(mx.array(pairs))])
    assert loaded.array.tolist() == halves.tolist()


def test_only_a_folders_norms_of_gemma_have_an_offset() -> None:
    """GGUF norms of gemma are stored with the 1 added."""
    spec = spec_of("gemma3")
    folder, file = hugging_face(spec), gguf_naming(spec, "gemma3")
    for tensor in spec.tensors():
        offset = (Offset(1.0),) if tensor.kind == "norm" else ()
        assert folder.relation(tensor.name).operations == offset
        assert file.relation(tensor.name).operations == ()


def test_the_form_that_is_there_is_read() -> None:
    """Experts one by one or stacked, whatever the metadata says."""
    spec = spec_of("mixtral")
    name = "layers.0.channel.experts.gate.weight"
    one_by_one = hugging_face(spec, "hub").stored(name)
    stacked = hugging_face(spec, "mlx").stored(name)
    assert len(one_by_one) == 4
    assert stacked == ("model.layers.0.block_sparse_moe.switch_mlp.gate_proj.weight",)
    for form in ("hub", "mlx"):
        for present in (one_by_one, stacked):
            assert hugging_face(spec, form, present).stored(name) == present


def test_unexpected_tensors_are_found_and_superfluous_ones_pass() -> None:
    untied, tied = spec_of("llama"), spec_of("llama-tied")

    def known(naming: Naming) -> list[str]:
        return [name for relation in naming.relations() for name in relation.stored]

    for spec, extra in ((untied, []), (tied, ["lm_head.weight", "lm_head.scales", "lm_head.biases"])):
        naming = hugging_face(spec)
        harmless = [*extra, "model.layers.0.self_attn.rotary_emb.inv_freq"]
        strange = ["model.layers.3.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.lora_a", "visual.x"]
        assert naming.unexpected([*known(naming), *harmless]) == []
        assert naming.unexpected([*known(naming), *strange, *harmless]) == strange
    assert gguf_naming(tied, "llama").unexpected(["rope_freqs.weight", "output.weight"]) == []
    assert gguf_naming(untied, "llama").unexpected(["rope_freqs.weight", "blk.9.attn_q.weight"]) == [
        "blk.9.attn_q.weight"
    ]


def test_a_folder_knows_whose_form_it_has(tmp_path: Path) -> None:
    from macllm.weights.safetensors import read_headers

    assert read_headers(reference("llama").folder).form == "hub"
    mx.save_safetensors(str(tmp_path / "model.safetensors"), {"a": mx.zeros(1)}, {"format": "mlx"})
    assert read_headers(tmp_path).form == "mlx"
