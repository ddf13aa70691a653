"""Writes tiny GGUF files for tests, with the library that defines the format: single tensors, whole models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")

# Where a type without a quantizer in the library keeps its float16 scales, and a value that gives its weights a
# deviation near 0.05: (offset in the block, value).
_SCALES: dict[str, Sequence[tuple[int, float]]] = {
    "Q2_K": ((80, 6e-3), (82, 9e-3)),
    "Q3_K": ((108, 1.3e-3),),
    "Q4_K": ((0, 3e-4), (2, 2.3e-3)),
    "Q5_K": ((0, 1.5e-4), (2, 2.3e-3)),
    "Q6_K": ((208, 3.5e-5),),
    "IQ1_S": ((0, 8e-3),),
    "IQ2_XXS": ((0, 1e-3),),
    "IQ2_XS": ((0, 1e-3),),
    "IQ2_S": ((0, 1e-3),),
    "IQ3_XXS": ((0, 1e-3),),
    "IQ3_S": ((0, 4e-4),),
    "IQ4_NL": ((0, 7e-4),),
    "IQ4_XS": ((0, 4e-5),),
}


@dataclass(frozen=True)
class MadeGGUF:
    """A written file and the values (float32, row-major) that each of its tensors stands for."""

    path: Path
    weights: dict[str, np.ndarray] = field(repr=False)


def encode(values: np.ndarray, type_name: str, rng: np.random.Generator) -> np.ndarray:
    """The bytes (rows, row bytes) of a matrix in a type: of these values where the library quantizes the type.

    Of the K- and IQ-types it only reads, random codes with sane scales are made instead.
    """
    kind = Type[type_name]
    try:
        encoded = quantize(np.ascontiguousarray(values, np.float32), kind)
        return encoded.view(np.uint8).reshape(*values.shape[:-1], -1)
    except NotImplementedError:
        elements, nbytes = gguf.GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (values.size // elements, nbytes), dtype=np.uint8)
        for offset, scale in _SCALES.get(type_name, ()):
            scales = (scale * rng.uniform(0.5, 1.5, len(blocks))).astype("<f2")
            blocks[:, offset : offset + 2] = scales.view(np.uint8).reshape(-1, 2)
        if type_name == "IQ1_M":  # its one scale is spread over the top four bits of four 16-bit fields
            bits = (8e-3 * rng.uniform(0.5, 1.5, (len(blocks), 1))).astype("<f2").view("<u2")
            fields = blocks[:, 48:].view("<u2")
            fields[...] = fields & 0x0FFF | (bits >> np.arange(0, 16, 4, dtype="<u2") & 15) << 12
        return blocks.reshape(*values.shape[:-1], -1)


def decode(data: np.ndarray, type_name: str) -> np.ndarray:
    """The values of ``encode``'s bytes, by the library."""
    kind = Type[type_name]
    if type_name in ("F32", "F16"):
        return data.view(np.float32 if type_name == "F32" else np.float16).astype(np.float32)
    with np.errstate(over="ignore"):
        return dequantize(data, kind)


