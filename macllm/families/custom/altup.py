"""Alternating updates as data (AltUp, arXiv 2301.13310), with what else is Gemma 3n's alone."""

from collections.abc import Iterator
from dataclasses import dataclass

from macllm.families.custom.side import SideInputs, SideLayer
from macllm.spec import TensorSpec
from macllm.spec.tensor import linear


@dataclass(frozen=True)
class Streams(SideInputs):
    """Per-layer inputs, and ``streams`` states a token: projections of its embedding at first, their mean at last."""

    streams: int = 1

    def tensors(self, dim: int) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        yield from super().tensors(dim)
        for index in range(self.streams - 1):
            yield from linear("frame", f"spread.{index}", (dim, dim), False)
            yield from linear("frame", f"gather.{index}", (dim, dim), False)


@dataclass(frozen=True)
class AltUpLayer(SideLayer):
    """A layer of which one state, the ``active`` one, goes through the blocks; the others are predicted and corrected.

    Beside attention runs a residual of low rank (``laurel``: learned augmented residual layer).
    """

    streams: int = 1
    active: int = 0
    laurel: int = 1
    scaled_side: bool = False  # the corrected active state is scaled before it meets the layer's input

    @property
    def norms(self) -> tuple[str, ...]:
        """Names of its norms."""
        return (*super().norms, "router_norm", "laurel_norm")

    def tensors(self, prefix: str, dim: int) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        yield from super().tensors(prefix, dim)
        yield TensorSpec(f"{prefix}.router.weight", (self.streams, dim), "router")
        yield TensorSpec(f"{prefix}.prediction", (self.streams**2, self.streams), "vector")
        yield TensorSpec(f"{prefix}.correction", (self.streams, self.streams), "vector")
        yield TensorSpec(f"{prefix}.side_scale", (dim,), "vector")  # stored by all, whether or not it counts
        yield from linear(prefix, "laurel_down", (self.laurel, dim), False)
        yield from linear(prefix, "laurel_up", (dim, self.laurel), False)
