"""Softmax attention over a cache: multi-head, grouped-query, multi-query; full, sliding window or chunked."""

from collections.abc import Sequence

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.attend import Attend, Scores
from macllm.nn.cache import AttentionCache, PackedCache
from macllm.nn.norm import make_norm
from macllm.nn.packed_attend import attend_packed
from macllm.nn.parameters import Parameters
from macllm.nn.quantized_kv_cache import PackedView
from macllm.nn.rope import rotary
from macllm.nn.step import Step
from macllm.nn.virtual import joined
from macllm.spec import Attention


class AttentionBlock(Module):
    """q, k and v from one matrix; rope turns q and k in one call, since their heads lie side by side.

    A block may see the keys and values of an earlier layer (``spec.source``): that one lends them, by the step.
    """

    def __init__(self, spec: Attention, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self.spec = spec
        self.lends = False  # to later layers
        self.qkv = parameters.linear(prefix, *spec.projections, bias=spec.bias)
        self.o = parameters.linear(prefix, "o", bias=spec.out_bias)
        self.rope = rotary(spec.rope) if spec.rope is not None else None
        self._late = self.rope is not None and self.rope.late
        self._attend = Attend(Scores(spec.scale, spec.window, spec.chunk, spec.softcap, spec.slopes))
        self._heads = sum(spec.projections.values())
        self._rotated = spec.heads + (spec.kv_heads if spec.source is None else 0)
        if spec.qk_norm is not None:
            self.q_norm = make_norm(spec.qk_norm.norm, parameters, f"{prefix}.q_norm")
            if spec.source is None:
                self.k_norm = make_norm(spec.qk_norm.norm, parameters, f"{prefix}.k_norm")
        if spec.value_norm is not None and spec.source is None:
            self.v_norm = make_norm(spec.value_norm, parameters, f"{prefix}.v_norm")
        if spec.sinks:
            self.sinks = parameters.vector(f"{prefix}.sinks")
        if spec.out_norm is not None:
            self.out_norm = make_norm(spec.out_norm, parameters, f"{prefix}.out_norm")

    def __call__(self, x: mx.array, step: Step, caches: Sequence[AttentionCache | PackedCache]) -> mx.array:
        """(B, L, D) to (B, L, D); with a cache, its tokens come before and these are added to it."""
        spec = self.spec
        batch, length, _ = x.shape
        qkv = self["qkv"](x)
        if spec.qk_norm is not None and spec.qk_norm.over == "all":
            qkv = self._normalized_whole(qkv)
        if spec.clip is not None:
            qkv = mx.clip(qkv, -spec.clip, spec.clip)
        heads = qkv.reshape(batch, length, self._heads, spec.head_dim).swapaxes(1, 2)  # (B, H + 2K, L, d)
        gate = None
        if spec.gated:
            heads, gate = mx.split(heads, [self._heads - spec.heads], axis=1)
        if spec.source is not None:
            q = self._placed(heads, step)
            seen = step.lent[spec.source]
        else:
            q, k, v = self._own(heads, step)
            if step.keeps is not None:
                step.keeps[step.layer] = k, v
            seen = caches[0].update(k, v) if caches else (k, v)
            if step.before is not None:
                assert not isinstance(seen, PackedView)  # refused where virtual tokens are put in
                seen = joined(step.before.get(step.layer), seen)
            if not isinstance(seen, PackedView):
                seen = self._placed_late(seen[0], "k_norm", step), seen[1]
            if self.lends:
                step.lent[step.layer] = seen
        q = self._placed_late(q, "q_norm", step)
        if spec.query_scale is not None:
            q = q * step.query_scale(spec.query_scale, q.dtype)
        if isinstance(seen, PackedView):
            y = attend_packed(self._attend, q, seen, step, self.get("sinks"))
        else:
            y = self._attend(q, *seen, step, self.get("sinks"))
        if gate is not None:
            y = y * mx.sigmoid(gate)
        y = y.swapaxes(1, 2).reshape(batch, length, -1)
        out: mx.array = self["o"](self["out_norm"](y) if "out_norm" in self else y)
        return out

    def _own(self, heads: mx.array, step: Step) -> tuple[mx.array, mx.array, mx.array]:
        """Queries (B, H, L, d), keys and values (B, K, L, d)."""
        if self.spec.values_are_keys:
            qk, v = heads, heads[:, self.spec.heads :]
        else:
            qk, v = mx.split(heads, [self._rotated], axis=1)
        if "v_norm" in self:
            v = self["v_norm"](v)
        q, k = mx.split(self._placed(qk, step), [self.spec.heads], axis=1)
        return q, k, v

    def _placed(self, heads: mx.array, step: Step) -> mx.array:
        """Queries, and keys behind them where there are any, normalized and turned."""
        norm = self.spec.qk_norm
        if norm is not None and norm.over == "all":
            norm = None  # done, before the heads were taken apart
        if norm is not None and not norm.after_rope:
            heads = self._normalized(heads)
        if self.rope is not None and not self._late:
            heads = self.rope.of(step)(heads, step.position)
        return self._normalized(heads) if norm is not None and norm.after_rope and not self._late else heads

    def _placed_late(self, heads: mx.array, norm: str, step: Step) -> mx.array:
        """Queries, or all keys in view, turned where that waits until the keys are out of the cache."""
        if self.rope is None or not self._late:
            return heads
        heads = self.rope.of(step)(heads, step.position + step.length - heads.shape[2])
        return self[norm](heads) if self.spec.qk_norm is not None and self.spec.qk_norm.after_rope else heads

    def _normalized(self, heads: mx.array) -> mx.array:
        norm = self.spec.qk_norm
        if self.spec.source is not None or (norm is not None and not norm.norm.weight):
            one: mx.array = self["q_norm"](heads)  # without weights it is the same for keys
            return one
        q, k = mx.split(heads, [self.spec.heads], axis=1)
        return mx.concatenate([self["q_norm"](q), self["k_norm"](k)], axis=1)

    def _normalized_whole(self, qkv: mx.array) -> mx.array:
        """All queries, and all keys, of (B, L, (H + 2K) d) normalized as one vector each."""
        spec = self.spec
        q, k, rest = mx.split(qkv, [spec.heads * spec.head_dim, self._rotated * spec.head_dim], axis=-1)
        return mx.concatenate([self["q_norm"](q), self["k_norm"](k), rest], axis=-1)
