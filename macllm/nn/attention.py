"""Softmax attention over a cache: multi-head, grouped-query, multi-query; full or sliding window."""

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.attend import attend_function
from macllm.nn.cache import AttentionCache
from macllm.nn.masks import Mask
from macllm.nn.norm import RMSNorm
from macllm.nn.parameters import Parameters
from macllm.nn.rope import rotary
from macllm.spec import Attention


class AttentionBlock(Module):
    """q, k and v from one matrix; rope turns q and k in one call, since their heads lie side by side."""

    def __init__(self, spec: Attention, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self.spec = spec
        self.qkv = parameters.linear(prefix, "q", "k", "v", bias=spec.bias)
        self.o = parameters.linear(prefix, "o", bias=spec.out_bias)
        self.rope = rotary(spec.rope) if spec.rope is not None else None
        self._attend = attend_function()
        self._heads = spec.heads + 2 * spec.kv_heads
        self._rotated = spec.heads + spec.kv_heads
        if spec.qk_norm:
            self.q_norm = RMSNorm(parameters.vector(f"{prefix}.q_norm.weight"), spec.norm_eps)
            self.k_norm = RMSNorm(parameters.vector(f"{prefix}.k_norm.weight"), spec.norm_eps)

    def __call__(self, x: mx.array, mask: Mask, cache: AttentionCache | None) -> mx.array:
        """(B, L, D) to (B, L, D); with a cache, its tokens come before and these are added to it."""
        spec = self.spec
        batch, length, _ = x.shape
        qkv = (
            self.qkv(x).reshape(batch, length, self._heads, spec.head_dim).swapaxes(1, 2)
        )  # (B, H + 2K, L, d)
        qk, v = mx.split(qkv, [self._rotated], axis=1)
        if spec.qk_norm:
            q, k = mx.split(qk, [spec.heads], axis=1)
            qk = mx.concatenate([self.q_norm(q), self.k_norm(k)], axis=1)
        if self.rope is not None:
            qk = self.rope(qk, cache.offset if cache is not None else 0)
        q, k = mx.split(qk, [spec.heads], axis=1)  # (B, H, L, d), (B, K, L, d)
        if cache is not None:
            k, v = cache.update(k, v)
        y = self._attend(q, k, v, spec.scale, mask)
        return self.o(y.swapaxes(1, 2).reshape(batch, length, -1))
