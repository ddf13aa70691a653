"""How matrices are stored, as data: MLX's quantization modes, macllm's own, and which matrix of a model has which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from macllm.errors import ConfigError

Mode: TypeAlias = Literal[
    "affine", "mxfp4", "mxfp8", "nvfp4", "nf4",
    # GGUF's block types, by llama.cpp's names
    "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs",
]  # fmt: skip

DEFAULTS: Mapping[Mode, tuple[int, int]] = {  # bits, group size
    "affine": (4, 64),
    "mxfp4": (4, 32),
    "mxfp8": (8, 32),
    "nvfp4": (4, 16),
    "nf4": (4, 64),
}
MLX_MODES: frozenset[Mode] = frozenset({"affine", "mxfp4", "mxfp8", "nvfp4"})  # which MLX multiplies itself
NF4_GROUP = 256  # magnitudes, one a group of weights, that share a scale and a mean in float32 (QLoRA)
AFFINE_BITS = (2, 3, 4, 5, 6, 8)
AFFINE_GROUPS = (32, 64, 128)
RECIPES: Mapping[str, tuple[int, int]] = {  # bits of most matrices, bits of the sensitive ones
    "mixed_2_6": (2, 6),
    "mixed_3_4": (3, 4),
    "mixed_3_6": (3, 6),
    "mixed_4_6": (4, 6),
}


@dataclass(frozen=True)
class BlockFormat:
    """A type of GGUF's blocks: so many weights, of codes of so many bits, in so many bytes."""

    weights: int
    nbytes: int
    bits: int
    affine_bits: int | None = None  # of MLX's affine mode, which holds the same codes

    @property
    def repacked(self) -> "Quantization | None":
        """The packing of MLX's that holds the same codes; None where it has none."""
        return Quantization(self.affine_bits, 32) if self.affine_bits is not None else None


BLOCKS: Mapping[Mode, BlockFormat] = {
    "q4_0": BlockFormat(32, 18, 4, 4),
    "q4_1": BlockFormat(32, 20, 4, 4),
    "q5_0": BlockFormat(32, 22, 5, 5),
    "q5_1": BlockFormat(32, 24, 5, 5),
    "q8_0": BlockFormat(32, 34, 8, 8),
    "q2_k": BlockFormat(256, 84, 2),
    "q3_k": BlockFormat(256, 110, 3),
    "q4_k": BlockFormat(256, 144, 4, 4),
    "q5_k": BlockFormat(256, 176, 5, 5),
    "q6_k": BlockFormat(256, 210, 6),
    "iq4_nl": BlockFormat(32, 18, 4),
    "iq4_xs": BlockFormat(256, 136, 4),
}
_SCALE_BYTES = 2  # scales and biases of an affine group are stored in 16 bits


