"""The settings of a method: how much learns beside a model, and how strongly it acts."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

ALL_LAYERS = -1  # as mlx-lm writes it; people write "all"
Kind: TypeAlias = Literal["lora", "rslora", "dora", "full"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Method:
    """What learns, and how.

    ``scale`` is what the product of the factors is multiplied by, as mlx-lm has it; with ``rslora`` it is divided by
    the root of the rank, so that a wider adapter does not act more strongly (arXiv 2312.03732). ``dropout``: the
    share of the adapters' input left out in training. ``targets`` as in :func:`macllm.adapters.targets.select`.
    ``num_layers`` are counted from the last. With ``full`` the first three and the targets mean nothing.
    """

    kind: Kind = "lora"
    rank: int = 8
    scale: float = 20.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    num_layers: int = ALL_LAYERS

    @property
    def factor(self) -> float:
        """What the product of the factors is multiplied by."""
        return self.scale / math.sqrt(self.rank) if self.kind == "rslora" else self.scale
