"""Per-layer inputs as data (Gemma 3n and 4): beside the states, each token brings some values to each layer."""

from collections.abc import Iterator
from dataclasses import dataclass

from macllm.spec import MLP, Activation, Layer, MoE, Norm, TensorSpec
from macllm.spec.tensor import linear


@dataclass(frozen=True)
class SideInputs:
    """``width`` values a token and layer: from a table of their own, and from the token's embedding."""

    vocab: int
    layers: int
    width: int
    norm: Norm

    def tensors(self, dim: int) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        yield TensorSpec("frame.table.weight", (self.vocab, self.layers * self.width), "embedding")
        yield from linear("frame", "project", (self.layers * self.width, dim), False)
        yield from self.norm.tensors("frame.norm", self.width)


@dataclass(frozen=True)
class SideLayer(Layer):
    """A layer that at its end adds norm(out(activation(gate(x)) * its input)), ``side`` wide (None: it has none).

    ``scaled``: what comes out of it is multiplied by a stored number.
    """

    side: int | None = None
    side_activation: Activation = "gelu_tanh"
    scaled: bool = False

    @property
    def norms(self) -> tuple[str, ...]:
        """Names of its norms; experts beside a feed-forward block have their own."""
        apart = isinstance(self.channel, ExpertsBeside)
        names = tuple(name for name in super().norms if name != "channel_norm" or not apart)
        return (*names, "side_norm") if self.side is not None else names

    def tensors(self, prefix: str, dim: int) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        yield from super().tensors(prefix, dim)
        if self.side is not None:
            yield from linear(prefix, "side_gate", (self.side, dim), False)
            yield from linear(prefix, "side_out", (dim, self.side), False)
        if self.scaled:
            yield TensorSpec(f"{prefix}.scalar", (1,), "vector")


@dataclass(frozen=True)
class SparseMLP(MLP):
    """Gated, where only gates that stand out from the others pass (Gemma 3n): those above their mean by as many
    standard deviations as leave out the share ``sparsity`` of a normal distribution.
    """

    sparsity: float = 0.0


@dataclass(frozen=True)
class ExpertsBeside(MoE):
    """Experts and a feed-forward block (``shared``) side by side, each between norms of its own (Gemma 4).

    The router's norm has a weight of its own too; each expert's output is multiplied by a stored number.
    """

    norm: Norm = Norm()

    def tensors(self, prefix: str) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        yield from super().tensors(prefix)
        for name in ("router_norm", "experts_norm", "experts_post_norm", "shared_norm", "shared_post_norm"):
            yield from self.norm.tensors(f"{prefix}.{name}", self.dim)
        yield TensorSpec(f"{prefix}.expert_scale", (self.experts,), "vector")
