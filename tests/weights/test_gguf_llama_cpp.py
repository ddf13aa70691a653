"""GGUF files against llama.cpp itself: every family, what its readers take as given, and every type of weights."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import llama_cpp_peer as peer
import mlx.core as mx
import numpy as np
import pytest
from gguf_converter import Conversion, architecture, tensors_of
from gguf_export import export
from gguf_maker import tokenizer_keys
from gguf_variants import NOT_RUN, converted_variants, gguf_config
from test_starter_quality import negative_log_likelihood, real_text
from tiny import difference, read_config, write_original

import macllm
from macllm.nn import activations
from macllm.weights.gguf_file import GGUFFile

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def llama_cpp() -> None:
    peer.require_llama_cpp()


COUNT = 48  # tokens: six windows of the tiny models

# name -> (variant of the tiny models, what differs from its config)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    name: (name, {}) for name in converted_variants() if name not in NOT_RUN
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
MODELS["llama3-as-released"] = (
    "llama3-rope",
    {"rope_theta": 1e4, "head_dim": 16, "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 8192}},
)
MODELS["deepseek-v2-lite-as-released"] = ("deepseek-v2-lite", {"num_hidden_layers": 27})
# llama.cpp knows that of so many layers some slide
MODELS["exaone4-32b"] = ("exaone4-pattern", {"head_dim": 8, "num_hidden_layers": 64})
# Of Gemma 3n it knows no other sizes of these, and of the first 20 layers that all have keys.
GEMMA3N = {
    "hidden_size_per_layer_input": 256,
    "laurel_rank": 64,
    "final_logit_softcapping": 30.0,
    "intermediate_size": 8192,
    "layer_types": None,
}
for layers, shared in ((11, 0), (24, 4)):
    sparsity = {"activation_sparsity_pattern": [0.95] * 10 + [0.0] * (layers - 10)}
    counts = {"num_hidden_layers": layers, "num_kv_shared_layers": shared}
    MODELS[f"gemma3n-of-{layers}-layers"] = ("gemma3n-four-streams", GEMMA3N | sparsity | counts)
MODELS["gemma3-27b"] = ("gemma3", {"num_hidden_layers": 62, "query_pre_attn_scalar": 48 // 6})


class Tiny:
    """A tiny model of transformers, and GGUF files of it."""

    def __init__(self, folder: Path, variant: str, changes: Mapping[str, Any]) -> None:
        config = gguf_config(variant) | changes
        self.architecture = architecture(config)
        self._tokenizer = tokenizer_keys(self.architecture)
        size = len(self._tokenizer["tokenizer.ggml.tokens"])
        sizes = [key for key in config if key.startswith("vocab_size")]
        self.config = config | dict.fromkeys(["vocab_size", *sizes], size)
        self.folder = folder
        self._original = write_original(self.config, folder / "original")
        self.ids = np.random.default_rng(0).integers(0, size, COUNT).tolist()

    def gguf(self, **keys: Any) -> Path:
        """The model as a file; ``keys`` of its architecture are changed, or removed where None."""
        path = self.folder / f"{self.architecture}.gguf"
        named = {f"{self.architecture}.{key}": value for key, value in keys.items()}
        config, tensors = read_config(self.folder / "original"), tensors_of(self.folder / "original")
        conversion = Conversion(config, unused_keys(config, tensors) | tensors)
        return conversion.write(path, self._tokenizer | named)

    def exported(self) -> Path:
        """The model as a file of our own making."""
        return export(self.config, self.folder / "original", self.folder / "exported.gguf", self._tokenizer)

    def original_logits(self) -> np.ndarray:
        return self._original.logits([self.ids])[0]


def unused_keys(config: Mapping[str, Any], tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What released models hold for layers that see the keys of others, and llama.cpp wants of Gemma 3n."""
    if config["model_type"] != "gemma3n_text":
        return {}
    layers = config["num_hidden_layers"]
    names = [f"self_attn.{name}.weight" for name in ("k_proj", "v_proj", "k_norm")]
    return {
        f"model.layers.{layer}.{name}": np.zeros_like(tensors[f"model.layers.0.{name}"])
        for layer in range(layers - config["num_kv_shared_layers"], layers)
        for name in names
    }


