"""What a model is, as frozen data. Everything else about a model is derived from its ``ModelSpec``.

No mlx here: sizes, KV-cache bytes and the list of tensors are arithmetic, known before any download.
Canonical tensor names are made of ``embed``, ``layers.N.<block>``, ``norm`` and ``head``; checkpoints of every
origin are renamed to them (see ``macllm.weights.names``).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

Activation: TypeAlias = Literal["silu", "gelu_tanh"]
TensorKind: TypeAlias = Literal["matrix", "embedding", "norm", "bias"]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model: canonical name, shape, and what it is. Matrices and embeddings quantize."""

    name: str
    shape: tuple[int, ...]
    kind: TensorKind

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def quantizable(self) -> bool:
        return self.kind in ("matrix", "embedding")


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
    attention_factor: float | None = None  # None: 0.1 ln(factor) + 1
    truncate: bool = True


@dataclass(frozen=True)
class TableScaling:
    """Each frequency divided by a stored factor (the ``rope_freqs`` tensor of a GGUF)."""

    factors: tuple[float, ...]


RopeScaling: TypeAlias = LinearScaling | Llama3Scaling | YarnScaling | TableScaling


@dataclass(frozen=True)
class Rope:
    """Rotary positions (Su et al. 2021) over the first ``dims`` of each head, halves rotated."""

    dims: int
    base: float = 10_000.0
    scaling: RopeScaling | None = None


@dataclass(frozen=True)
class Attention:
    """Softmax attention: multi-head, grouped-query or multi-query; full, or over the last ``window`` tokens."""

    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    scale: float  # of the scores, before softmax
    rope: Rope | None = None
    window: int | None = None  # tokens seen, the query's own included
    bias: bool = False  # on q, k and v
    out_bias: bool = False
    qk_norm: bool = False  # RMSNorm over each head of q and k, before rope
    norm_eps: float = 1e-6

    def tensors(self, prefix: str) -> Iterator[TensorSpec]:
        widths = {"q": self.heads, "k": self.kv_heads, "v": self.kv_heads}
        for name, heads in widths.items():
            yield TensorSpec(f"{prefix}.{name}.weight", (heads * self.head_dim, self.dim), "matrix")
            if self.bias:
                yield TensorSpec(f"{prefix}.{name}.bias", (heads * self.head_dim,), "bias")
        yield TensorSpec(f"{prefix}.o.weight", (self.dim, self.heads * self.head_dim), "matrix")
        if self.out_bias:
            yield TensorSpec(f"{prefix}.o.bias", (self.dim,), "bias")
        if self.qk_norm:
            yield TensorSpec(f"{prefix}.q_norm.weight", (self.head_dim,), "norm")
            yield TensorSpec(f"{prefix}.k_norm.weight", (self.head_dim,), "norm")

    @property
    def kv_values_per_token(self) -> int:
        """Elements a token adds to the cache."""
        return 2 * self.kv_heads * self.head_dim


@dataclass(frozen=True)
class MLP:
    """Gated feed-forward: ``down(activation(gate(x)) * up(x))`` (SwiGLU, GeGLU; Shazeer 2020)."""

    dim: int
    hidden: int
    activation: Activation = "silu"
    bias: bool = False

    def tensors(self, prefix: str) -> Iterator[TensorSpec]:
        shapes = {
            "gate": (self.hidden, self.dim),
            "up": (self.hidden, self.dim),
            "down": (self.dim, self.hidden),
        }
        for name, shape in shapes.items():
            yield TensorSpec(f"{prefix}.{name}.weight", shape, "matrix")
            if self.bias:
                yield TensorSpec(f"{prefix}.{name}.bias", shape[:1], "bias")


Mixer: TypeAlias = Attention
Channel: TypeAlias = MLP
NormPlacement: TypeAlias = Literal["pre", "sandwich"]


@dataclass(frozen=True)
class Layer:
    """One layer: a mixer over positions, a block over channels, and where the norms stand.

    ``pre``: x + f(norm(x)). ``sandwich``: x + norm(f(norm(x))) (Gemma 2 and 3).
    """

    mixer: Mixer
    channel: Channel
    placement: NormPlacement = "pre"

    @property
    def norms(self) -> tuple[str, ...]:
        if self.placement == "pre":
            return ("mixer_norm", "channel_norm")
        return ("mixer_norm", "mixer_post_norm", "channel_norm", "channel_post_norm")


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only language model: embedding, layers, norm, head.

    ``norm_offset`` is what the checkpoint's norm weights lack of the factor they stand for (Gemma stores
    ``weight - 1``); it is folded in at load.
    """

    family: str
    vocab: int
    dim: int
    layers: tuple[Layer, ...]
    max_context: int
    norm_eps: float = 1e-6
    tied: bool = False
    embed_scale: float | None = None
    norm_offset: float = 0.0
    needs_bfloat16_range: bool = False  # activations overflow float16

    def tensors(self) -> Iterator[TensorSpec]:
        """Every tensor of the model under its canonical name."""
        yield TensorSpec("embed.weight", (self.vocab, self.dim), "embedding")
        for index, layer in enumerate(self.layers):
            prefix = f"layers.{index}"
            yield from layer.mixer.tensors(f"{prefix}.mixer")
            yield from layer.channel.tensors(f"{prefix}.channel")
            for norm in layer.norms:
                yield TensorSpec(f"{prefix}.{norm}.weight", (self.dim,), "norm")
        yield TensorSpec("norm.weight", (self.dim,), "norm")
        if not self.tied:
            yield TensorSpec("head.weight", (self.vocab, self.dim), "matrix")

    @property
    def parameters(self) -> int:
        return sum(tensor.size for tensor in self.tensors())

    @property
    def rewindable(self) -> bool:
        """Whether every layer's cache can drop its last tokens exactly."""
        return all(isinstance(layer.mixer, Attention) for layer in self.layers)

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The distinct attention windows, in order of first use; None is full attention."""
        return tuple(dict.fromkeys(layer.mixer.window for layer in self.layers))
