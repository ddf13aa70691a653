"""Blocks over channels as data: feed-forward and mixture of experts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from macllm.spec.memory import CacheSpec
from macllm.spec.norm import Norm
from macllm.spec.rwkv import ChannelMix
from macllm.spec.tensor import TensorSpec, linear

# xIELU (arXiv 2411.13010) has four numbers of its own in each layer.
Activation: TypeAlias = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2", "clamped_swiglu", "xielu"]
XIELU_NUMBERS = ("alpha_p", "alpha_n", "beta", "eps")


@dataclass(frozen=True)
class MLP:
    """Feed-forward: ``down(activation(up(x)))``, or gated: ``down(activation(gate(x)) * up(x))`` (Shazeer 2020)."""

    dim: int
    hidden: int
    activation: Activation = "silu"
    gated: bool = True
    bias: bool = False
    down_norm: Norm | None = None  # of the hidden values, before down (BitNet b1.58)

    caches: ClassVar[tuple[CacheSpec, ...]] = ()

    def tensors(self, prefix: str) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        if self.activation == "xielu":
            for name in XIELU_NUMBERS:
                yield TensorSpec(f"{prefix}.activation.{name}", (), "vector")
        if self.down_norm is not None:
            yield from self.down_norm.tensors(f"{prefix}.down_norm", self.hidden)
        for name in self.inputs:
            yield from linear(prefix, name, (self.hidden, self.dim), self.bias)
        yield from linear(prefix, "down", (self.dim, self.hidden), self.bias)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The projections of the input."""
        return ("gate", "up") if self.gated else ("up",)

    @property
    def working_values(self) -> int:
        """Values that one token's activations take."""
        return self.hidden * (3 if self.gated else 2)


@dataclass(frozen=True)
class MoE:
    """A mixture of experts: each token goes through ``top_k`` of them, weighted by what the router gives them.

    ``score``: softmax over all experts ("softmax"), over the chosen ones ("softmax_chosen"), or each for itself
    ("sigmoid"). ``correction``: a bias an expert that decides who is chosen and not what it weighs (balancing
    without an auxiliary loss, arXiv 2408.15664). ``groups``: only experts of the ``top_groups`` best groups are
    chosen from; a group is as good as its best expert, or as its two best together (``group_score``).
    """

    dim: int
    hidden: int  # of one expert
    experts: int
    top_k: int
    activation: Activation = "silu"
    gated: bool = True
    bias: bool = False
    score: Literal["softmax", "softmax_chosen", "sigmoid"] = "softmax"
    renormalize: bool = False  # the weights of the chosen sum to one
    weight_scale: float = 1.0
    correction: bool = False
    router_bias: bool = False
    groups: int = 1
    top_groups: int = 1
    group_score: Literal["best", "best_two"] = "best"
    shared: MLP | None = None  # every token goes through it too
    shared_gated: bool = False  # its output times the sigmoid of a projection of the input

    caches: ClassVar[tuple[CacheSpec, ...]] = ()

    def tensors(self, prefix: str) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        yield TensorSpec(f"{prefix}.router.weight", (self.experts, self.dim), "router")
        if self.router_bias:
            yield TensorSpec(f"{prefix}.router.bias", (self.experts,), "bias")
        if self.correction:
            yield TensorSpec(f"{prefix}.correction", (self.experts,), "vector", precise=True)
        for name in self.inputs:
            yield from linear(
                f"{prefix}.experts", name, (self.experts, self.hidden, self.experts_dim), self.bias
            )
        yield from linear(
            f"{prefix}.experts", "down", (self.experts, self.experts_dim, self.hidden), self.bias
        )
        if self.shared is not None:
            yield from self.shared.tensors(f"{prefix}.shared")
        if self.shared_gated:
            yield TensorSpec(f"{prefix}.shared_gate.weight", (1, self.dim), "router")

    @property
    def experts_dim(self) -> int:
        """The width of what goes into an expert and comes out of it."""
        return self.dim

    @property
    def inputs(self) -> tuple[str, ...]:
        """The projections of an expert's input."""
        return ("gate", "up") if self.gated else ("up",)

    @property
    def working_values(self) -> int:
        """Values that one token's activations take."""
        shared = self.shared.working_values if self.shared is not None else 0
        return self.experts + self.top_k * (self.hidden * (3 if self.gated else 2) + self.dim) + shared


@dataclass(frozen=True)
class LatentMoE(MoE):
    """Experts in a narrower space: one projection before all of them, and one of their sum back (Nemotron 3)."""

    latent: int = field(kw_only=True)
    latent_bias: bool = False

    def tensors(self, prefix: str) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        yield from super().tensors(prefix)
        yield from linear(prefix, "latent_down", (self.latent, self.dim), self.latent_bias)
        yield from linear(prefix, "latent_up", (self.dim, self.latent), self.latent_bias)

    @property
    def experts_dim(self) -> int:
        return self.latent


@dataclass(frozen=True)
class SparseMixer(MoE):
    """Experts chosen one after the other (Phi-3.5-MoE; Liu et al. 2024, arXiv 2409.12136).

    Each weighs what softmax gives it among those still left whose logits come as close to it as noise of
    ``jitter`` in training could have brought them.
    """

    jitter: float = 0.01


@dataclass(frozen=True)
class InputScaledMoE(MoE):
    """Experts whose weight is a factor of what goes in, not of what comes out (Llama 4)."""


Channel: TypeAlias = MLP | MoE | ChannelMix
