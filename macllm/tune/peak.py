"""The peak of memory of a training step, from the spec and the settings alone: what is alive, part by part. No MLX.

Measured on CPU in float32 (``make bench``, ``finetune-memory``). For Metal derived: 16-bit activations, packed weights
multiplied as they are, activations and attention as one kernel each, chunks of 512 logits.
"""

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property

from macllm.adapters.learnable import ALL, attention, first_layer, fully_learned, layer_of, matrices
from macllm.sizes import held_bytes
from macllm.spec import ModelSpec, TensorSpec
from macllm.tune.activations import Learning, layer_values
from macllm.tune.settings import Value

EXPAND_SHARE = 0.5  # of the limit that weights of packed files may take expanded on CPU
_WIDE = 4  # bytes of float32: adapters, gradients, averages
_CHUNK, _CPU_LOGITS, _FEWEST_ROWS = 512, 6 * 2**20, 16  # as macllm.tune.loss has them
_LOGITS_COPIES = 3.2  # logits of a chunk, their softmax, and its parts on the way
# Of the gradients while the optimizer moves: as they are, and some as steps. With packed averages one parameter is
# moved after the other into an array of its own, PART values at a time with so many float32 copies.
_UPDATE_COPIES, _PART_COPIES = 1.3, 7
_DORA_COPIES = 3  # of a matrix in float32 while the lengths of its rows are computed
_BLOCK_COPIES = 5  # of the scores of a block of queries in the backward pass
_PREFILL, _CACHE_STEP = 256, 256  # tokens: as macllm.tune.rollout and macllm.nn.kv_cache have them
BLOCK, PART = 256, 2**22  # values of an 8-bit average that share a scale, and that are unpacked at once
_STATE_BYTES = {"adamw": 8, "adam": 8, "lion": 4, "sgd": 4, "muon": 4, "adafactor": 0}  # a value that learns


@dataclass(frozen=True)
class Device:
    """Where it is computed: ``value_bytes`` of an activation; ``fused`` kernels and packed products, as GPUs have."""

    fused: bool
    value_bytes: int

    @classmethod
    def here(cls) -> "Device":
        """This machine's usual one: a Mac's GPU in 16 bits, else a CPU in float32."""
        return METAL if platform.system() == "Darwin" and platform.machine() == "arm64" else CPU

    @classmethod
    def of(cls, backend: str, dtype: str) -> "Device":
        """That of :class:`macllm.backend.Backend`'s names."""
        return cls(backend != "cpu", 4 if dtype == "float32" else 2)

    @property
    def query_block(self) -> int:
        """Queries whose scores exist at once; 0 where none do."""
        return 0 if self.fused else 128


CPU, METAL = Device(False, 4), Device(True, 2)


@dataclass(frozen=True)
class Rows:
    """What goes through the model at once: ``count`` rows of ``length`` tokens, and no longer ``document`` in them.

    ``drawn``: how many of a row's tokens the model writes itself before it learns from them.
    """

    count: int
    length: int
    document: int
    drawn: int = 0

    @property
    def tokens(self) -> int:
        return self.count * self.length


@dataclass(frozen=True)
class Peak:
    """Bytes alive at the peak, by what they are for."""

    weights: int
    learned: int  # adapters and the optimizer's averages
    working: int  # gradients, activations, logits

    @property
    def total(self) -> int:
        return self.weights + self.learned + self.working


