"""Normalization as data."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from macllm.spec.tensor import TensorSpec


@dataclass(frozen=True)
class Norm:
    """RMSNorm (Zhang and Sennrich 2019) or LayerNorm (Ba et al. 2016) over the last axis."""

    kind: Literal["rms", "layer"] = "rms"
    eps: float = 1e-6
    weight: bool = True
    bias: bool = False

    def tensors(self, name: str, width: int, heads: int | None = None) -> Iterator[TensorSpec]:
        """Its tensors; with ``heads`` one weight (H, width) for each head."""
        shape = (width,) if heads is None else (heads, width)
        if self.weight:
            yield TensorSpec(f"{name}.weight", shape, "norm")
        if self.bias:
            yield TensorSpec(f"{name}.bias", shape, "norm")
