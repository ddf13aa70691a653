"""QLoRA on every kind of packed base: gradients are those of the dequantized matrices, and the loss goes down."""

import mlx.core as mx
import numpy as np
import pytest
from base_models import RandomParameters, wide_spec
from mlx import nn

from macllm.adapters.method import Method
from macllm.kernels import dispatch
from macllm.nn.adapted import plain
from macllm.nn.decoder import Decoder
from macllm.nn.stored import Dense, Packed
from macllm.quantization import BLOCKS, Quantization
from macllm.spec import ModelSpec
from macllm.tune.methods import attach
from macllm.tune.optimizers import Optimizer, OptimizerSpec
from macllm.tune.step import optimizer_step, summed_gradients
from macllm.tune.trained import flat, put

TOKENS = mx.array(np.random.default_rng(0).integers(0, 99, (2, 16)))
PACKINGS = [
    Quantization(4, 64),
    Quantization(8, 32),
    Quantization(4, 32, "mxfp4"),
    Quantization(4, 16, "nvfp4"),
    Quantization(4, 64, "nf4"),
    *(Quantization(BLOCKS[kind].bits, 32, kind) for kind in ("q8_0", "q4_0")),
]


class Dequantized(RandomParameters):
    """The same weights as plain numbers."""

    def __init__(self, spec: ModelSpec, q: Quantization, seed: int) -> None:
        super().__init__(spec, q, seed)
        self.packed = sum(isinstance(one, Packed) for one in self._stored.values())
        self._stored = {
            name: Dense(plain(one)) if isinstance(one, Packed) else one for name, one in self._stored.items()
        }


def loss(model: Decoder) -> tuple[mx.array, int]:
    losses = nn.losses.cross_entropy(model(TOKENS)[:, :-1], TOKENS[:, 1:])
    return losses.sum(), losses.size


@pytest.mark.parametrize(
    ("variant", "q"),
    [("llama", q) for q in PACKINGS] + [("qwen3-moe", q) for q in PACKINGS if q.mode == "nf4"],
    ids=lambda one: one if isinstance(one, str) else one.mode + str(one.bits),
)
def test_gradients_are_those_of_the_dequantized_matrices_and_the_loss_goes_down(
    variant: str, q: Quantization
) -> None:
    spec = wide_spec(variant)
    parameters = Dequantized(spec, q, 0)
    assert parameters.packed > 10
    model, twin = Decoder(spec, RandomParameters(spec, q, 0)), Decoder(spec, parameters)
    for each in (model, twin):
        attach(each, spec, Method(rank=3, scale=2.0))
    start = flat(model)
    mx.random.seed(1)
    moved = {name: one + 0.1 * mx.random.normal(one.shape) for name, one in start.items()}
    gradients = {}
    for key, each in (("packed", model), ("plain", twin)):
        put(each, moved)
        gradients[key] = summed_gradients(each, [None], lambda _, each=each: loss(each))[2]
    assert gradients["packed"].keys() == gradients["plain"].keys() == start.keys()
    for name, expected in gradients["plain"].items():
        difference = mx.abs(gradients["packed"][name] - expected).max().item()
        assert 0 <= difference < 2e-3 * mx.abs(expected).max().item()
    put(model, start)
    optimizer = Optimizer(OptimizerSpec(), start)
    outcomes = [optimizer_step(model, optimizer, [None], lambda _: loss(model), rate=0.02) for _ in range(4)]
    assert outcomes[-1].loss < 0.9 * outcomes[0].loss


def test_nf4_takes_at_most_4_13_bits_a_weight() -> None:
    """Double quantization of the scales: the target of the bases that adapters are trained on."""
    q = Quantization(4, 64, "nf4")
    outputs, inputs = 256, 4096
    packed, scales, biases = dispatch.pack(q, mx.random.normal((outputs, inputs)))
    assert 4.125 < 8 * Packed(packed, scales, biases, q).nbytes / (outputs * inputs) <= 4.13
