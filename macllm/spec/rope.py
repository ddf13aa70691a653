"""Rotary positions as data."""

from dataclasses import dataclass
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


RopeScaling: TypeAlias = LinearScaling | Llama3Scaling | YarnScaling | TableScaling


@dataclass(frozen=True)
class Rope:
    """Rotary positions (Su et al. 2021) over the first ``dims`` of each head.

    A pair is an element and the one half of ``dims`` further on; ``interleaved``: two neighbours (GPT-J's form).
    """

    dims: int
    base: float = 10_000.0
    scaling: RopeScaling | None = None
    interleaved: bool = False
