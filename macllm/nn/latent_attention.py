"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434) over a cache of one compressed vector a token.

In decoding the projection out of the latent space is absorbed: queries go into it instead, so that no key or value
of a head is ever made for the tokens before. In a prompt, where that would cost more, the heads' keys and values
are made.
"""

from collections.abc import Sequence

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.attend import Attend, Scores
from macllm.nn.cache import AttentionCache
from macllm.nn.norm import make_norm
from macllm.nn.parameters import Parameters
from macllm.nn.rope import rotary
from macllm.nn.stack import Stack
from macllm.nn.step import Step
from macllm.spec import LatentAttention

_ABSORBED_QUERIES = 32  # up to here a step is decoding, drafted tokens, or a few words after a long context


class LatentAttentionBlock(Module):
    """Compressed queries, keys and values; a part of each key carries positions and is shared by all heads."""

    def __init__(self, spec: LatentAttention, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self.spec = spec
        if spec.q_rank is None:
            self.q = parameters.linear(prefix, "q")
            self.down = parameters.linear(prefix, "kv_down", bias=spec.bias)
        else:
            self.down = parameters.linear(prefix, "q_down", "kv_down", bias=spec.bias)
            self.q_norm = make_norm(spec.norm, parameters, f"{prefix}.q_norm")
            self.q_up = parameters.linear(prefix, "q_up")
        self.kv_norm = make_norm(spec.norm, parameters, f"{prefix}.kv_norm")
        self.k_up = _stack(parameters, prefix, "k_up")
        self.v_up = _stack(parameters, prefix, "v_up")
        self.o = parameters.linear(prefix, "o", bias=spec.bias)
        self.rope = rotary(spec.rope)
        self._attend = Attend(Scores(spec.scale))

    def __call__(self, x: mx.array, step: Step, caches: Sequence[AttentionCache]) -> mx.array:
        """(B, L, D) to (B, L, D); with a cache, its tokens come before and these are added to it."""
        spec = self.spec
        batch, length, _ = x.shape
        down = self.down(x)
        if spec.q_rank is None:
            q = self.q(x)
        else:
            q, down = mx.split(down, [spec.q_rank], axis=-1)
            q = self.q_up(self.q_norm(q))
        q = q.reshape(batch, length, spec.heads, -1).swapaxes(1, 2)  # (B, H, L, n + p)
        q, q_place = mx.split(q, [spec.nope_dim], axis=-1)
        turn = self.rope.of(step)
        q_place = turn(q_place, step.position)
        latent, k_place = mx.split(down, [spec.kv_rank], axis=-1)
        latent = mx.expand_dims(self.kv_norm(latent), 1)  # (B, 1, L, r)
        k_place = mx.expand_dims(k_place, 1)  # (B, 1, L, p)
        if not self.rope.late:
            k_place = turn(k_place, step.position)
        if caches:
            k_place, latent = caches[0].update(k_place, latent)  # (B, 1, S, p), (B, 1, S, r)
        if self.rope.late:
            k_place = turn(k_place, step.position + length - k_place.shape[2])
        inside = self._absorbed if length <= _ABSORBED_QUERIES else self._expanded
        y = inside(q, q_place, latent, k_place, step)  # (B, H, L, v)
        return self.o(y.swapaxes(1, 2).reshape(batch, length, -1))

    def _absorbed(
        self, q: mx.array, q_place: mx.array, latent: mx.array, k_place: mx.array, step: Step
    ) -> mx.array:
        """Queries taken into the latent space, the weighted sum out of it."""
        q = mx.concatenate([self.k_up.each(q), q_place], axis=-1)  # (B, H, L, r + p)
        k = mx.concatenate([latent, k_place], axis=-1)  # (B, 1, S, r + p)
        return self.v_up.each(self._attend(q, k, latent, step))

    def _expanded(
        self, q: mx.array, q_place: mx.array, latent: mx.array, k_place: mx.array, step: Step
    ) -> mx.array:
        """Every head's keys and values taken out of the latent space."""
        k = self.k_up.each(latent, transposed=False)  # (B, H, S, n)
        k = mx.concatenate([k, mx.broadcast_to(k_place, (*k.shape[:3], k_place.shape[3]))], axis=-1)
        return self._attend(mx.concatenate([q, q_place], axis=-1), k, self.v_up.each(latent), step)


def _stack(parameters: Parameters, prefix: str, name: str) -> Stack:
    stack = parameters.stack(prefix, name)
    assert isinstance(stack, Stack)  # a single one is never separate
    return stack
