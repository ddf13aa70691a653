"""Softmax attention as data: multi-head, multi-query, grouped-query and latent."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from macllm.spec.memory import KV_WIDTHS, CacheSpec, KeyValues
from macllm.spec.norm import Norm
from macllm.spec.rope import DynamicScaling, Rope
from macllm.spec.tensor import TensorSpec, linear


@dataclass(frozen=True)
class QKNorm:
    """Normalization of queries and keys.

    ``over`` what: each head with one weight for all ("head"), each head with a weight of its own ("heads"), or
    all heads as one vector ("all", always before rope).
    """

    norm: Norm = Norm()
    over: Literal["head", "heads", "all"] = "head"
    after_rope: bool = False


@dataclass(frozen=True)
class QueryScale:
    """Queries grow with their position: times ``1 + weight * log(1 + floor((position + first) / every))``.

    Attention to many tokens stays as sharp as to few (Llama 4, Ministral 3; arXiv 2501.19399).
    """

    weight: float
    every: int
    first: int = 0  # the number of the first position


@dataclass(frozen=True)
class Attention:
    """Softmax attention over all tokens, the last ``window``, or the block of ``chunk`` that the query is in."""

    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    scale: float  # of the scores, before softmax
    rope: Rope | None = None
    window: int | None = None  # tokens seen, the query's own included
    chunk: int | None = None
    bias: bool = False  # on q, k and v
    out_bias: bool = False
    qk_norm: QKNorm | None = None
    gated: bool = False  # the output times the sigmoid of a projection of the input (Qwen3-Next)
    sinks: bool = False  # a learned score a head that takes weight and gives nothing (gpt-oss)
    softcap: float | None = None  # scores become cap * tanh(score / cap) (Gemma 2)
    slopes: tuple[float, ...] | None = (
        None  # ALiBi (Press et al. 2022): a head's penalty for each token of distance
    )
    clip: float | None = None  # bound of q, k and v (OLMo, MPT), after a norm over all heads
    query_scale: QueryScale | None = None
    out_norm: Norm | None = None  # of what all heads found, as one vector, before o (BitNet b1.58)
    value_norm: Norm | None = None  # of each value head (Gemma 3n and 4)
    values_are_keys: bool = False  # before their norm and rope (Gemma 4)
    source: int | None = (
        None  # the earlier layer whose keys and values it sees in place of its own (arXiv 2405.12981)
    )

    def tensors(self, prefix: str) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        for name, heads in self.projections.items():
            yield from linear(prefix, name, (heads * self.head_dim, self.dim), self.bias)
        yield from linear(prefix, "o", (self.dim, self.heads * self.head_dim), self.out_bias)
        if self.qk_norm is not None:
            over = self.qk_norm.over
            for name, heads in (("q", self.heads), ("k", self.kv_heads)):
                if name in self.projections:
                    width = heads * self.head_dim if over == "all" else self.head_dim
                    yield from self.qk_norm.norm.tensors(
                        f"{prefix}.{name}_norm", width, heads if over == "heads" else None
                    )
        if self.value_norm is not None and self.source is None:
            yield from self.value_norm.tensors(f"{prefix}.v_norm", self.head_dim)
        if self.sinks:
            yield TensorSpec(f"{prefix}.sinks", (self.heads,), "vector")
        if self.out_norm is not None:
            yield from self.out_norm.tensors(f"{prefix}.out_norm", self.heads * self.head_dim)

    @property
    def projections(self) -> dict[str, int]:
        """The projections of the input and the heads that each makes, in the order they are computed in."""
        own = self.source is None
        made = {
            "q": True,
            "k": own,
            "v": own and not self.values_are_keys,
            "gate": self.gated,
        }
        heads = {"q": self.heads, "k": self.kv_heads, "v": self.kv_heads, "gate": self.heads}
        return {name: heads[name] for name, wanted in made.items() if wanted}

    @property
    def caches(self) -> tuple[CacheSpec, ...]:
        if self.source is not None:
            return ()
        width = self.head_dim
        return (KeyValues(self.kv_heads, width, width, self.window, self.chunk, self.packable),)

    @property
    def packable(self) -> bool:
        """Whether its keys and values may be packed: it uses them as they were stored, whatever the distance."""
        turned_late = self.rope is not None and isinstance(self.rope.scaling, DynamicScaling)
        return self.head_dim in KV_WIDTHS and self.slopes is None and not turned_late

    @property
    def working_values(self) -> int:
        """Values that one token's activations take."""
        return self.heads * self.head_dim * 4


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): heads read one compressed vector a token.

    The cache holds that vector and one rotated key that all heads share. ``q_rank`` None: queries are not
    compressed.
    """

    dim: int
    heads: int
    q_rank: int | None
    kv_rank: int
    nope_dim: int  # of a head's query and key, without positions
    rope_dim: int
    value_dim: int
    scale: float
    rope: Rope
    norm: Norm = Norm()
    bias: bool = False  # on what compresses, and on the output

    def tensors(self, prefix: str) -> Iterator[TensorSpec]:
        """Its tensors under their canonical names."""
        width = self.heads * (self.nope_dim + self.rope_dim)
        if self.q_rank is None:
            yield from linear(prefix, "q", (width, self.dim), False)
        else:
            yield from linear(prefix, "q_down", (self.q_rank, self.dim), self.bias)
            yield from self.norm.tensors(f"{prefix}.q_norm", self.q_rank)
            yield from linear(prefix, "q_up", (width, self.q_rank), False)
        yield from linear(prefix, "kv_down", (self.kv_rank + self.rope_dim, self.dim), self.bias)
        yield from self.norm.tensors(f"{prefix}.kv_norm", self.kv_rank)
        # one matrix a head: a query into the latent space, and a latent sum into the head's values
        yield from linear(prefix, "k_up", (self.heads, self.kv_rank, self.nope_dim), False)
        yield from linear(prefix, "v_up", (self.heads, self.value_dim, self.kv_rank), False)
        yield from linear(prefix, "o", (self.dim, self.heads * self.value_dim), self.bias)

    @property
    def caches(self) -> tuple[CacheSpec, ...]:
        return (KeyValues(1, self.rope_dim, self.kv_rank),)

    @property
    def working_values(self) -> int:
        """Values that one token's activations take."""
        return self.heads * (self.nope_dim + self.rope_dim + self.value_dim) * 2
