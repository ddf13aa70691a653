"""Layers of one or several matrices: the output of each part, whatever its storage."""

import mlx.core as mx
import numpy as np
import pytest

from macllm.kernels import dispatch
from macllm.nn.linear import AnyLinear, Embedding, Linear, PackedLinear, Part, SeparateLinear, make_linear
from macllm.nn.stored import Dense, Packed, Stored, concatenate
from macllm.quantization import Quantization

PARTS = [Part("layers.0.mixer.q", 12), Part("layers.0.mixer.k", 4), Part("layers.0.mixer.v", 8)]
WIDTH = 128
EIGHT, FOUR = Quantization(8, 32), Quantization(4, 64)
NF4 = Quantization(4, 64, "nf4")
RNG = np.random.default_rng(0)


def array(*shape: int) -> mx.array:
    return mx.array(RNG.normal(size=shape).astype(np.float32))


def pack(weight: mx.array, q: Quantization | None) -> Stored:
    if q is None:
        return Dense(weight)
    packed, scales, *biases = dispatch.pack(q, weight)
    return Packed(packed, scales, biases[0] if biases else None, q)


def values(stored: Stored) -> mx.array:
    return stored.array if isinstance(stored, Dense) else stored.dequantize(mx.float32)


FORMATS = {
    "dense": (None, None, None),
    "packed": (FOUR, FOUR, FOUR),
    "mx": (Quantization(4, 32, "mxfp4"),) * 3,
    "nf4": (Quantization(4, 64, "nf4"),) * 3,  # parts end within groups of scales
    "other-bits": (FOUR, FOUR, EIGHT),
    "other-group": (FOUR, Quantization(4, 32), FOUR),
    "one-plain": (FOUR, None, FOUR),
}
KINDS: dict[str, type[AnyLinear]] = {"dense": Linear, "packed": PackedLinear, "mx": PackedLinear}


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_outputs_lie_side_by_side_and_parts_come_back(name: str, biased: bool) -> None:
    stored = [pack(array(p.width, WIDTH), q) for p, q in zip(PARTS, FORMATS[name], strict=True)]
    biases = [array(part.width) for part in PARTS] if biased else None
    layer = make_linear(PARTS, stored, biases, dense_rows=None)
    assert type(layer) is KINDS.get(name, SeparateLinear)
    x = array(2, 5, WIDTH)
    expected = mx.concatenate([x @ values(one).T for one in stored], axis=-1)
    if biases is not None:
        expected = expected + mx.concatenate(biases)
    assert np.allclose(layer(x), expected, atol=1e-4)
    back = dict(layer.tensors())
    for index, part in enumerate(PARTS):
        assert mx.array_equal(values(back.pop(f"{part.name}.weight")), values(stored[index]))
        if biases is not None:
            assert mx.array_equal(values(back.pop(f"{part.name}.bias")), biases[index])
    assert back == {}


@pytest.mark.parametrize(
    "q", [None, FOUR, EIGHT, Quantization(8, 32, "mxfp8"), Quantization(4, 16, "nvfp4"), NF4]
)
def test_an_embedding_gives_rows_and_is_a_head(q: Quantization | None) -> None:
    stored = pack(array(20, WIDTH), q)
    table = make_linear([Part("embed", 20)], [stored], None, None)
    assert not isinstance(table, SeparateLinear)
    embedding = Embedding(table, mx.float32)
    ids = mx.array([[3, 19, 0], [7, 7, 1]])
    assert mx.array_equal(embedding(ids), values(stored)[ids])
    x = array(1, 2, WIDTH)
    assert np.allclose(embedding.as_head(x), x @ values(stored).T, atol=1e-4)
    ((name, back),) = embedding.tensors()
    assert name == "embed.weight"
    assert mx.array_equal(values(back), values(stored))


def test_only_equal_packings_are_stacked() -> None:
    four, eight, plain = (pack(array(4, WIDTH), q) for q in (FOUR, EIGHT, None))
    for parts in ([four, eight], [four, plain], [plain, eight]):
        with pytest.raises(ValueError, match="packed the same way"):
            concatenate(parts)
    assert concatenate([four, four]).shape == (8, WIDTH)


@pytest.mark.parametrize("q", [None, FOUR, EIGHT])
def test_rows_of_a_stored_matrix_are_rows_of_its_values(q: Quantization | None) -> None:
    stored = pack(array(10, WIDTH), q)
    order = mx.array([3, 1, 9, 3])
    assert mx.array_equal(values(stored.rows(order)), values(stored)[order])
    assert mx.array_equal(values(stored.rows(slice(2, 5))), values(stored)[2:5])
    assert stored.shape == (10, WIDTH)
    assert stored.nbytes == (q.nbytes(10 * WIDTH) + (10 * WIDTH // q.group_size * 4) if q else 10 * WIDTH * 4)
