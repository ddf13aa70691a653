"""How many tokens a second a model can at most make on each chip, by how its weights are held."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from macllm.kernels.chips import CHIPS, Chip
from macllm.kernels.cost import Cost, Formats, Setting, kv_packing, prefill, step
from macllm.quantization import Quantization
from macllm.spec import MLP, Attention, ModelSpec, TensorSpec

STORED = "stored"  # the weights as they are
Q4_K_M = "q4_k_m"
CHOICES: Mapping[str, Quantization] = {
    "8": Quantization(8, 64),
    "4": Quantization(4, 64),
    "nf4": Quantization(4, 64, "nf4"),
}


@dataclass(frozen=True)
class Choice:
    """One way to hold the weights, and what a token costs then at least."""

    name: str
    formats: Formats
    token: Cost
    token_by_mlx: Cost  # with nothing but MLX's own kernels

    @property
    def bits_per_weight(self) -> float:
        """Of the matrices in the layers and the head, as far as a token is multiplied by them."""
        work = self.token.layers + self.token.head
        return 8 * work.read_bytes / (work.operations / 2)


@dataclass(frozen=True)
class Bound:
    """The most tokens a second on one chip: in decoding by choice, in a prompt where its TFLOPS are known."""

    chip: Chip
    decode_tps: Mapping[str, float]
    prefill_tps: float | None


@dataclass(frozen=True)
class Roofline:
    """Bounds at ``context`` tokens: those of one more token, and of a prompt of that length as the weights are."""

    context: int
    choices: tuple[Choice, ...]
    bounds: tuple[Bound, ...]


def roofline(spec: ModelSpec, stored: Formats, context: int, kv_bits: int | None = None) -> Roofline:
    """The bounds of all chips, with the weights as ``stored`` and as they might be; keys and values in ``kv_bits``."""
    formats = {STORED: stored} | {name: quantized(spec, packing) for name, packing in CHOICES.items()}
    mix = q4_k_m(spec)
    if mix is not None:
        formats[Q4_K_M] = mix
    kv = kv_packing(kv_bits)
    choices = tuple(_choice(spec, name, each, context, kv) for name, each in formats.items())
    prompt = prefill(spec, stored, context, setting=Setting(kv=kv))
    return Roofline(context, choices, tuple(_bounds(choices, prompt)))


def quantized(spec: ModelSpec, packing: Quantization) -> Formats:
    """Every matrix in one format, as far as it fits."""
    return {
        tensor.name: packing if tensor.shape[-1] % packing.group_size == 0 else None
        for tensor in spec.tensors()
        if tensor.quantizable
    }


def q4_k_m(spec: ModelSpec) -> Formats | None:
    """The mix of GGUF blocks that llama.cpp calls so, of a dense model whose q, k and v lie apart; of
    others it is another (None for experts and recurrences).

    Values and the last projection have more bits in the first and last eighth of the layers and in every third
    between, the head has them too; rows that are no whole blocks of 256 take the next blocks of 32.
    """
    dense = all(
        isinstance(layer.mixer, Attention) and isinstance(layer.channel, MLP) for layer in spec.layers
    )
    if not dense:
        return None
    return {tensor.name: _in_q4_k_m(spec, tensor) for tensor in spec.tensors() if tensor.quantizable}


def _in_q4_k_m(spec: ModelSpec, tensor: TensorSpec) -> Quantization | None:
    head = tensor.name == ("embed.weight" if spec.tied else "head.weight")
    sensitive = tensor.name.endswith((".mixer.v.weight", ".channel.down.weight"))
    more = head or (sensitive and _more_bits(int(tensor.name.split(".")[1]), len(spec.layers)))
    if tensor.shape[-1] % 256 == 0:
        return Quantization.of_blocks("q6_k" if more else "q4_k")
    return Quantization.of_blocks("q8_0" if more else "q5_0") if tensor.shape[-1] % 32 == 0 else None


def _more_bits(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _choice(spec: ModelSpec, name: str, formats: Formats, context: int, kv: Quantization | None) -> Choice:
    token = step(spec, formats, context, setting=Setting(kv=kv))
    return Choice(name, formats, token, step(spec, formats, context, setting=Setting(kv=kv, way="mlx")))


def _bounds(choices: tuple[Choice, ...], prompt: Cost) -> Iterator[Bound]:
    for chip in CHIPS:
        decode = {choice.name: choice.token.tokens_per_s(chip.bandwidth_gb_s) for choice in choices}
        whole = prompt.tokens_per_s(chip.bandwidth_gb_s, chip.tflops) if chip.tflops is not None else None
        yield Bound(chip, decode, whole)
