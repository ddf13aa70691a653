"""The training pass: that of the decoder, with or without checkpoints, and no gradient below the first that learns."""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from random_models import random_model

from macllm.nn.decoder import Decoder
from macllm.tune.forward import first_trainable, hidden
from macllm.tune.loss import summed_loss
from macllm.tune.step import summed_gradients
from macllm.tune.trained import flat

# what layers leave each other is there too: keys and values (gemma3n, gemma4), the first value (rwkv7), side inputs
VARIANTS = ["llama-tied", "gemma3n", "gemma4", "gpt-oss", "deepseek-v3", "rwkv7", "qwen3-next", "bloom"]
RNG = np.random.default_rng(5)
IDS = RNG.integers(0, 90, (2, 14))


def loss_of(model: Decoder, *, checkpoint: bool) -> Callable[[np.ndarray], tuple[mx.array, int]]:
    def loss(ids: np.ndarray) -> tuple[mx.array, int]:
        states = hidden(model, mx.array(ids[:, :-1]), checkpoint=checkpoint)
        return summed_loss(model, states, mx.array(ids[:, 1:]), mx.ones((len(ids), ids.shape[1] - 1)) > 0)

    return loss


def freeze_below(model: Decoder, layer: int) -> None:
    model.freeze()
    for each in model.layers[layer:]:
        each.unfreeze()


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_decoders_pass(variant: str) -> None:
    model, ids = random_model(variant), mx.array(IDS)
    expected = model.hidden(ids)
    assert mx.array_equal(hidden(model, ids), expected).item()
    assert mx.array_equal(hidden(model, ids, checkpoint=True), expected).item()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("below", [None, 0, 1])
def test_checkpoints_change_no_gradient(variant: str, below: int | None) -> None:
    model = random_model(variant)
    if below is not None:
        freeze_below(model, below)
    before = flat(model)
    total, _, plain = summed_gradients(model, [IDS], loss_of(model, checkpoint=False))
    again, _, found = summed_gradients(model, [IDS], loss_of(model, checkpoint=True))
    assert again == pytest.approx(total, rel=1e-6) and found.keys() == plain.keys()
    for name, gradient in plain.items():
        assert mx.abs(found[name] - gradient).max().item() <= 1e-5 * (1 + mx.abs(gradient).max().item())
    assert sum(mx.any(one != 0).item() for one in plain.values()) > len(plain) / 2
    # the model is as it was: no trace of the pass stays in it
    assert all(one is before[name] for name, one in flat(model).items())


def test_two_passes_in_one_function_have_the_gradients_of_both() -> None:
    model = random_model("llama-tied")
    loss = loss_of(model, checkpoint=True)
    _, _, once = summed_gradients(model, [IDS], loss)
    _, _, twice = summed_gradients(model, [IDS], lambda ids: (loss(ids)[0] + loss(ids)[0], 1))
    for name, gradient in once.items():
        assert mx.allclose(twice[name], 2 * gradient, rtol=1e-4, atol=1e-5).item()


def test_where_gradients_have_to_go() -> None:
    model = random_model("llama", num_hidden_layers=4)
    assert first_trainable(model) == -1  # to the embedding
    freeze_below(model, 2)
    assert first_trainable(model) == 2
    model.freeze()
    model.norm.unfreeze()
    assert first_trainable(model) == 4
    model.embed.unfreeze()
    assert first_trainable(model) == -1


def peak(model: Decoder, *, checkpoint: bool) -> int:
    ids = RNG.integers(0, 90, (2, 128))
    loss = loss_of(model, checkpoint=checkpoint)
    mx.eval(model.parameters())
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    summed_gradients(model, [ids], loss)
    return int(mx.get_peak_memory()) - before


def test_checkpoints_and_frozen_layers_save_memory() -> None:
    model = random_model("llama", num_hidden_layers=16)
    model.freeze()
    for layer in model.layers:
        layer.mixer_norm.unfreeze()
    plain = peak(model, checkpoint=False)
    assert peak(model, checkpoint=True) < 0.5 * plain
    for layer in model.layers[:-2]:
        layer.freeze()
    assert peak(model, checkpoint=False) < 0.5 * plain