@dataclass(frozen=True)
class Quantization:
    """How a matrix is packed: bits a weight, weights a group (along the input), the mode.

    The groups of a GGUF's blocks are the blocks, and their bits those of the codes alone.
    """

    bits: int
    group_size: int
    mode: Mode = "affine"

    @staticmethod
    def of_blocks(mode: str) -> "Quantization | None":
        """That of a GGUF's block type by its name in small letters; None for a type that only repacks or expands."""
        for known, block in BLOCKS.items():
            if known == mode:
                return Quantization(block.bits, block.weights, known)
        return None

    def __str__(self) -> str:
        if self.block is not None:
            return f"{self.mode.upper()} blocks of {self.group_size}"
        return f"{self.mode} {self.bits}-bit, groups of {self.group_size}"

    @property
    def block(self) -> BlockFormat | None:
        """Where the mode is one of GGUF's blocks, their format."""
        return BLOCKS.get(self.mode)

    def nbytes(self, weights: int, matrices: int = 1) -> int:
        """Stored bytes of equal ``matrices`` that have ``weights`` elements together."""
        groups = weights // self.group_size
        if self.block is not None:
            return groups * self.block.nbytes
        if self.mode == "nf4":
            second = -(-groups // matrices // NF4_GROUP) * matrices
            return weights // 2 + groups + 8 * second
        per_group = 2 * _SCALE_BYTES if self.mode == "affine" else 1  # mx and nv modes: one 8-bit scale
        return weights * self.bits // 8 + groups * per_group

    @property
    def has_biases(self) -> bool:
        """Whether a third array lies beside weight and scales."""
        return self.mode in ("affine", "nf4")

    def biases_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of that array for a matrix or a stack of ``shape``."""
        *lead, outputs, inputs = shape
        if self.mode == "nf4":
            return (*lead, -(-outputs * (inputs // self.group_size) // NF4_GROUP), 2)
        return (*lead, outputs, inputs // self.group_size)

    @staticmethod
    def parse(values: Mapping[str, Any], where: str) -> "Quantization":
        """From a ``quantization`` entry of a config. Raises ConfigError naming ``where`` and the value."""
        mode = values.get("mode", "affine")
        if mode not in DEFAULTS:
            raise ConfigError(f"{where}: mode={mode!r} is not supported (expected {' or '.join(DEFAULTS)})")
        bits, group_size = DEFAULTS[mode]
        parsed = Quantization(values.get("bits", bits), values.get("group_size", group_size), mode)
        return parsed.checked(where)

    def checked(self, where: str) -> "Quantization":
        """Itself, or ConfigError where MLX has no such packing."""
        if self.mode == "affine":
            if self.bits not in AFFINE_BITS:
                expected = ", ".join(map(str, AFFINE_BITS))
                raise ConfigError(f"{where}: bits={self.bits!r} is not supported (expected {expected})")
            if self.group_size not in AFFINE_GROUPS:
                expected = ", ".join(map(str, AFFINE_GROUPS))
                raise ConfigError(
                    f"{where}: group_size={self.group_size!r} is not supported (expected {expected})"
                )
        elif (self.bits, self.group_size) != DEFAULTS[self.mode]:
            bits, group = DEFAULTS[self.mode]
            raise ConfigError(
                f"{where}: mode {self.mode!r} has {bits} bits and groups of {group}, nothing else"
            )
        return self


TERNARY = Quantization(2, 128)  # in which ternary matrices are held


@dataclass(frozen=True)
class Ternary:
    """BitNet b1.58 (arXiv 2402.17764): matrices of -1, 0 and 1 times one number, inputs rounded to 8 bits a token.

    ``packed``: four weights to a byte; else they are plain and are to be rounded. ``inverted``: the stored number
    divides.
    """

    packed: bool
    inverted: bool

    @staticmethod
    def parse(values: Mapping[str, Any], where: str) -> "Ternary":
        """From transformers' entry. Raises ConfigError naming ``where``, the key and the value."""
        linear = values.get("linear_class", "bitlinear")
        mode = values.get("quantization_mode", "offline")
        plain = values.get("modules_to_not_convert") or ["lm_head"]
        supported = {
            "linear_class": linear in ("bitlinear", "autobitlinear"),
            "quantization_mode": mode in ("offline", "online"),
            "use_rms_norm": not values.get("use_rms_norm"),
            "modules_to_not_convert": plain == ["lm_head"],
        }
        for key, fine in supported.items():
            if not fine:
                raise ConfigError(
                    f"{where}: {key}={values.get(key)!r} is not supported for 'bitnet' weights; "
                    "use the model's MLX, GGUF or 16-bit version"
                )
        return Ternary(linear == "bitlinear" or mode == "offline", linear == "bitlinear")


@dataclass(frozen=True)
class QuantizationPlan:
    """Which matrix is stored how: a default, and exceptions by module name (None: not quantized); or ternary.

    ``experts``: how those are stored where all else is plain, as blocks beside their scales (gpt-oss as published).
    """

    default: Quantization | None = None
    exceptions: Mapping[str, Quantization | None] = field(default_factory=dict)
    ternary: Ternary | None = None
    experts: Quantization | None = None

    def of(self, module: str) -> Quantization | None:
        if self.experts is not None:
            return self.experts if ".experts." in module else None
        return self.exceptions.get(module, self.default)

    @staticmethod
    def from_config(config: Mapping[str, Any], where: str = "config.json") -> "QuantizationPlan":
        """From the ``quantization`` of a config as mlx-lm writes it; module names as in the checkpoint.

        Raises ConfigError for another tool's quantization, by name, instead of misreading its weights.
        """
        entry = config.get("quantization") or config.get("quantization_config")
        if not entry:
            return QuantizationPlan()
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{where}: quantization={entry!r} is not a mapping; download the config again")
        if entry.get("quant_method") == "bitnet":
            return QuantizationPlan(ternary=Ternary.parse(entry, f"{where}: quantization_config"))
        if entry.get("quant_method") == "mxfp4":
            return QuantizationPlan(experts=Quantization(4, 32, "mxfp4"))
        if "quant_method" in entry or "group_size" not in entry:
            raise ConfigError(
                f"{where}: quantization {entry.get('quant_method', 'of an unknown kind')!r} cannot be read; "
                "use the model's MLX, GGUF or 16-bit version"
            )
        exceptions = {
            name: Quantization.parse(value, f"{where}: quantization of {name}") if value else None
            for name, value in entry.items()
            if isinstance(value, Mapping) or value is False
        }
        return QuantizationPlan(Quantization.parse(entry, f"{where}: quantization"), exceptions)

    def to_config(self) -> dict[str, Any]:
        """The ``quantization`` entry that :meth:`from_config` reads, as mlx-lm writes it."""

        def entry(q: Quantization) -> dict[str, Any]:
            return {"group_size": q.group_size, "bits": q.bits, "mode": q.mode}

        result: dict[str, Any] = entry(self.default) if self.default is not None else {}
        for name, q in self.exceptions.items():
            result[name] = entry(q) if q is not None else False
        return result
