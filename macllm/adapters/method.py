"""The settings of a method: how much learns beside a model, and how strongly it acts."""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

ALL_LAYERS = -1  # as mlx-lm writes it; people write "all"
Kind: TypeAlias = Literal["lora", "qlora", "rslora", "dora", "pissa", "qalora", "full"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TWO_FACTORS: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind != "full")


@dataclass(frozen=True)
class Method:
    """What learns, and how.

    ``scale`` is what the product of the factors is multiplied by, as mlx-lm has it; with ``rslora`` it is divided by
    the root of the rank, so that a wider adapter does not act more strongly (arXiv 2312.03732). ``qlora`` is ``lora``
    on packed weights alone, ``qalora`` on affine ones, into which what it learns folds. ``dropout``: the share of the
    adapters' input left out in training. ``targets`` as in :func:`macllm.adapters.targets.select`. ``num_layers``
    are counted from the last. With ``full`` the first three and the targets mean nothing.
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

    @property
    def on_disk(self) -> "Method":
        """What files state of it: what is learned beside a start, or on packed weights, is a LoRA once it is saved."""
        if self.kind == "pissa":  # as PEFT converts it, so that it fits the unchanged base
            return replace(self, kind="lora", rank=2 * self.rank)
        return replace(self, kind="lora") if self.kind == "qlora" else self
