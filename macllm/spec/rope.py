"""Rotary positions as data."""

from dataclasses import dataclass, replace
from typing import TypeAlias


@dataclass(frozen=True)
class LinearScaling:
    """Positions divided by ``factor`` (kaiokendev; "linear" in Hugging Face configs)."""

    factor: float


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1: low frequencies divided by ``factor``, high ones kept, a ramp between."""

    factor: float
    low_factor: float
    high_factor: float
    original_context: int


@dataclass(frozen=True)
class YarnScaling:
    """YaRN (Peng et al. 2023, arXiv 2309.00071): NTK by parts and an attention temperature."""

    factor: float
    original_context: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None  # of q and k; None: 0.1 ln(factor) + 1
    truncate: bool = True
    score_factor: float = 1.0  # of the scores beside that (DeepSeek's ``mscale_all_dim``)


@dataclass(frozen=True)
class TableScaling:
    """Each frequency divided by a stored factor (the ``rope_freqs`` tensor of a GGUF)."""

    factors: tuple[float, ...]
    temperature: float = 1.0  # of q and k


@dataclass(frozen=True)
class ProportionalScaling:
    """Only the first ``share`` of the pairs turn, at frequencies divided by ``factor`` (Gemma 4)."""

    share: float
    factor: float = 1.0


@dataclass(frozen=True)
class LongScaling:
    """LongRoPE (Ding et al. 2024, arXiv 2402.13753): other factors once a sequence outgrows the original context.

    They are then those of all its tokens, from the first on.
    """

    short: TableScaling
    long: TableScaling
    original_context: int


@dataclass(frozen=True)
class DynamicScaling:
    """Dynamic NTK (bloc97, emozilla): a base that grows with the sequence once it outgrows the original context."""

    factor: float
    original_context: int


RopeScaling: TypeAlias = (
    LinearScaling
    | Llama3Scaling
    | YarnScaling
    | TableScaling
    | ProportionalScaling
    | LongScaling
    | DynamicScaling
)


@dataclass(frozen=True)
class Rope:
    """Rotary positions (Su et al. 2021) over the first ``dims`` of each head.

    A pair is an element and the one half of ``dims`` further on; ``interleaved``: two neighbours (GPT-J's form).
    """

    dims: int
    base: float = 10_000.0
    scaling: RopeScaling | None = None
    interleaved: bool = False

    def at(self, length: int) -> "Rope":
        """The rotation of a sequence of ``length`` tokens, for scalings that depend on it."""
        match self.scaling:
            case LongScaling(short, long, context):
                return replace(self, scaling=long if length > context else short)
            case DynamicScaling(factor, context):
                stretch = factor * max(length, context) / context - (factor - 1)
                base = self.base * stretch ** (self.dims / (self.dims - 2))
                return replace(self, base=base, scaling=None)
        return self
