"""What runs in place of MLX's kernels on CPUs where those are slow, against the kernels."""

import mlx.core as mx
import numpy as np
import pytest

from macllm.nn import activations
from macllm.nn.attend import Mask, capped, composed, fused
from macllm.nn.linear import sliced_product, uncopied_slices
from macllm.nn.rope import RotaryEmbedding, rotary
from macllm.nn.step import Step
from macllm.spec import Activation, Llama3Scaling, Rope, YarnScaling

RNG = np.random.default_rng(0)


def array(*shape: int, scale: float = 1.0) -> mx.array:
    return mx.array((RNG.normal(size=shape) * scale).astype(np.float32))


def close(found: mx.array, expected: mx.array, atol: float = 1e-5) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=atol, rtol=1e-5)


@pytest.mark.parametrize(
    ("queries", "keys", "mask"),
    [
        (1, 1, None),
        (1, 77, None),
        (5, 5, "causal"),
        (128, 128, "causal"),
        (129, 129, "causal"),
        (300, 450, "causal"),
        (20, 60, Step(20, 40).mask(range(40, 60), range(60), 8, None)),
        (1, 60, Step(1, 59).mask(range(59, 60), range(60), 8, None)),
    ],
)
@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (4, 1)])
def test_composed_attention_equals_the_kernel(
    queries: int, keys: int, mask: Mask, heads: tuple[int, int]
) -> None:
    q, k, v = array(2, heads[0], queries, 16), array(2, heads[1], keys, 16), array(2, heads[1], keys, 16)
    close(composed(q, k, v, 0.25, mask), fused(q, k, v, 0.25, mask))


def test_composed_attention_stands_scores_that_overflow_an_exponential() -> None:
    q, k, v = array(1, 2, 4, 16, scale=100.0), array(1, 2, 4, 16, scale=100.0), array(1, 2, 4, 16)
    found = composed(q, k, v, 1.0, "causal")
    assert np.isfinite(np.array(found)).all()
    close(found, fused(q, k, v, 1.0, "causal"))


def test_half_precision_is_left_to_the_kernel() -> None:
    q, k, v = (array(1, 2, 3, 16).astype(mx.float16) for _ in range(3))
    assert mx.array_equal(composed(q, k, v, 0.25, "causal"), fused(q, k, v, 0.25, "causal"))


@pytest.mark.parametrize("rope", [Rope(16), Rope(8, 1e6), Rope(16, 5e5, Llama3Scaling(8.0, 1.0, 4.0, 32)),
                                  Rope(16, 1e4, YarnScaling(4.0, 16))])  # fmt: skip
@pytest.mark.parametrize("offset", [0, 1, 1000, 100_000])
def test_one_token_is_turned_as_it_is_among_others(rope: Rope, offset: int) -> None:
    """Alone by the matrix, in a prompt by the kernel; beyond ``dims`` nothing turns."""
    x = array(2, 3, 2, 16)
    embedding = RotaryEmbedding(rope)
    close(embedding(x[:, :, :1], offset), embedding(x, offset)[:, :, :1])


def test_layers_share_one_rotation_a_step() -> None:
    embedding = rotary(Rope(16))
    assert rotary(Rope(16)) is embedding
    assert embedding.rotation(3, 16) is embedding.rotation(3, 16)
    assert not mx.array_equal(embedding.rotation(3, 16), embedding.rotation(4, 16))


@pytest.mark.parametrize(
    ("plain", "by_power"),
    [
        (activations.silu, activations.silu_by_power),
        (activations.gelu_tanh, activations.gelu_tanh_by_power),
    ],
)
def test_activations_by_powers_of_two(plain: activations.Function, by_power: activations.Function) -> None:
    x = array(4, 100, scale=30.0)
    x[0, :3] = mx.array([0.0, -1000.0, 1000.0])
    close(by_power(x), plain(x), atol=1e-4)
    half = x.astype(mx.float16)
    assert mx.array_equal(by_power(half), plain(half), equal_nan=True)


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
def test_activations_have_a_gradient_where_the_power_overflows(activation: Activation) -> None:
    x = mx.array([-1e4, -300.0, -90.0, -12.0, -1.0, 0.0, 1.0, 12.0, 300.0, 1e4])
    function = activations.activation_function(activation)
    inner = 0.7978845608 * (x + 0.044715 * x**3)
    slope = 0.7978845608 * (1 + 3 * 0.044715 * x**2)
    sigmoid = 1 / (1 + mx.exp(-mx.clip(x if activation == "silu" else 2 * inner, -80, 80)))
    expected = sigmoid + x * sigmoid * (1 - sigmoid) * (1 if activation == "silu" else 2 * slope)
    close(mx.grad(lambda y: function(y).sum())(x), expected)


@pytest.mark.parametrize(("outputs", "inputs"), [(3072, 576), (2500, 64), (1200, 40), (49152, 16)])
def test_a_row_times_a_matrix_in_slices(outputs: int, inputs: int) -> None:
    weight, x = array(outputs, inputs), array(1, 1, inputs)
    slices = uncopied_slices(outputs, inputs)
    assert (slices > 1) == (outputs > 1200)
    assert outputs % slices == 0
    close(sliced_product(x, weight, slices), x @ weight.T, atol=1e-3)


def test_a_matrix_that_no_slicing_helps_stays_whole() -> None:
    assert uncopied_slices(50_021, 64) == 1  # a prime number of rows
    assert uncopied_slices(1000, 100_000) == 1  # rows so long that a slice would have but a few


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 77), (20, 20), (20, 60)])
def test_capped_attention_equals_the_composed_one(heads: tuple[int, int], queries: int, keys: int) -> None:
    """With MLX's softmax, as where exponentials are quick: causal, masked, and with numbers added."""
    q, k, v = (array(2, heads[0], queries, 16), *(array(2, heads[1], keys, 16) for _ in range(2)))
    masked = mx.array(RNG.random((queries, keys)) < 0.5) | (mx.arange(keys) == 0)
    for mask in ("causal", masked, array(heads[0], queries, keys)):
        close(capped(q, k, v, 0.5, mask, 1.5), composed(q, k, v, 0.5, mask, 1.5))
    if queries == 1:
        close(capped(q, k, v, 0.5, None, 1.5), composed(q, k, v, 0.5, None, 1.5))
