"""What a step of a model costs at least: bytes moved, operations, launches, and the time they take on a chip.

A floor, not a forecast: every weight, and every key and value in view, comes from memory once; what passes between
two launches stays in the chip's caches and is not counted. Formats are by canonical tensor name, as
:func:`macllm.sizes.weight_bytes` takes them. No mlx here.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from macllm.kernels.launches import launches
from macllm.quantization import MLX_MODES, Quantization
from macllm.spec import Attention, KeyValues, LatentAttention, Layer, ModelSpec, MoE, State, TensorSpec
from macllm.spec.memory import KV_GROUP

Formats: TypeAlias = Mapping[str, Quantization | None]
# "kernels": every format is multiplied as it lies. "mlx": as MLX's own kernels need it, which multiply affine and the
# mx and nv modes: GGUF blocks are repacked at load, NF4 is expanded at each use, and so are quantized keys and values,
# since fused attention takes plain ones.
Way: TypeAlias = Literal["kernels", "mlx"]

KERNEL_ROWS = 8  # of input, up to which custom kernels multiply; more rows take the matrix expanded
PREFILL_CHUNK = 512  # tokens of a prompt that go through the model at a time
_STATE_PRODUCTS = 3  # multiply-adds a state's value and token: it fades, is added to, and is read


@dataclass(frozen=True)
class Work:
    """Bytes from and to memory, operations (a multiply-add is two), kernels launched."""

    read_bytes: int = 0
    written_bytes: int = 0
    operations: int = 0
    launches: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.read_bytes + other.read_bytes,
            self.written_bytes + other.written_bytes,
            self.operations + other.operations,
            self.launches + other.launches,
        )

    @property
    def moved_bytes(self) -> int:
        return self.read_bytes + self.written_bytes


@dataclass(frozen=True)
class Cost:
    """The work of ``tokens`` computed at once, by what it is for; launches are in ``layers``."""

    tokens: int
    layers: Work = field(default=Work())  # their weights, and norms before and after
    embedding: Work = field(default=Work())
    head: Work = field(default=Work())
    cache: Work = field(default=Work())  # keys and values in view, new ones, states; and attention to them

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.tokens + other.tokens,
            self.layers + other.layers,
            self.embedding + other.embedding,
            self.head + other.head,
            self.cache + other.cache,
        )

    @property
    def weights(self) -> Work:
        """All that is read of the parameters."""
        return self.layers + self.embedding + self.head

    @property
    def total(self) -> Work:
        return self.weights + self.cache

    def seconds(self, bandwidth_gb_s: float, tflops: float | None = None, launch_us: float = 0.0) -> float:
        """The least time: memory or, with ``tflops``, arithmetic, whichever takes longer; and ``launch_us`` each."""
        total = self.total
        moving = total.moved_bytes / (bandwidth_gb_s * 1e9)
        computing = total.operations / (tflops * 1e12) if tflops is not None else 0.0
        return max(moving, computing) + total.launches * launch_us * 1e-6

    def tokens_per_s(
        self, bandwidth_gb_s: float, tflops: float | None = None, launch_us: float = 0.0
    ) -> float:
        """The bound that :meth:`seconds` sets."""
        return self.tokens / self.seconds(bandwidth_gb_s, tflops, launch_us)


@dataclass(frozen=True)
class Setting:
    """How a model is held and multiplied: bytes of a plain value, the packing of keys and values, whose kernels."""

    dense_bytes: int = 2
    kv: Quantization | None = None  # None: plain
    way: Way = "kernels"


def kv_packing(bits: int | None) -> Quantization | None:
    """How a cache packs keys and values in so many bits; None: plain."""
    return Quantization(bits, KV_GROUP) if bits is not None else None


def step(
    spec: ModelSpec,
    formats: Formats,
    context: int,
    tokens: int = 1,
    *,
    logits: int | None = None,
    setting: Setting = Setting(),
) -> Cost:
    """The cost of ``tokens`` new ones in one pass, after which ``context`` are in the cache.

    ``logits``: of how many tokens they are computed (None: of all). Of a mixture of experts those count that so many
    tokens are expected to choose, each for itself and all experts alike.
    """
    wanted = tokens if logits is None else logits
    experts = dict(_experts(spec, tokens))
    layers = Work(launches=launches(spec, formats))
    embedding = head = Work()
    for tensor in spec.tensors():
        stored = formats.get(tensor.name)
        if tensor.kind == "embedding":
            embedding += _rows(tensor, stored, tokens, setting)
            if spec.tied and tensor.name == "embed.weight" and wanted:
                head += _product(tensor, stored, wanted, setting)
        elif tensor.name.startswith("head."):
            head += _whole(tensor, stored, wanted, setting) if wanted else Work()
        else:
            owner = tensor.name.rpartition(".experts.")[0]
            layers += _whole(tensor, stored, tokens, setting, experts.get(owner))
    cache = sum((_remembered(layer, context, tokens, setting) for layer in spec.layers), Work())
    return Cost(tokens, layers, embedding, head, cache)


def prefill(
    spec: ModelSpec,
    formats: Formats,
    tokens: int,
    *,
    chunk: int = PREFILL_CHUNK,
    setting: Setting = Setting(),
) -> Cost:
    """The cost of a prompt of ``tokens``, so many at a time, up to the logits of its last."""
    total = Cost(0)
    for start in range(0, tokens, chunk):
        count = min(chunk, tokens - start)
        last = start + count == tokens
        total += step(spec, formats, start + count, count, logits=1 if last else 0, setting=setting)
    return total


def expected_experts(experts: int, top_k: int, tokens: int) -> float:
    """How many distinct ones ``tokens`` choose that each choose ``top_k``, all experts being alike."""
    return experts * (1 - (1 - top_k / experts) ** tokens)


@dataclass(frozen=True)
class _Experts:
    """Of a stack: the share that is read at all, and the share that one token is multiplied by."""

    read: float
    each: float


def _experts(spec: ModelSpec, tokens: int) -> Iterator[tuple[str, _Experts]]:
    for index, layer in enumerate(spec.layers):
        if isinstance(layer.channel, MoE):
            moe = layer.channel
            read = expected_experts(moe.experts, moe.top_k, tokens) / moe.experts
            yield f"layers.{index}.channel", _Experts(read, moe.top_k / moe.experts)


def _rows(tensor: TensorSpec, stored: Quantization | None, tokens: int, setting: Setting) -> Work:
    """A row of a table for each token."""
    count, width = tensor.shape
    row = stored.nbytes(width) if stored is not None else width * setting.dense_bytes
    return Work(read_bytes=row * min(tokens, count))


def _whole(
    tensor: TensorSpec,
    stored: Quantization | None,
    tokens: int,
    setting: Setting,
    experts: _Experts | None = None,
) -> Work:
    """A tensor, or of the experts' those that are chosen."""
    if not tensor.quantizable:
        share = experts.read if experts is not None else 1.0
        return Work(read_bytes=round(tensor.size * setting.dense_bytes * share))
    work = _product(tensor, stored, tokens, setting)
    if experts is None:
        return work
    return Work(
        round(work.read_bytes * experts.read),
        round(work.written_bytes * experts.read),
        round(work.operations * experts.each),
        work.launches,
    )


