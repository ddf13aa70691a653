"""The forward pass of training: layers below the first that learns have no gradient, and others may be computed twice.

With ``checkpoint`` only what goes from layer to layer is kept; a layer's inside is computed anew in the backward pass.
What is random there has to come from a key of its own, so that both passes draw the same.
"""

from collections.abc import Mapping
from copy import copy
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from numpy.typing import NDArray

from macllm.errors import OptionError
from macllm.nn.balancing import hand_on, is_watched, router_logits
from macllm.nn.decoder import Decoder
from macllm.nn.packed_step import PackedStep
from macllm.nn.step import Step
from macllm.tune.batches import Batch
from macllm.tune.trained import leaves, replaced


def hidden(
    model: Decoder, tokens: mx.array, segments: np.ndarray | None = None, *, checkpoint: bool = False
) -> mx.array:
    """Ids (B, L) to normalized states (B, L, D), as :meth:`Decoder.hidden` without caches gives them.

    ``segments`` (B, L) of packed rows counts the documents of a row, 0 for padding behind them: no token sees another
    document's. Raises OptionError where the model's documents cannot share a row.
    """
    step = Step(tokens.shape[1]) if segments is None else _packed(model, segments)
    step.recomputes = True
    if "virtual" in model:
        step.before = model["virtual"].before(model)
    first = first_trainable(model)
    x = model.embedded(tokens, step)
    if model.frame is not None:
        x = model.frame.begin(tokens, x, step)
    for index, layer in enumerate(model.layers):
        if index == first:
            x = mx.stop_gradient(x)
        step.layer = index
        x = _learning(layer, x, step, checkpoint) if index >= max(first, 0) else layer(x, step, ())
    if first == len(model.layers):
        x = mx.stop_gradient(x)
    return model.norm(model.frame.end(x) if model.frame is not None else x)


def learned_states(
    model: Decoder, batch: Batch, *, checkpoint: bool = False
) -> tuple[mx.array, NDArray[np.int64]]:
    """The states (N, D) that learned tokens are predicted from, in the order of rows, and the row each is of (N,).

    Of rows of one example each: padding stands behind all that could see it.
    """
    states = hidden(model, mx.array(batch.ids[:, :-1]), checkpoint=checkpoint)  # (B, L - 1, D)
    mask = batch.learned[:, 1:]
    places = np.flatnonzero(mask)
    return states.reshape(-1, states.shape[-1])[mx.array(places.astype(np.int32))], places // mask.shape[1]


def first_trainable(model: Decoder) -> int:
    """The first layer that gradients have to reach: -1 where they go on to the embedding, the count where none."""
    parts = model.trainable_parameters()
    if any(leaves(parts.get(name, {})) for name in ("embed", "positions", "embed_norm", "frame")):
        return -1
    if leaves(parts.get("virtual", {})):
        return int(model["virtual"].first_layer)
    learns = (index for index, layer in enumerate(parts["layers"]) if leaves(layer))
    return next(learns, len(model.layers))


def _packed(model: Decoder, segments: np.ndarray) -> PackedStep:
    if "virtual" in model:
        raise OptionError(
            "documents of one row cannot have virtual tokens before each of them; train without packing"
        )
    if model.spec.unpackable is not None:
        raise OptionError(
            f"documents of family {model.spec.family!r} cannot share a row: {model.spec.unpackable};"
            " train it without packing"
        )
    return PackedStep(segments)


def _learning(layer: Any, x: mx.array, step: Step, checkpoint: bool) -> mx.array:
    """``layer(x, step, ())``; with ``checkpoint`` its inside is computed again in the backward pass.

    Gradients reach only what the function is given: so its parameters, and what layers leave each other by the step,
    go in and come out beside the states, and so do the logits of its routers where someone looks at them.
    """

    def inside(
        parameters: Any, x: mx.array, beside: Mapping[str, Any]
    ) -> tuple[mx.array, Any, list[mx.array]]:
        own = copy(step)
        own.shared, own.sides = dict(beside["shared"]), list(beside["sides"])
        own.lent = {int(source): tuple(pair) for source, pair in beside["lent"].items()}
        own.before = {index: tuple(beside["before"])} if beside["before"] else None
        own.layer = index
        with replaced(layer, parameters), router_logits(layer) as logits:
            y = layer(x, own, ())
        return y, _beside(own), logits if watched else []

    index, watched = step.layer, is_watched(layer)
    before = list(step.before.get(index, ())) if step.before is not None else []
    given = _together(layer.trainable_parameters(), x, {**_beside(step), "before": before})
    y, left, logits = mx.checkpoint(inside)(*given) if checkpoint else inside(*given)
    step.shared, step.sides = left["shared"], left["sides"]
    step.lent = {int(source): tuple(pair) for source, pair in left["lent"].items()}
    if watched:
        hand_on(layer, logits)
    return y


def _together(*given: Any) -> Any:
    """Trees of arrays as they are, whose gradients are there only when all of them are.

    Else a gradient of states would go on to the layer before while what the gradients of this one's parameters are
    computed from is still there: a third more memory.
    """

    def backward(_: Any, above: Any, __: Any) -> Any:
        computed = iter(mx.depends(found := list(leaves(above).values()), found))
        return tree_map(lambda _: next(computed), above)

    own: Any = mx.custom_function(lambda *trees: trees)
    own.vjp(backward)
    return own(*given)


def _beside(step: Step) -> dict[str, Any]:
    """What layers leave each other, as a tree of arrays."""
    lent = {str(source): list(pair) for source, pair in step.lent.items() if isinstance(pair, tuple)}
    return {"shared": step.shared, "sides": step.sides, "lent": lent}
