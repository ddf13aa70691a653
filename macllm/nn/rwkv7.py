"""The blocks of RWKV-7 (Peng et al. 2025, arXiv 2503.14456): time mixing and channel mixing."""

import math
from collections.abc import Callable, Sequence

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.activations import activation_function
from macllm.nn.compiled import compiled
from macllm.nn.parameters import Parameters
from macllm.nn.state_cache import StateCache, States, run
from macllm.nn.step import Step
from macllm.nn.wkv import Inputs, chunked, single
from macllm.spec import ChannelMix, TimeMix
from macllm.spec.rwkv import MIXED

_LENGTH_EPS = 1e-14  # beside the squared length of a key
# the logarithm of the least that a token leaves of a row; of a number, an array would be made every time
_FASTEST = mx.array(-math.exp(-0.5))


class TimeMixBlock(Module):
    """Six mixes of each token with the one before, from which comes all that goes into the recurrence."""

    def __init__(self, spec: TimeMix, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self.spec = spec
        for name in ("receptance", "key", "value", "output"):
            self[name] = parameters.linear(prefix, name)
        for name, (_, bias) in spec.ranks.each.items():
            self[f"{name}_down"] = parameters.linear(prefix, f"{name}_down")
            self[f"{name}_up"] = parameters.linear(prefix, f"{name}_up", bias=bias)
        for name in [*(f"mix_{name}" for name in MIXED), "key_scale", "rate_scale", "bonus"]:
            self[name] = parameters.vector(f"{prefix}.{name}")
        self.norm = _HeadNorm(parameters, f"{prefix}.norm", spec)
        self._mixes = [self[f"mix_{name}"] for name in MIXED]
        self._unit = mx.full((spec.head_dim,), spec.head_dim**-0.5)
        scales = (self.key_scale, self.rate_scale, 1 - self.rate_scale, self.bonus)
        self._scales = [self._by_head(array) for array in scales]
        mx.eval(self._unit, self._scales)

    def __call__(self, x: mx.array, step: Step, caches: Sequence[StateCache]) -> mx.array:
        """(B, L, D) to (B, L, D); with caches, their tokens come before and these are added to them."""
        x = step.without_padding(x)
        before = run(shifted, (x,), caches)
        r, w, k, v, a, g = compiled(_mixed)(x, before, *self["_mixes"])  # (B, L, D) each
        blended = self._blend(v, self["value"](v), step)
        raw = (self["receptance"](r), self._low_rank("decay", w, mx.tanh), self["key"](k), blended)
        y = run(self._recurrence, (*raw, self._low_rank("rate", a)), caches[1:])
        out: mx.array = self["output"](y * self._low_rank("gate", g, mx.sigmoid))
        return out

    def _blend(self, mixed: mx.array, value: mx.array, step: Step) -> mx.array:
        """Values (B, L, D), in part the first layer's."""
        if self.spec.ranks.blend is None:
            step.shared["rwkv.value"] = value
            return value
        share = mx.sigmoid(self._low_rank("blend", mixed))
        return value + (step.shared["rwkv.value"] - value) * share

    def _low_rank(
        self, name: str, x: mx.array, between: Callable[[mx.array], mx.array] | None = None
    ) -> mx.array:
        """(B, L, D) through the two matrices of one of the small networks, and what stands between them."""
        inner = self[f"{name}_down"](x)
        out: mx.array = self[f"{name}_up"](between(inner) if between is not None else inner)
        return out

    def _recurrence(self, inputs: tuple[mx.array, ...], states: States | None) -> tuple[mx.array, States]:
        """Outputs (B, L, D) before the gate."""
        dtype, length = inputs[0].dtype, inputs[0].shape[1]
        r, w, key, v, rate = (self._by_head(array.astype(mx.float32)) for array in inputs)
        direction, k, log_w, rate, bonus = compiled(_decided)(r, w, key, rate, *self["_scales"])
        direction = mx.fast.rms_norm(direction, self["_unit"], _LENGTH_EPS / self.spec.head_dim)
        given = Inputs(r, log_w, k, v, -direction, direction * rate)
        if states is not None and length == 1:
            y, state = single(given, states[0])
        else:
            y, state = chunked(given, states[0] if states is not None else None)
        y = self["norm"](y, bonus, v)
        return y.reshape(*inputs[0].shape).astype(dtype), (state,)

    def _by_head(self, array: mx.array) -> mx.array:
        """(..., D) to (..., H, N)."""
        return array.reshape(*array.shape[:-1], self.spec.heads, self.spec.head_dim)


class ChannelMixBlock(Module):
    """``value(relu(key(mix)) ** 2)``, with a mix of each token and the one before."""

    def __init__(self, spec: ChannelMix, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self.mix = parameters.vector(f"{prefix}.mix")
        self.key = parameters.linear(prefix, "key")
        self.value = parameters.linear(prefix, "value")
        self._activate = activation_function("relu2")

    def __call__(self, x: mx.array, step: Step, caches: Sequence[StateCache]) -> mx.array:
        """(B, L, D) to (B, L, D); the cache has the token before."""
        x = step.without_padding(x)
        mixed = compiled(_blended)(x, run(shifted, (x,), caches), self["mix"])
        out: mx.array = self["value"](self._activate(self["key"](mixed)))
        return out


class _HeadNorm(Module):
    """LayerNorm over each head, with a weight and a bias for all channels."""

    def __init__(self, parameters: Parameters, name: str, spec: TimeMix) -> None:
        super().__init__()
        self.weight = parameters.vector(f"{name}.weight")  # (D,)
        self.bias = parameters.vector(f"{name}.bias")
        self._by_head = [array.reshape(spec.heads, spec.head_dim) for array in (self.weight, self.bias)]
        self._eps = spec.norm.eps
        mx.eval(self._by_head)

    def __call__(self, y: mx.array, bonus: mx.array, v: mx.array) -> mx.array:
        """(B, L, H, N) to (B, L, H, N), with as much of the values as the bonus (B, L, H, 1) says."""
        normal = mx.fast.layer_norm(y, None, None, self._eps)
        weight, bias = self["_by_head"]  # (H, N)
        return compiled(_finished)(normal, weight, bias, bonus, v)


def shifted(inputs: tuple[mx.array, ...], states: States | None) -> tuple[mx.array, States]:
    """For each token (B, L, D) the one before it; before the first there is none, a zero."""
    (x,) = inputs
    before = states[0] if states is not None else mx.zeros_like(x[:, :1])
    if x.shape[1] == 1:
        return before, (x,)
    # a copy: a view would hold all the inputs in memory
    return mx.concatenate([before, x[:, :-1]], axis=1), (mx.contiguous(x[:, -1:]),)


def _mixed(x: mx.array, before: mx.array, *mixes: mx.array) -> list[mx.array]:
    """(B, L, D) and six mixes (D,) to six of (B, L, D)."""
    change = before - x
    return [x + change * mix for mix in mixes]


def _blended(x: mx.array, before: mx.array, mix: mx.array) -> mx.array:
    return x + (before - x) * mix


def _finished(y: mx.array, weight: mx.array, bias: mx.array, bonus: mx.array, v: mx.array) -> mx.array:
    return y * weight + bias + bonus * v


def _decided(
    r: mx.array,
    w: mx.array,
    key: mx.array,
    rate: mx.array,
    key_scale: mx.array,
    rate_scale: mx.array,
    rest: mx.array,
    bonus: mx.array,
) -> tuple[mx.array, ...]:
    """The direction that is replaced, what is added for, how fast rows fade, how much is replaced, and what the
    token's own value counts beside the state's. ``rest`` is what ``rate_scale`` leaves of 1.
    """
    rate = mx.sigmoid(rate)
    k = key * (rest + rate * rate_scale)
    return key * key_scale, k, _FASTEST * mx.sigmoid(w), rate, (r * k * bonus).sum(axis=-1, keepdims=True)