def _product(tensor: TensorSpec, stored: Quantization | None, tokens: int, setting: Setting) -> Work:
    """So many rows times a matrix, or times every matrix of a stack."""
    operations, dense = 2 * tensor.size * tokens, tensor.size * setting.dense_bytes
    if stored is not None and setting.way == "mlx" and stored.block is not None:
        stored = stored.block.repacked  # where MLX has no such packing, in 16 bits
    if stored is None:
        return Work(dense, 0, operations)
    read = stored.nbytes(tensor.size, math.prod(tensor.shape[:-2]))
    if stored.mode in MLX_MODES or (setting.way == "kernels" and tokens <= KERNEL_ROWS):
        return Work(read, 0, operations)
    return Work(read + dense, dense, operations, 1)  # a launch more, which expands it


def _remembered(layer: Layer, context: int, tokens: int, setting: Setting) -> Work:
    """What a layer reads and writes of its caches, and what it computes with them."""
    work = Work()
    for mixer in layer.mixers:
        if isinstance(mixer, Attention):
            seen = KeyValues(mixer.kv_heads, mixer.head_dim, mixer.head_dim, mixer.window, mixer.chunk)
            packing = setting.kv if mixer.packable else None
            work += _attended(seen, context, tokens, packing, setting, writes=mixer.source is None)
            work += Work(operations=4 * mixer.heads * mixer.head_dim * pairs(seen, context, tokens))
        elif isinstance(mixer, LatentAttention):
            (seen,) = (cache for cache in mixer.caches if isinstance(cache, KeyValues))
            work += _attended(seen, context, tokens, None, setting, writes=True)
            work += Work(operations=_latent_operations(mixer, context, tokens))
    for cache in layer.caches:
        if isinstance(cache, State):
            moved = cache.nbytes(setting.dense_bytes)
            work += Work(moved, moved, 2 * _STATE_PRODUCTS * cache.sums * tokens)
    return work


def _attended(
    seen: KeyValues,
    context: int,
    tokens: int,
    packing: Quantization | None,
    setting: Setting,
    *,
    writes: bool,
) -> Work:
    """Keys and values in view of the new tokens, read once, and their own written."""
    reach = context if seen.reach is None else min(context, seen.reach + tokens - 1)
    values, own = seen.values_per_token * reach, seen.values_per_token * tokens if writes else 0
    if packing is None:
        return Work(values * setting.dense_bytes, own * setting.dense_bytes)
    read, written = packing.nbytes(values), packing.nbytes(own)
    if setting.way == "mlx":  # an expanded copy is written and read
        copy = values * setting.dense_bytes
        return Work(read + copy, written + copy, 0, 2)
    return Work(read, written)


def pairs(seen: KeyValues, context: int, tokens: int) -> int:
    """How many pairs of a new token and a key in its view there are, up to its own."""
    before = context - tokens
    if seen.reach is None:
        return tokens * before + tokens * (tokens + 1) // 2
    growing = min(max(seen.reach - before, 0), tokens)  # tokens whose view still has room
    return growing * before + growing * (growing + 1) // 2 + (tokens - growing) * seen.reach


def _latent_operations(mixer: LatentAttention, context: int, tokens: int) -> int:
    """Queries taken into the latent space, or keys and values out of it, whichever is less beside the projections."""
    (seen,) = (cache for cache in mixer.caches if isinstance(cache, KeyValues))
    scored = pairs(seen, context, tokens)
    inside = 2 * mixer.heads * (2 * mixer.kv_rank + mixer.rope_dim) * scored
    expanding = 2 * mixer.heads * mixer.kv_rank * (mixer.nope_dim + mixer.value_dim) * (context - tokens)
    outside = 2 * mixer.heads * (mixer.nope_dim + mixer.rope_dim + mixer.value_dim) * scored + expanding
    return min(inside, outside)
