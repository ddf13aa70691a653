"""A model: layers of a mixer over positions and a block over channels, between an embedding and a head."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, TypeAlias

from macllm.spec.attention import Attention, LatentAttention
from macllm.spec.channel import Channel
from macllm.spec.mamba import Mamba, Mamba2, ParallelMixers
from macllm.spec.memory import REWIND_TOKENS, CacheSpec, KeyValues, State, Tokens
from macllm.spec.names import Names
from macllm.spec.norm import Norm
from macllm.spec.recurrent import GatedDelta, ShortConv
from macllm.spec.rope import DynamicScaling, LongScaling, Rope
from macllm.spec.rwkv import TimeMix
from macllm.spec.tensor import TensorSpec, linear

Mixer: TypeAlias = (
    Attention | GatedDelta | LatentAttention | Mamba | Mamba2 | ParallelMixers | ShortConv | TimeMix
)
NormPlacement: TypeAlias = Literal["pre", "post", "sandwich", "parallel", "parallel_two"]


@dataclass(frozen=True)
class Layer:
    """One layer: a mixer over positions, a block over channels (either may be missing), and where the norms stand.

    ``pre``: x + f(norm(x)), one block after the other. ``post``: x + norm(f(x)) (OLMo 2). ``sandwich``:
    x + norm(f(norm(x))) (Gemma 2). ``parallel``: x + f(norm(x)) + g(norm(x)) (Cohere); ``parallel_two``: the same
    with a norm for each (GPT-NeoX).
    """

    mixer: Mixer | None
    channel: Channel | None
    placement: NormPlacement = "pre"
    norm: Norm = Norm()
    residual_scale: float = 1.0  # of what a block adds (Granite)

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """Its mixer, or each of several side by side."""
        if isinstance(self.mixer, ParallelMixers):
            return tuple(mixer for _, mixer in self.mixer.mixers)
        return (self.mixer,) if self.mixer is not None else ()

    @property
    def norms(self) -> tuple[str, ...]:
        """Names of its norms."""
        if self.placement == "parallel":
            return ("mixer_norm",)
        before = self.placement != "post"
        after = self.placement in ("post", "sandwich")
        return tuple(
            name
            for block, present in (("mixer", self.mixer), ("channel", self.channel))
            if present is not None
            for name, wanted in ((f"{block}_norm", before), (f"{block}_post_norm", after))
            if wanted
        )

    def tensors(self, prefix: str, dim: int) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        if self.mixer is not None:
            yield from self.mixer.tensors(f"{prefix}.mixer")
        if self.channel is not None:
            yield from self.channel.tensors(f"{prefix}.channel")
        for name in self.norms:
            yield from self.norm.tensors(f"{prefix}.{name}", dim)

    @cached_property
    def caches(self) -> tuple[CacheSpec, ...]:
        """What its blocks remember, the mixer's first."""
        blocks = (self.mixer, self.channel)
        return tuple(cache for block in blocks if block is not None for cache in block.caches)

    @property
    def ropes(self) -> tuple[Rope, ...]:
        """The rotary embeddings of its mixers."""
        mixers = (
            [one for _, one in self.mixer.mixers] if isinstance(self.mixer, ParallelMixers) else [self.mixer]
        )
        found = (mixer.rope for mixer in mixers if isinstance(mixer, Attention | LatentAttention))
        return tuple(rope for rope in found if rope is not None)

    @property
    def working_values(self) -> tuple[int, ...]:
        """Values that one token's activations take inside each of its blocks."""
        return tuple(block.working_values for block in (self.mixer, self.channel) if block is not None)


class Frame(Protocol):
    """What an odd architecture has around its layers, beside embedding and norm (``macllm.families.custom``)."""

    def tensors(self, dim: int) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only language model: embedding, layers, norm, head."""

    family: str
    vocab: int
    dim: int
    layers: tuple[Layer, ...]
    max_context: int
    norm: Norm = Norm()
    tied: bool = False
    embed_scale: float | None = None
    embed_norm: Norm | None = None
    positions: int | None = None  # learned positions, added to the embedding
    head_bias: bool = False
    logit_scale: float | None = None
    logit_cap: float | None = None  # logits become cap * tanh(logit / cap)
    needs_bfloat16_range: bool = False  # activations overflow float16
    frame: Frame | None = None
    part_of: str | None = None  # the multimodal architecture whose text model this is
    names: Names = Names()

    def tensors(self) -> Iterator[TensorSpec]:
        """Every tensor of the model under its canonical name."""
        yield TensorSpec("embed.weight", (self.vocab, self.dim), "embedding")
        if self.positions is not None:
            yield TensorSpec("positions.weight", (self.positions, self.dim), "embedding")
        if self.embed_norm is not None:
            yield from self.embed_norm.tensors("embed_norm", self.dim)
        if self.frame is not None:
            yield from self.frame.tensors(self.dim)
        for index, layer in enumerate(self.layers):
            yield from layer.tensors(f"layers.{index}", self.dim)
        yield from self.norm.tensors("norm", self.dim)
        if not self.tied:
            yield from linear("", "head", (self.vocab, self.dim), self.head_bias)
        elif self.head_bias:
            yield TensorSpec("head.bias", (self.vocab,), "bias")

    @property
    def parameters(self) -> int:
        return sum(tensor.size for tensor in self.tensors())

    @cached_property
    def caches(self) -> tuple[CacheSpec, ...]:
        """What all layers remember, in order; and the ids of what comes before the :attr:`border`."""
        layers = (cache for layer in self.layers for cache in layer.caches)
        return (*layers, *((Tokens(self.border),) if self.border is not None else ()))

    @cached_property
    def border(self) -> int | None:
        """The length of a sequence beyond which all its tokens are turned otherwise (LongRoPE); None: there is none."""
        scalings = (rope.scaling for layer in self.layers for rope in layer.ropes)
        return next((one.original_context for one in scalings if isinstance(one, LongScaling)), None)

    @cached_property
    def sources(self) -> frozenset[int]:
        """The layers whose keys and values later ones see too."""
        mixers = [layer.mixer for layer in self.layers if isinstance(layer.mixer, Attention)]
        return frozenset(mixer.source for mixer in mixers if mixer.source is not None)

    @cached_property
    def unpackable(self) -> str | None:
        """Why documents cannot stand one after the other in a row and not see each other; None: they can."""
        if any(isinstance(cache, State) for cache in self.caches):
            return "its recurrent layers carry a state from one into the next"
        scalings = [rope.scaling for layer in self.layers for rope in layer.ropes]
        if any(isinstance(one, LongScaling | DynamicScaling) for one in scalings):
            return "its rotations depend on the length of a row"
        return None

    @property
    def rewind_tokens(self) -> int | None:
        """How many of the last tokens every cache can always drop exactly; None: all."""
        windows = [cache.reach for cache in self.caches if isinstance(cache, KeyValues)]
        states = [REWIND_TOKENS for cache in self.caches if isinstance(cache, State)]
        return min((limit for limit in windows + states if limit is not None), default=None)

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The distinct reaches of attention, in order of first use; None is every token."""
        return tuple(dict.fromkeys(cache.reach for cache in self.caches if isinstance(cache, KeyValues)))
