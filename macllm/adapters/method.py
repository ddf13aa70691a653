"""The settings of each method: what learns in or beside a model, how much of it, and how strongly it acts."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias, get_args

ALL_LAYERS = -1  # as mlx-lm writes it; people write "all"
Kind: TypeAlias = Literal["lora", "qlora", "rslora", "dora", "pissa", "qalora", "full"]
MATRIX_KINDS: tuple[Kind, ...] = get_args(Kind)
TWO_FACTORS: tuple[Kind, ...] = tuple(kind for kind in MATRIX_KINDS if kind != "full")
VirtualKind: TypeAlias = Literal["prompt", "prefix"]
VIRTUAL: tuple[VirtualKind, ...] = get_args(VirtualKind)
KINDS: tuple[str, ...] = (*MATRIX_KINDS, "ia3", *VIRTUAL, "bottleneck")


@dataclass(frozen=True)
class Method:
    """Factors of matrices, or the weights themselves.

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


@dataclass(frozen=True)
class Scalings:
    """IA3: a number for every output of keys and values and every input of the feed-forward block's last matrix.

    With ``targets``, for every output of those, or input where they are a ``down``.
    """

    targets: tuple[str, ...] = ()
    num_layers: int = ALL_LAYERS
    kind: ClassVar[str] = "ia3"


@dataclass(frozen=True)
class Virtual:
    """So many tokens before every sequence: their embeddings (``prompt``), or all layers' keys and values."""

    kind: VirtualKind
    tokens: int = 20


@dataclass(frozen=True)
class Bottleneck:
    """``rank`` numbers between two small matrices after blocks: ``attention``, ``mlp``, or after both (``all``)."""

    rank: int = 8
    targets: tuple[str, ...] = ()
    num_layers: int = ALL_LAYERS
    kind: ClassVar[str] = "bottleneck"


Other: TypeAlias = Scalings | Virtual | Bottleneck
AnyMethod: TypeAlias = Method | Other
