"""Dense models of the Llama kind, and what is converted as Llama."""

from gguf import MODEL_ARCH as ARCH
from gguf_converter import Conversion, converts

MIXTRAL_EXPERTS = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


@converts(ARCH.LLAMA, "llama", "mistral", "mixtral")
def llama(m: Conversion) -> None:
    m.keys |= {"vocab_size": m.config["vocab_size"], "rope.dimension_count": m.head_dim}
    m.permute()
    m.stack_experts("block_sparse_moe.experts", MIXTRAL_EXPERTS)


@converts(ARCH.QWEN2, "qwen2")
@converts(ARCH.QWEN3, "qwen3")
@converts(ARCH.ERNIE4_5, "ernie4_5")
@converts(ARCH.SEED_OSS, "seed_oss")
def nothing_more(m: Conversion) -> None:
    pass


@converts(ARCH.SMOLLM3, "smollm3")
def smollm3(m: Conversion) -> None:
    llama(m)


@converts(ARCH.HUNYUAN_DENSE, "hunyuan_v1_dense")
def hunyuan_dense(m: Conversion) -> None:
    rope = m.rope
    if rope.get("rope_type") == "dynamic":
        base = rope["rope_theta"] * rope["alpha"] ** (m.head_dim / (m.head_dim - 2))
        m.keys |= {"rope.freq_base": base, "rope.scaling.type": "none", "rope.scaling.factor": 1.0}


@converts(ARCH.OLMO2, "olmo2", "olmo3")
def olmo2(m: Conversion) -> None:
    if m.find("sliding_window") is not None:
        m.keys["attention.sliding_window"] = m.config["sliding_window"]
        m.keys["attention.sliding_window_pattern"] = m.sliding_pattern()


@converts(ARCH.EXAONE4, "exaone4")
def exaone4(m: Conversion) -> None:
    olmo2(m)


@converts(ARCH.GEMMA, "gemma")
def gemma(m: Conversion) -> None:
    m.keys.pop("rope.freq_base", None)
    m.change("norm.weight", lambda values: values + 1)  # stored as the factor that it is


@converts(ARCH.GEMMA2, "gemma2")
def gemma2(m: Conversion) -> None:
    gemma(m)
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        m.keys[key] = m.config[key]
    m.keys["attention.sliding_window"] = m.config["sliding_window"]


@converts(ARCH.GEMMA3, "gemma3_text")
def gemma3(m: Conversion) -> None:
    """Which layers slide is not written: readers know that of gemma3."""
    m.keys.setdefault("rope.freq_base", 1_000_000.0)
    m.keys["attention.sliding_window"] = m.config["sliding_window"]
    m.change("norm.weight", lambda values: values + 1)