class Run:
    """What a run of these settings on a base of this spec keeps in memory."""

    def __init__(
        self, spec: ModelSpec, weights: int, packed: bool, settings: Mapping[str, Value], device: Device
    ) -> None:
        """``weights``: their bytes in memory, ``packed``: whether their matrices lie there quantized."""
        self._spec, self._weights, self._packed = spec, weights, packed
        self._settings, self._device = settings, device

    def peak(self, rows: Rows) -> Peak:
        """At the worst moment of a step: where answers are drawn, in some layer's backward pass, at the loss, or at the
        update.
        """
        learned = self._learned_values
        adapters = 0 if self._full else learned * _WIDE
        moments = max(self.drawing(rows), self._backward(rows), self._at_loss(rows), self._update())
        held = learned * _WIDE if int(self._settings["grad_accumulation_steps"]) > 1 else 0
        return Peak(self._weights, adapters + self._averages, moments + held)

    # -- what learns -------------------------------------------------------------------------------------

    @property
    def _full(self) -> bool:
        return self._settings["method"] == "full"

    @cached_property
    def _learning(self) -> tuple[TensorSpec, ...]:
        """The tensors that learn, or have an adapter."""
        layers = int(self._settings["num_layers"])
        if self._full:
            wanted = fully_learned(self._spec, layers)
            return tuple(tensor for tensor in self._spec.tensors() if tensor.name in wanted)
        return adapted(self._spec, str(self._settings["targets"]), layers)

    def _values(self, tensor: TensorSpec) -> int:
        if self._full:
            return tensor.size
        *count, outputs, inputs = tensor.shape
        rank = int(self._settings["rank"])
        lengths = outputs if self._settings["method"] == "dora" else 0
        return math.prod(count) * (rank * (outputs + inputs) + lengths)

    @cached_property
    def _learned_values(self) -> int:
        return sum(map(self._values, self._learning))

    @cached_property
    def _averages(self) -> int:
        """Bytes of what the optimizer remembers."""
        name = str(self._settings["optimizer"])
        each = float(_STATE_BYTES[name])
        if name == "adafactor":  # a row and a column of each matrix
            return sum(sum(tensor.shape[-2:]) * _WIDE for tensor in self._learning)
        if self._bits == 8:
            each = each / _WIDE * (1 + _WIDE / BLOCK)
        return int(each * self._learned_values)

    # -- the moments -------------------------------------------------------------------------------------

    def drawing(self, rows: Rows) -> int:
        """Beside the weights while answers are drawn: all rows' caches, and the prompts' pass or a token's logits."""
        if not rows.drawn:
            return 0
        spec, value = self._spec, self._device.value_bytes
        caches = rows.count * held_bytes(spec, -(-rows.length // _CACHE_STEP) * _CACHE_STEP, value)
        prompts = replace(rows, length=min(_PREFILL, rows.length - rows.drawn))
        logits = int(_LOGITS_COPIES * rows.count * spec.vocab * _WIDE)
        return caches + max(forward_bytes(spec, prompts, self._device), logits)

    def _backward(self, rows: Rows) -> int:
        """The largest sum of what is kept so far, the gradients so far, and the inside of the layer gone through."""
        value, checkpoint = self._device.value_bytes, bool(self._settings["grad_checkpoint"])
        boundary = rows.tokens * self._spec.dim * value
        gradients = [0] * len(self._spec.layers)
        outside = 0
        for tensor in self._learning:
            layer = layer_of(tensor.name)
            if layer is None:
                outside += self._values(tensor) * _WIDE
            else:
                gradients[layer] += self._values(tensor) * _WIDE
        first = min((layer for layer, found in enumerate(gradients) if found), default=len(gradients))
        kept = 3 * boundary  # normalized states, those with a target, and their gradients
        alive = []
        for index in range(first, len(gradients)):
            inside = self._inside(index, rows)
            kept += boundary + (0 if checkpoint else inside[0])
            alive.append((kept, inside[1] + (inside[0] if checkpoint else 0)))
        most, so_far = 0, outside
        for index in reversed(range(first, len(gradients))):
            so_far += gradients[index]
            below, inside_now = alive[index - first]
            most = max(most, below + inside_now + so_far)
        return most

    def _inside(self, index: int, rows: Rows) -> tuple[int, int]:
        """Bytes of a layer's inside that its backward pass needs, and what that has in memory beside them."""
        spec, value = self._spec, self._device.value_bytes
        layer = spec.layers[index]
        found = layer_values(layer, spec.dim, self._of_layer(index))
        kept, backward = rows.tokens * found.kept * value, rows.tokens * found.backward * value
        heads = max((getattr(mixer, "heads", 0) for mixer in layer.mixers), default=0)
        block = min(self._device.query_block, rows.document)
        scores = _BLOCK_COPIES * heads * block * rows.document * _WIDE
        backward = max(backward, scores)
        matrices = [tensor.size for tensor in layer.tensors("", spec.dim) if tensor.quantizable]
        if self._packed and not self._device.fused:
            kept += sum(matrices) * value  # expanded, for the gradient of their input
        if self._settings["method"] == "dora":
            backward += _DORA_COPIES * max(matrices, default=0) * _WIDE
        return int(kept), int(backward)

    def _of_layer(self, index: int) -> Learning:
        prefix = f"layers.{index}."
        names = [tensor.name for tensor in self._learning if tensor.name.startswith(prefix)]
        return Learning(
            targets={name.removeprefix(prefix).removesuffix(".weight") for name in names},
            rank=0 if self._full else int(self._settings["rank"]),
            rows=2 if self._settings["method"] == "dora" else 0,
            dropout=float(self._settings["dropout"]) > 0 and not self._full,
            fused=self._device.fused,
            copies=0
            if self._full or self._device.value_bytes == _WIDE
            else _WIDE // self._device.value_bytes,
        )

    def _at_loss(self, rows: Rows) -> int:
        """All that is kept of the layers, and a chunk of logits; of a head that learns, its gradient too."""
        spec, value = self._spec, self._device.value_bytes
        checkpoint = bool(self._settings["grad_checkpoint"])
        boundary = rows.tokens * spec.dim * value
        learning = {layer_of(tensor.name) for tensor in self._learning} - {None}
        inside = sum(self._inside(index, rows)[0] for index in learning if index is not None)
        first = first_layer(spec, int(self._settings["num_layers"]))
        kept = 4 * boundary + (len(spec.layers) - first) * boundary + (0 if checkpoint else inside)
        chunk = _CHUNK if self._device.fused else max(_FEWEST_ROWS, min(_CHUNK, _CPU_LOGITS // spec.vocab))
        of_two = 2 if self._settings["objective"] == "distill" else 1  # the teacher's too
        logits = int(of_two * _LOGITS_COPIES * min(chunk, rows.tokens) * spec.vocab * _WIDE)
        head = 0
        if any(tensor.name in ("head.weight", "embed.weight") for tensor in self._learning):
            head = 3 * spec.vocab * spec.dim * _WIDE  # its sum, that of a chunk, and the next sum
        return kept + logits + head

    def _update(self) -> int:
        if self._bits == 32:
            return int(_UPDATE_COPIES * self._learned_values * _WIDE)
        largest = max(map(self._values, self._learning))
        if self._settings["optimizer"] == "muon":  # which moves a matrix as a whole
            return (self._learned_values + _PART_COPIES * largest) * _WIDE
        at_once = min(largest, PART)
        return (self._learned_values + (largest if largest > PART else 0) + _PART_COPIES * at_once) * _WIDE

    @property
    def _bits(self) -> int:
        return int(self._settings["optimizer_bits"])


def forward_bytes(spec: ModelSpec, rows: Rows, device: Device) -> int:
    """What a pass that nothing is learned from has in memory beside the weights."""
    widest = max(max(layer.working_values) for layer in spec.layers) + 4 * spec.dim
    return rows.tokens * widest * device.value_bytes


def adapted(spec: ModelSpec, targets: str, num_layers: int) -> tuple[TensorSpec, ...]:
    """About what :func:`macllm.adapters.targets.select` selects, without the names that files have.

    ``q_proj`` is taken for ``q``; of a name that is known in files alone every matrix is taken.
    """
    first = first_layer(spec, num_layers)
    inside = [
        tensor
        for tensor in matrices(spec)
        if tensor.kind != "router" and (layer := layer_of(tensor.name)) is not None and layer >= first
    ]
    whole = {"attention": attention(spec), "mlp": ("*.channel.*",)}
    patterns = [one.strip().removesuffix("_proj") for one in targets.split(",") if one.strip()]
    found: set[str] = set()
    for pattern in patterns:
        ends = whole.get(pattern, (pattern, f"*.{pattern}"))
        named = {one.name for one in inside if any(_matches(one.name, end) for end in ends)}
        if pattern == ALL or not named:
            return tuple(inside)
        found |= named
    return tuple(tensor for tensor in inside if tensor.name in found)


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name.removesuffix(".weight"), pattern)


def held_weights(spec: ModelSpec, stored: int, limit: int, device: Device) -> tuple[int, bool]:
    """Bytes of the weights in memory, of ``stored`` in files, and whether matrices stay packed there.

    On CPU they are expanded where half of ``limit`` holds them (as :mod:`macllm.engine.placement` does it).
    """
    plain = spec.parameters * device.value_bytes
    if device.fused:
        return min(stored, plain), stored < plain
    if limit <= 0 or plain <= EXPAND_SHARE * limit:
        return plain, False
    return min(stored, plain), stored < plain
