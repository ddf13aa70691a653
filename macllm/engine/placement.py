"""Decides, before anything is read, how a model's weights lie in memory and whether they fit."""

from dataclasses import dataclass, replace

from macllm import sizes
from macllm.backend import Backend, check_fits
from macllm.fit import CONTEXT_AT_LOAD
from macllm.nn.stored import DTYPES
from macllm.spec import ModelSpec
from macllm.weights.checkpoint import Checkpoint
from macllm.weights.names import Naming
from macllm.weights.parameters import CPU_DENSE_ROWS, Placement

EXPAND_SHARE = 0.5  # of the memory limit that expanded weights may take on CPU


@dataclass(frozen=True)
class Plan:
    """The placement and the bytes it comes to."""

    placement: Placement
    weight_bytes: int
    needed_bytes: int


def plan(
    spec: ModelSpec, checkpoint: Checkpoint, naming: Naming, backend: Backend, kv_bits: int | None = None
) -> Plan:
    """The fastest placement that fits.

    On CPU dense float32 beats packed weights in prefill and in decoding (a packed product runs on one core),
    so packed weights are expanded where half the memory holds them. On a GPU they stay packed: reading fewer
    bytes is what decoding is about. A GGUF's blocks that are to be kept stay as they are on both. Raises
    MemoryLimitError where nothing fits.
    """
    dtype = DTYPES[backend.dtype]
    expanded = spec.parameters * dtype.size
    fits = expanded <= EXPAND_SHARE * backend.memory_limit_bytes
    expand = backend.name == "cpu" and fits and not checkpoint.keeps_blocks
    dense_rows = CPU_DENSE_ROWS if backend.name == "cpu" else None
    weights = expanded if expand else _as_stored(spec, checkpoint, naming, dtype.size)
    context = min(CONTEXT_AT_LOAD, spec.max_context)
    needed = sizes.working_bytes(spec, weights, context, dtype.size, kv_bits=kv_bits)
    check_fits(needed, f"{checkpoint.label} with a context of {context} tokens", backend)
    return Plan(Placement(dtype, expand, None if expand else dense_rows), weights, needed)


def compute_backend(backend: Backend, spec: ModelSpec | None, half: str | None, forced: bool) -> Backend:
    """The backend with the type that this model is computed in.

    ``half`` is the 16-bit type its weights come in (None: neither), ``forced`` says that the user chose the type.
    A GPU computes in that type where the chip is as fast: float16 scales lose precision in bfloat16. Families
    whose activations overflow float16 get bfloat16; of those that mlx-lm runs nothing is known, so they keep
    the type they come in.
    """
    if forced or backend.name == "cpu":
        return backend
    if spec is None:
        return replace(backend, dtype=half or backend.dtype)
    if spec.needs_bfloat16_range:
        return replace(backend, dtype="bfloat16")
    return replace(backend, dtype="float16") if half == "float16" else backend


def _as_stored(spec: ModelSpec, checkpoint: Checkpoint, naming: Naming, value_bytes: int) -> int:
    """Bytes of the weights where packed ones stay packed; plain ones are held in the compute type."""
    matrices = {tensor.name for tensor in spec.tensors() if tensor.quantizable}
    present = set(checkpoint.names())
    total = 0
    for relation in naming.relations():
        plain = sum(tensor.size for tensor in relation.canonical) * value_bytes
        if relation.canonical[0].name in matrices and present.issuperset(relation.stored):
            total += min(sum(map(checkpoint.nbytes, relation.stored)), plain)
        else:
            total += plain
    return total
