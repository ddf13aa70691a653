"""Products of quantized matrices as models ask for them, through the choice of a kernel down to its Metal text."""

import mlx.core as mx
import numpy as np
import pytest

from macllm.kernels import dispatch, nf4
from macllm.kernels.gguf_blocks import random_blocks
from macllm.kernels.harness.run import runner
from macllm.kernels.permission import running_on
from macllm.quantization import Quantization

# one without groups, one with a table, one with minimums, one whose rows begin at odd multiples of two bytes
KINDS = pytest.mark.parametrize("kind", ["q8_0", "iq4_xs", "q4_k", "q6_k"])
OUTPUTS, INPUTS = 6, 512


@pytest.fixture(autouse=True)
def wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACLLM_KERNELS", "on")


def mode(kind: str) -> Quantization:
    found = Quantization.of_blocks(kind)
    assert found is not None
    return found


def states(*shape: int) -> mx.array:
    return mx.array(np.random.default_rng(1).standard_normal(shape).astype(np.float32)).astype(mx.bfloat16)


def close(a: mx.array, b: mx.array) -> bool:
    wide = [np.array(array.astype(mx.float32)) for array in (a, b)]
    return bool(np.abs(wide[0] - wide[1]).max() <= 0.02 * np.abs(wide[1]).max())


@KINDS
def test_a_matrix_of_blocks(kind: str) -> None:
    q, x = mode(kind), states(1, 3, INPUTS)
    weight = random_blocks(q.mode, (OUTPUTS,), INPUTS)
    expected = dispatch.product(x, q, weight, None, None)
    with running_on(runner()):
        assert dispatch.choose("product", q, x.dtype, 3) is not None
        assert close(dispatch.product(x, q, weight, None, None), expected)


@KINDS
def test_experts_of_blocks(kind: str) -> None:
    q, x, index = mode(kind), states(2, 1, 1, INPUTS), mx.array([[2, 0], [1, 2]])
    weight = random_blocks(q.mode, (3, OUTPUTS), INPUTS)
    expected = dispatch.gathered(x, index, q, weight, None, None)
    with running_on(runner()):
        assert close(dispatch.gathered(x, index, q, weight, None, None), expected)


@KINDS
def test_rows_of_an_embedding_of_blocks(kind: str) -> None:
    q = mode(kind)
    weight = random_blocks(q.mode, (9,), INPUTS)[mx.array([4, 0, 8, 4])]
    expected = dispatch.expand(q, weight, None, None, mx.float32)
    with running_on(runner()):
        assert mx.array_equal(dispatch.expand(q, weight, None, None, mx.float32), expected)


@pytest.mark.parametrize("rows", [1, 3])
def test_nf4_whose_groups_of_magnitudes_were_torn_apart(rows: int) -> None:
    q, x = Quantization(4, 64, "nf4"), states(rows, INPUTS)
    whole = nf4.quantize(states(9, INPUTS).astype(mx.float32))
    torn = nf4.rows(*whole, mx.array([8, 0, 4]))
    assert torn[2] is None
    expected = dispatch.product(x, q, *torn)
    with running_on(runner()):
        assert close(dispatch.product(x, q, *torn), expected)
