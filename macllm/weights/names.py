"""Names of tensors in checkpoints, and what was done to each: one table an origin, every operation invertible.

A model's tensors have canonical names (``macllm.spec``). A :class:`Naming` says, for each of them, under which
name a checkpoint of one origin (Hugging Face folder, GGUF file) holds it and which operation lies between, so
that weights come in and adapters and exports go back out by the same table.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import mlx.core as mx

from macllm.errors import CheckpointError
from macllm.nn.stored import Dense, Stored
from macllm.spec import Attention, ModelSpec

_LAYER = re.compile(r"^layers\.(\d+)\.")


class Operation(Protocol):
    """What lies between a stored tensor and the canonical one."""

    def load(self, tensor: Stored) -> Stored:
        """Stored to canonical."""

    def store(self, tensor: Stored) -> Stored:
        """Canonical to stored: the inverse."""


@dataclass(frozen=True)
class Same:
    """Stored as it is."""

    def load(self, tensor: Stored) -> Stored:
        return tensor

    def store(self, tensor: Stored) -> Stored:
        return tensor


@dataclass(frozen=True)
class Offset:
    """Stored less ``amount`` (Gemma's norms: ``weight - 1``)."""

    amount: float

    def load(self, tensor: Stored) -> Stored:
        return Dense(_dense(tensor).astype(mx.float32) + self.amount)

    def store(self, tensor: Stored) -> Stored:
        return Dense(_dense(tensor).astype(mx.float32) - self.amount)


@dataclass(frozen=True)
class InterleavedHeads:
    """Rows of each head stored in pairs (0, d/2, 1, d/2 + 1, ...): q and k of llama GGUFs.

    llama.cpp rotates neighbours where Hugging Face rotates halves; its converter reorders the rows for that.
    """

    heads: int

    def load(self, tensor: Stored) -> Stored:
        return tensor.rows(self._order(tensor.shape[0], stored=True))

    def store(self, tensor: Stored) -> Stored:
        return tensor.rows(self._order(tensor.shape[0], stored=False))

    def _order(self, rows: int, *, stored: bool) -> mx.array:
        width = rows // self.heads
        pairs = (width // 2, 2) if stored else (2, width // 2)
        return mx.arange(rows).reshape(self.heads, *pairs).swapaxes(1, 2).reshape(-1)


def _dense(tensor: Stored) -> mx.array:
    if isinstance(tensor, Dense):
        return tensor.array
    raise CheckpointError(
        "a norm's weight is stored quantized; convert the model again with norms in 16 bits"
    )


@dataclass(frozen=True)
class Naming:
    """One origin's names: a table of modules with ``{i}`` for the layer, and operations by canonical tensor."""

    modules: Mapping[str, str]  # canonical module -> stored module
    operation: Callable[[str], Operation]  # by canonical tensor name
    ignored: tuple[str, ...] = field(default=())  # stored tensors that hold nothing the model needs (regexes)

    def stored(self, canonical: str) -> str:
        """The stored name of a canonical tensor, ``layers.3.mixer.q.weight`` say."""
        module, _, kind = canonical.rpartition(".")
        match = _LAYER.match(module)
        if match is None:
            return f"{self.modules[module]}.{kind}"
        template = self.modules[_LAYER.sub("layers.{i}.", module)]
        return f"{template.replace('{i}', match[1])}.{kind}"

    def unexpected(self, spec: ModelSpec, stored: Iterable[str]) -> list[str]:
        """Stored tensors that the model does not use and that are not known to be superfluous."""
        known = {self.stored(tensor.name) for tensor in spec.tensors()}
        ignored = re.compile("|".join(self.ignored) or r"(?!)")
        return [name for name in stored if name not in known and not ignored.fullmatch(name)]


def hugging_face(spec: ModelSpec) -> Naming:
    """Names as transformers and mlx-lm write them."""
    modules = {
        "embed": "model.embed_tokens",
        "norm": "model.norm",
        "head": "lm_head",
        "layers.{i}.channel.gate": "model.layers.{i}.mlp.gate_proj",
        "layers.{i}.channel.up": "model.layers.{i}.mlp.up_proj",
        "layers.{i}.channel.down": "model.layers.{i}.mlp.down_proj",
        "layers.{i}.mixer_norm": "model.layers.{i}.input_layernorm",
        "layers.{i}.mixer.q_norm": "model.layers.{i}.self_attn.q_norm",
        "layers.{i}.mixer.k_norm": "model.layers.{i}.self_attn.k_norm",
    }
    modules |= {f"layers.{{i}}.mixer.{name}": f"model.layers.{{i}}.self_attn.{name}_proj" for name in "qkvo"}
    if spec.layers[0].placement == "sandwich":
        modules["layers.{i}.mixer_post_norm"] = "model.layers.{i}.post_attention_layernorm"
        modules["layers.{i}.channel_norm"] = "model.layers.{i}.pre_feedforward_layernorm"
        modules["layers.{i}.channel_post_norm"] = "model.layers.{i}.post_feedforward_layernorm"
    else:
        modules["layers.{i}.channel_norm"] = "model.layers.{i}.post_attention_layernorm"

    def operation(name: str) -> Operation:
        return Offset(spec.norm_offset) if spec.norm_offset and name.endswith("norm.weight") else Same()

    ignored = [r".*\.rotary_emb\.inv_freq"]
    if spec.tied:  # some checkpoints store the shared matrix twice
        ignored.append(r"lm_head\.(weight|scales|biases)")
    return Naming(modules, operation, tuple(ignored))


def gguf(spec: ModelSpec, architecture: str) -> Naming:
    """Names as llama.cpp writes them; ``architecture`` is the file's ``general.architecture``."""
    modules = {
        "embed": "token_embd",
        "norm": "output_norm",
        "head": "output",
        "layers.{i}.mixer.q": "blk.{i}.attn_q",
        "layers.{i}.mixer.k": "blk.{i}.attn_k",
        "layers.{i}.mixer.v": "blk.{i}.attn_v",
        "layers.{i}.mixer.o": "blk.{i}.attn_output",
        "layers.{i}.mixer.q_norm": "blk.{i}.attn_q_norm",
        "layers.{i}.mixer.k_norm": "blk.{i}.attn_k_norm",
        "layers.{i}.mixer_norm": "blk.{i}.attn_norm",
        "layers.{i}.mixer_post_norm": "blk.{i}.post_attention_norm",
        "layers.{i}.channel_norm": "blk.{i}.ffn_norm",
        "layers.{i}.channel_post_norm": "blk.{i}.post_ffw_norm",
        "layers.{i}.channel.gate": "blk.{i}.ffn_gate",
        "layers.{i}.channel.up": "blk.{i}.ffn_up",
        "layers.{i}.channel.down": "blk.{i}.ffn_down",
    }

    def operation(name: str) -> Operation:
        match = _LAYER.match(name)
        if architecture != "llama" or match is None:
            return Same()
        mixer: Attention = spec.layers[int(match[1])].mixer
        if ".mixer.q." in name:
            return InterleavedHeads(mixer.heads)
        return InterleavedHeads(mixer.kv_heads) if ".mixer.k." in name else Same()

    # rope_freqs holds the scaling that the config carries; a tied head may be stored a second time
    ignored = (r"rope_freqs\.weight", r"output\.weight") if spec.tied else (r"rope_freqs\.weight",)
    return Naming(modules, operation, ignored)
