"""What keeps a mixture's experts equally busy in training: the routers' logits of a pass, and a loss on them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.moe import MoEBlock


@contextmanager
def router_logits(model: Module) -> Iterator[list[mx.array]]:
    """The logits (B, L, E) of every router in a model, or in one of its layers, in the order in which they are asked.

    They are part of the pass: a function to be differentiated opens this inside itself, and one that is computed
    anew in the backward pass gives them back beside its other results, for :func:`hand_on`. Inside another one it
    takes what that would have been given.
    """
    logits: list[mx.array] = []
    blocks = expert_blocks(model)
    before = [block.watch for block in blocks]
    for block in blocks:
        block.watch = logits.append
    try:
        yield logits
    finally:
        for block, watch in zip(blocks, before, strict=True):
            block.watch = watch


def is_watched(model: Module) -> bool:
    """Whether a :func:`router_logits` that is open now waits for logits of this model, or of this layer."""
    return any(block.watch is not None for block in expert_blocks(model))


def hand_on(model: Module, logits: Sequence[mx.array]) -> None:
    """Gives logits of a model or layer that :func:`is_watched` to the one that waits for them."""
    watch = next(block.watch for block in expert_blocks(model) if block.watch is not None)
    for each in logits:
        watch(each)


def expert_blocks(model: Module) -> list[MoEBlock]:
    """The mixtures of experts of a model, or of one of its layers, from the first to the last."""
    return [module for module in model.modules() if isinstance(module, MoEBlock)]


def balancing_loss(logits: Sequence[mx.array], top_k: int, valid: mx.array | None = None) -> mx.array:
    """The loss that keeps experts equally busy (Fedus et al. 2021), as Hugging Face's models have it.

    The number of experts E times the sum, over experts, of the choices a token that fall on it and its mean
    probability: ``top_k`` where all are equally busy. ``logits`` (B, L, E) of one or more layers, which count
    together; ``valid`` (B, L) leaves padding out.
    """
    experts = logits[0].shape[-1]
    weights = (
        mx.ones((logits[0].size // experts, 1)) if valid is None else valid.reshape(-1, 1).astype(mx.float32)
    )
    choices, mass = mx.zeros(experts), mx.zeros(experts)
    for layer in logits:
        probabilities = mx.softmax(layer.reshape(-1, experts).astype(mx.float32), axis=-1)  # (T, E)
        index = mx.stop_gradient(mx.argpartition(-probabilities, kth=top_k - 1, axis=-1)[:, :top_k])
        chosen = mx.put_along_axis(mx.zeros_like(probabilities), index, mx.array(1.0), axis=-1)
        choices = choices + (chosen * weights).sum(axis=0)
        mass = mass + (probabilities * weights).sum(axis=0)
    tokens = weights.sum() * len(logits)
    return experts * (choices / tokens * (mass / tokens)).sum()