def write_gguf(
    path: Path,
    weights: Mapping[str, np.ndarray],
    types: str | Mapping[str, str] = "F32",
    *,
    arch: str = "llama",
    keys: Mapping[str, Any] | None = None,
    seed: int = 0,
    **writer_options: Any,
) -> MadeGGUF:
    """Writes tensors and metadata. ``types``: one for all matrices, or patterns of names with their types.

    Metadata values: str, bool, int (uint32), float (float32), lists of str, int, bool or float. Further options go
    to ``gguf.GGUFWriter`` (``split_max_tensors`` makes several files).
    """
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, arch, **writer_options)
    for key, value in (keys or {}).items():
        _add(writer, key, value)
    made = {}
    for name, values in weights.items():
        kind = _type_of(name, values, types)
        data = encode(values, kind, rng)
        made[name] = decode(data, kind).reshape(values.shape)
        writer.add_tensor(name, data, raw_dtype=Type[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return MadeGGUF(path, made)


def make_gguf(
    path: Path,
    arch: str = "llama",
    tensor_types: str | Mapping[str, str] = "F32",
    seed: int = 0,
    *,
    layers: int | None = None,
    tied: bool | None = None,
    keys: Mapping[str, Any] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
    **writer_options: Any,
) -> MadeGGUF:
    """A tiny random model of one of ``ARCHITECTURES`` with its tokenizer and chat template.

    Widths are multiples of 256, so that every type fits. ``weights`` takes the place of random ones by name;
    ``keys`` adds metadata or replaces it (None removes a key).
    """
    rng = np.random.default_rng(seed)
    shape = Shape(layers or (7 if arch == "gemma3" else 2))
    tokenizer = tokenizer_keys(arch)
    vocab = len(tokenizer["tokenizer.ggml.tokens"])
    tied = arch == "gemma3" if tied is None else tied
    tensors = {}
    for name, size in shape.tensors(arch, vocab, tied).items():
        around = 1.0 if "norm" in name else 0.0
        tensors[name] = rng.normal(around, 0.05, size).astype(np.float32)
    tensors |= weights or {}
    metadata = shape.keys(arch) | tokenizer | (keys or {})
    metadata = {key: value for key, value in metadata.items() if value is not None}
    return write_gguf(path, tensors, tensor_types, arch=arch, keys=metadata, seed=seed, **writer_options)


def tokenizer_keys(arch: str) -> dict[str, Any]:
    """The metadata of the tiny tokenizer and chat template of an architecture."""
    return _sentencepiece() if arch == "gemma3" else _byte_level("qwen2" if "qwen" in arch else "smollm")


@dataclass(frozen=True)
class Shape:
    """The sizes of the tiny models."""

    layers: int
    dim: int = 256
    hidden: int = 512
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    context: int = 512
    window: int = 32

    def tensors(self, arch: str, vocab: int, tied: bool) -> dict[str, tuple[int, ...]]:
        """Names and row-major shapes, as llama.cpp's converter writes them."""
        sizes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocab, self.dim)}
        for index in range(self.layers):
            block = self._block(arch)
            sizes |= {f"blk.{index}.{name}": size for name, size in block.items()}
        sizes["output_norm.weight"] = (self.dim,)
        return sizes if tied else sizes | {"output.weight": (vocab, self.dim)}

    def _block(self, arch: str) -> dict[str, tuple[int, ...]]:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        block: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (self.dim,),
            "attn_q.weight": (q, self.dim),
            "attn_k.weight": (kv, self.dim),
            "attn_v.weight": (kv, self.dim),
            "attn_output.weight": (self.dim, q),
            "ffn_norm.weight": (self.dim,),
            "ffn_gate.weight": (self.hidden, self.dim),
            "ffn_up.weight": (self.hidden, self.dim),
            "ffn_down.weight": (self.dim, self.hidden),
        }
        if arch == "qwen2":
            block |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
        if arch in ("qwen3", "gemma3"):
            block |= {"attn_q_norm.weight": (self.head_dim,), "attn_k_norm.weight": (self.head_dim,)}
        if arch == "gemma3":
            block |= {"post_attention_norm.weight": (self.dim,), "post_ffw_norm.weight": (self.dim,)}
        return block

    def keys(self, arch: str) -> dict[str, Any]:
        values: dict[str, Any] = {
            "block_count": self.layers,
            "context_length": self.context,
            "embedding_length": self.dim,
            "feed_forward_length": self.hidden,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.layer_norm_rms_epsilon": 1e-6,
            "rope.freq_base": 1_000_000.0 if arch in ("qwen3", "gemma3") else 10_000.0,
        }
        if arch == "llama":
            values["rope.dimension_count"] = self.head_dim
        if arch in ("qwen3", "gemma3"):
            values |= {"attention.key_length": self.head_dim, "attention.value_length": self.head_dim}
        if arch == "gemma3":
            values["attention.sliding_window"] = self.window
        return {f"{arch}.{key}": value for key, value in values.items()}


def _type_of(name: str, values: np.ndarray, types: str | Mapping[str, str]) -> str:
    if isinstance(types, str):
        return types if values.ndim > 1 else "F32"
    return next((kind for pattern, kind in types.items() if fnmatch(name, pattern)), "F32")


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_array(key, value)


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else "
    "message['role'] %}{{ '<start_of_turn>' + role + '\\n' + message['content'] + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


def byte_characters() -> list[str]:
    """GPT-2's printable stand-in for each of the 256 bytes."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    stand_ins = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in stand_ins]
    stand_ins |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    return [stand_ins[byte] for byte in range(256)]


def _byte_level(pre: str) -> dict[str, Any]:
    """Byte-level BPE: control tokens, all bytes, and what a few merges make of them."""
    merges = ["Ġ t", "h e", "i n", "Ġt he", "Ġ a", "e r", "o n", "Ġ Ġ", "l l", "a t"]
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*control, *byte_characters(), *(merge.replace(" ", "") for merge in merges)]
    normal, control_kind = int(gguf.TokenType.NORMAL), int(gguf.TokenType.CONTROL)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [control_kind if token in control else normal for token in tokens],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML,
    }


def _sentencepiece() -> dict[str, Any]:
    """SentencePiece as gemma's files carry it: control tokens, byte tokens, pieces with scores."""
    control = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    data = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    pieces = ["▁t", "he", "in", "▁the", "▁a", "er", "on", "▁▁", "ll", "at", "▁", *letters]
    kinds = gguf.TokenType
    types = [kinds.CONTROL] * len(control) + [kinds.BYTE] * len(data) + [kinds.NORMAL] * len(pieces)
    types[control.index("<unk>")] = kinds.UNKNOWN
    scores = [0.0] * (len(control) + len(data)) + [-float(rank) for rank in range(len(pieces))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [*control, *data, *pieces],
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [int(kind) for kind in types],
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.eot_token_id": 5,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": GEMMA_TEMPLATE,
    }