GAPS = ("rwkv7", "gemma3n")  # llama.cpp wants tensors that no model has
# A function of 16 bits, of which numbers near the edge of one take the next.
GELU = ("gemma", "gpt2", "gpt-neox", "bloom", "mpt", "falcon", "starcoder", "phi-")


def near(name: str) -> float:
    """How far llama.cpp may be off."""
    if name.startswith("gemma3n"):
        return 1e-2  # it divides the variance of N activations by N - 1: of 8192, 3e-3 after 24 layers
    if name.startswith(("deepseek", "kimi", "qwen3-next", "qwen3-5")):
        return 1e-3  # sums of experts' weights, or the lengths of keys, have a floor there
    return 1e-3 if name.startswith(GELU) and not name.startswith(("falcon-mamba", "falcon-h1")) else 2e-5


def rounded_gelu(x: mx.array) -> mx.array:
    """llama.cpp's: a table of 16 bits in and out."""
    table = activations.gelu_tanh(x.astype(mx.float16).astype(mx.float32)).astype(mx.float16)
    return mx.where(x <= -10, 0, mx.where(x >= 10, x, table.astype(mx.float32)))


@pytest.fixture
def llama_cpp_gelu(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets models that are loaded from then on round as llama.cpp does."""

    def rounding() -> None:
        for name in ("gelu", "gelu_tanh"):
            monkeypatch.setitem(activations._FUNCTIONS, name, rounded_gelu)
        monkeypatch.delitem(activations._BY_POWER, "gelu_tanh")

    return rounding


@pytest.mark.parametrize("name", MODELS)
def test_every_family_agrees_with_llama_cpp_and_transformers(
    name: str, tmp_path: Path, llama_cpp_gelu: Callable[[], None]
) -> None:
    tiny = Tiny(tmp_path, *MODELS[name])
    path, original = tiny.gguf(), tiny.original_logits()
    ours, theirs = macllm.load(path).logits(tiny.ids), peer.logits(path, tiny.ids, tmp_path)
    print(f"{name}: macllm {difference(ours, original):.0e}, llama.cpp {difference(theirs, original):.0e}")
    assert difference(ours, original) < 5e-5  # 27 layers with YaRN: 3e-5, as from the original files
    llama_cpp_gelu()
    ours = macllm.load(path).logits(tiny.ids)
    print(f"    with its GELU {difference(ours, theirs):.0e}")
    assert difference(ours, theirs) < near(name)
    if not name.startswith(GAPS):
        exported = peer.logits(tiny.exported(), tiny.ids, tmp_path)
        assert difference(exported, theirs) < near(name)


# Keys that files have or lack: (variant, keys, whether they change what the model computes).
KEYS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "old linear scaling": ("llama", {"rope.scale_linear": 2.0}, True),
    "a factor alone is linear": ("llama", {"rope.scaling.factor": 2.0}, True),
    "a factor of no scaling": ("llama", {"rope.scaling.factor": 2.0, "rope.scaling.type": "none"}, False),
    "one entry a layer": ("llama", {"attention.head_count_kv": [2, 2, 2]}, False),
    "no key-value heads": ("llama-multi-head", {"attention.head_count_kv": None}, False),
    "no vocabulary size": ("llama", {"vocab_size": None}, False),
    "yarn of the context": ("qwen2-yarn", {"rope.scaling.original_context_length": None}, True),
    "a pattern by number": ("gemma3", {"attention.sliding_window_pattern": 2}, True),
    "a pattern by layer": ("gemma3", {"attention.sliding_window_pattern": [False] + [True] * 6}, True),
    "no window": ("gemma3", {"attention.sliding_window": None}, True),
    "a window of nothing": ("gemma3", {"attention.sliding_window": 0}, True),
    "a base of the window": ("gemma3", {"rope.freq_base_swa": 500.0}, True),
    "no base": ("gemma3", {"rope.freq_base": None}, True),
}  # fmt: skip


@pytest.mark.parametrize("name", KEYS)
def test_keys_mean_what_llama_cpp_takes_them_for(name: str, tmp_path: Path) -> None:
    variant, keys, matters = KEYS[name]
    tiny = Tiny(tmp_path, variant, {})
    plain = macllm.load(tiny.gguf()).logits(tiny.ids)
    path = tiny.gguf(**keys)
    ours, theirs = macllm.load(path).logits(tiny.ids), peer.logits(path, tiny.ids, tmp_path)
    print(f"{name}: {difference(ours, theirs):.0e}, without it {difference(ours, plain):.0e}")
    assert difference(ours, theirs) < near(variant)
    assert (difference(ours, plain) > 1e-2) == matters


# Types of whole files. Those that need statistics of a text to quantize with are not here.
TYPES = (
    "F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K_M Q4_K_M Q5_K_M Q6_K IQ3_S IQ4_NL IQ4_XS TQ1_0 TQ2_0"
).split()
# Rows of 256 weights and more: of shorter ones llama.cpp makes other types.
WIDE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("wide"), "llama", WIDE)


def compare_type(tiny: Tiny, type_name: str, scratch: Path) -> None:
    """A file requantized by llama.cpp, read by macllm, against the same file undone to float32 by llama.cpp.

    On the quantized file itself llama.cpp rounds the activations to 8 bits as well, which macllm does not.
    """
    file = peer.quantize(tiny.gguf(), scratch / f"{type_name}.gguf", type_name)
    assert any(tensor.type_name in type_name for tensor in GGUFFile.open(file).tensors.values())
    undone = peer.quantize(file, scratch / "undone.gguf", "F32")
    ours, theirs = macllm.load(file).logits(tiny.ids), peer.logits(undone, tiny.ids, scratch)
    print(f"{tiny.architecture} {type_name}: {difference(ours, theirs):.0e}")
    assert difference(ours, theirs) < max(near(tiny.architecture), 1e-4)


@pytest.mark.parametrize("type_name", TYPES)
def test_every_type_holds_what_llama_cpp_wrote(type_name: str, wide: Tiny, tmp_path: Path) -> None:
    compare_type(wide, type_name, tmp_path)


@pytest.mark.parametrize("variant", ["qwen2", "qwen3", "gemma3"])
def test_quantized_files_of_the_other_architectures(variant: str, tmp_path: Path) -> None:
    compare_type(Tiny(tmp_path, variant, WIDE), "Q4_K_M", tmp_path)


@pytest.mark.starter
@pytest.mark.parametrize("type_name", ["Q4_K_M", "Q6_K", "Q5_0", "Q8_0", "IQ4_NL"])
def test_the_starter_in_other_types(type_name: str, starter_gguf: Path, tmp_path: Path) -> None:
    file = peer.quantize(starter_gguf, tmp_path / f"{type_name}.gguf", type_name)
    undone = peer.quantize(file, tmp_path / "undone.gguf", "F32")
    llm = macllm.load(file)
    ids = llm.tokenizer.encode(real_text())[:200]
    assert len(ids) == 200
    ours = llm.logits(ids)
    exact, direct = (peer.logits(path, ids, tmp_path) for path in (undone, file))
    undone.unlink()  # half a gigabyte
    agreement = float((ours.argmax(-1) == direct.argmax(-1)).mean())
    of_direct = perplexity(ours, ids) / perplexity(direct, ids)
    print(
        f"{type_name}: {difference(ours, exact):.0e}; 8-bit activations {of_direct - 1:+.2%}, top {agreement:.1%}"
    )
    assert difference(ours, exact) < 1e-4
    assert perplexity(ours, ids) == pytest.approx(perplexity(exact, ids), rel=1e-4)
    assert of_direct == pytest.approx(1, abs=0.02)  # what rounded activations come to over so few tokens
    assert agreement >= 0.95


def perplexity(logits: np.ndarray, ids: list[int]) -> float:
    return float(np.exp(negative_log_likelihood(logits, ids).mean()))
