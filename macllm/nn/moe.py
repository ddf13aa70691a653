"""Mixture of experts: a router chooses a few of many feed-forward blocks for each token.

In a prompt the tokens are sorted by expert, so that each expert's weights are read once; in decoding one gather
takes the few that are needed. MLX's gather multiplies row by row on CPU: there each expert takes the rows of a
prompt that are its own as one product.
"""

from collections.abc import Callable
from itertools import groupby

import mlx.core as mx
from mlx.nn.layers.base import Module

from macllm.nn.activations import activation_function, gate_function
from macllm.nn.mlp import MLPBlock
from macllm.nn.parameters import Parameters
from macllm.nn.routing import routing
from macllm.spec import LatentMoE, MoE

_SORTED_FROM = 64  # choices; fewer are not worth sorting


class MoEBlock(Module):
    """Router, experts and what every token goes through beside them."""

    def __init__(self, spec: MoE, parameters: Parameters, prefix: str) -> None:
        super().__init__()
        self.spec = spec
        self.router = parameters.linear(prefix, "router", bias=spec.router_bias)
        if spec.correction:
            self.correction = parameters.vector(f"{prefix}.correction", wide=True)
        self.experts_up = parameters.stack(f"{prefix}.experts", *spec.inputs, bias=spec.bias)
        self.experts_down = parameters.stack(f"{prefix}.experts", "down", bias=spec.bias)
        if spec.shared is not None:
            self.shared = MLPBlock(spec.shared, parameters, f"{prefix}.shared")
        if spec.shared_gated:
            self.shared_gate = parameters.linear(prefix, "shared_gate")
        self._gate = gate_function(spec.activation) if spec.gated else None
        self._activate = activation_function(spec.activation) if not spec.gated else None
        self._routing = routing(spec)
        rows = max(self.experts_up.alone_from, self.experts_down.alone_from)
        self._apart_from = rows * spec.experts if mx.default_device() == mx.cpu else None
        self.watch: Callable[[mx.array], None] | None = None  # is given each call's router logits (B, L, E)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, L, D) to (B, L, D)."""
        batch, length, dim = x.shape
        rows = x.reshape(-1, dim)  # (T, D), T = B L
        logits = self.router(rows)  # (T, E)
        if self.watch is not None:
            self.watch(logits.reshape(batch, length, -1))
        index, weights = self.route(logits)  # (T, k) each
        y = self._mixed(rows, index, weights).reshape(batch, length, dim)
        if self.spec.shared is None:
            return y
        shared = self.shared(x)
        if self.spec.shared_gated:
            shared = shared * mx.sigmoid(self.shared_gate(x))
        return y + shared

    def route(self, logits: mx.array) -> tuple[mx.array, mx.array]:
        """The experts (T, k) that rows with router logits (T, E) go to, and their weights, in float32."""
        if self.spec.correction:
            return self._routing(logits, self.correction)
        return self._routing(logits)

    def _mixed(self, rows: mx.array, index: mx.array, weights: mx.array) -> mx.array:
        """What the experts (T, k) make of rows (T, D), weighed and summed (T, D)."""
        y = self._experts(rows, index)  # (T, k, D)
        return (y * mx.expand_dims(weights, -1).astype(y.dtype)).sum(axis=1)

    def _experts(self, rows: mx.array, index: mx.array) -> mx.array:
        """Rows (T, D), each through its experts (T, k), to (T, k, D)."""
        count, chosen = index.shape
        if index.size < _SORTED_FROM:
            return self._through(mx.expand_dims(rows, (1, 2)), index, ordered=False).squeeze(-2)
        flat = index.reshape(-1)  # (T k)
        order = mx.argsort(flat)
        x, flat = rows[order // chosen], flat[order]  # (T k, D), (T k)
        if self._apart_from is not None and index.size >= self._apart_from:
            y = self._apart(x, flat)
        else:
            y = self._through(x[:, None], flat, ordered=True).squeeze(1)
        return y[mx.argsort(order)].reshape(count, chosen, -1)

    def _through(self, x: mx.array, index: mx.array, *, ordered: bool) -> mx.array:
        """Rows x (..., 1, D) through the experts of ``index`` (...)."""
        y = self.experts_up.gather(x, index, ordered=ordered)
        return self.experts_down.gather(self._activated(y), index, ordered=ordered)

    def _apart(self, x: mx.array, index: mx.array) -> mx.array:
        """Rows x (R, D) through the experts of ``index`` (R), which ascends, one expert after the other."""
        chosen: list[int] = index.tolist()  # type: ignore[assignment]
        parts, start = [], 0
        for expert, run in groupby(chosen):
            end = start + len(list(run))
            y = self._activated(self.experts_up.alone(x[start:end], expert))
            parts.append(self.experts_down.alone(y, expert))
            start = end
        return mx.concatenate(parts)

    def _activated(self, y: mx.array) -> mx.array:
        """What the first projections give, to what goes into the last."""
        if self._gate is not None:
            return self._gate(*mx.split(y, 2, axis=-1))
        return self._activate(y) if self._activate is not None else y


class InputScaledMoEBlock(MoEBlock):
    """Experts whose weight is a factor of what goes in."""

    def _mixed(self, rows: mx.array, index: mx.array, weights: mx.array) -> mx.array:
        """The same, each choice with a row of its own."""
        count, chosen = index.shape
        scaled = rows[:, None] * weights[..., None].astype(rows.dtype)  # (T, k, D)
        y = self._experts(scaled.reshape(count * chosen, -1), index.reshape(-1, 1))  # (T k, 1, D)
        return y.reshape(count, chosen, -1).sum(axis=1)


class LatentMoEBlock(MoEBlock):
    """Experts that work in a narrower space than the router and what is beside them."""

    def __init__(self, spec: LatentMoE, parameters: Parameters, prefix: str) -> None:
        super().__init__(spec, parameters, prefix)
        self.latent_down = parameters.linear(prefix, "latent_down", bias=spec.latent_bias)
        self.latent_up = parameters.linear(prefix, "latent_up", bias=spec.latent_bias)

    def _mixed(self, rows: mx.array, index: mx.array, weights: mx.array) -> mx.array:
        """The same, down and up again (T, D): one projection of the sum, not one of each expert's part."""
        return self.latent_up(super()._mixed(self.latent_down(rows), index, weights))
