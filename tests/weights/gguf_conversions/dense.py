"""Dense models of the Llama kind, and what is converted as Llama."""

from statistics import NormalDist

import numpy as np
from gguf import MODEL_ARCH as ARCH
from gguf_converter import Conversion, converts

MIXTRAL_EXPERTS = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


@converts(ARCH.LLAMA, "llama", "mistral", "mixtral", "internlm3")
@converts(ARCH.SMOLLM3, "smollm3")
@converts(ARCH.ARCEE, "arcee")
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


@converts(ARCH.MISTRAL3, "ministral3")
def mistral3(m: Conversion) -> None:
    llama(m)
    m.keys["rope.scaling.yarn_log_multiplier"] = float(m.rope["mscale_all_dim"])
    m.keys["attention.temperature_scale"] = m.rope["llama_4_scaling_beta"]


@converts(ARCH.GRANITE, "granite")
@converts(ARCH.GRANITE_MOE, "granitemoe")
def granite(m: Conversion) -> None:
    llama(m)
    for key in ("attention.key_length", "attention.value_length"):
        m.keys.pop(key, None)
    constants(m)
    split_pairs(m, "block_sparse_moe.input_linear", "ffn_{}_exps")


def constants(m: Conversion) -> None:
    """muP's multipliers under names of their own."""
    words = {
        "attention.scale": "attention_multiplier",
        "embedding_scale": "embedding_multiplier",
        "residual_scale": "residual_multiplier",
        "logit_scale": "logits_scaling",
    }
    m.keys |= {key: float(m.config[word]) for key, word in words.items() if m.config.get(word)}


def split_pairs(m: Conversion, stored: str, named: str) -> None:
    """Gate and up that lie above each other as tensors of their own."""
    for layer in range(m.layers):
        for name in m.named_like(f"layers.{layer}.{stored}.weight"):
            gate, up = np.split(m.tensors.pop(name), 2, axis=-2)
            for word, half in (("gate", gate), ("up", up)):
                m.named[f"blk.{layer}.{named.format(word)}.weight"] = half


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


@converts(ARCH.COMMAND_R, "cohere")
@converts(ARCH.COHERE2, "cohere2")
def cohere(m: Conversion) -> None:
    m.keys |= {"logit_scale": m.config["logit_scale"], "rope.scaling.type": "none"}
    if m.config["model_type"] == "cohere2":
        m.keys |= {
            "vocab_size": m.config["vocab_size"],
            "attention.sliding_window": m.config["sliding_window"],
            "rope.dimension_count": m.head_dim,
        }


@converts(ARCH.CHATGLM, "glm")
@converts(ARCH.GLM4, "glm4")
def glm4(m: Conversion) -> None:
    m.keys["rope.dimension_count"] = int(m.head_dim * m.rope.get("partial_rotary_factor", 0.5))


@converts(ARCH.PHI3, "phi3")
@converts(ARCH.PHIMOE, "phimoe")
def phi3(m: Conversion) -> None:
    c = m.config
    context = m.rope.get("original_max_position_embeddings") or m.find(
        "original_max_position_embeddings", "max_position_embeddings"
    )
    m.keys |= {
        "rope.scaling.original_context_length": context,
        "rope.dimension_count": int(m.rope.get("partial_rotary_factor", 1.0) * m.head_dim),
        "attention.sliding_window": c.get("sliding_window") or 0,
    }
    m.keys.pop("rope.scaling.type", None)  # two tables say it
    for length in ("long", "short"):
        factors = m.rope.get(f"{length}_factor")
        if factors is not None:
            m.named[f"rope_factors_{length}.weight"] = np.array(factors)
            stretch = c["max_position_embeddings"] / context
            m.keys["rope.scaling.attn_factor"] = float(np.sqrt(1 + np.log(stretch) / np.log(context)))
    m.stack_experts("block_sparse_moe.experts", MIXTRAL_EXPERTS)


@converts(ARCH.GEMMA3N, "gemma3n_text")
def gemma3n(m: Conversion) -> None:
    """Norms are as they are; the projections around the layers are stacks."""
    c = m.config
    m.keys |= {
        "attention.sliding_window": c["sliding_window"],
        "attention.sliding_window_pattern": m.sliding_pattern(),
        "attention.shared_kv_layers": c["num_kv_shared_layers"],
        "final_logit_softcapping": c["final_logit_softcapping"],
        "altup.active_idx": c["altup_active_idx"],
        "altup.num_inputs": c["altup_num_inputs"],
        "embedding_length_per_layer_input": c["hidden_size_per_layer_input"],
        "activation_sparsity_scale": [
            NormalDist().inv_cdf(share) if share else float("-inf")
            for share in c["activation_sparsity_pattern"]
        ],
    }
    m.rename("correct_output_scale", "correct_output_scale.weight")
    for name, values in m.tensors.items():
        if "embed_tokens" in name:
            m.tensors[name] = np.pad(values, ((0, max(0, c["vocab_size"] - len(values))), (0, 0)))
    for word in ("altup_projections", "altup_unembed_projections"):
        count = c["altup_num_inputs"] - 1
        parts = [m.tensors.pop(f"model.{word}.{index}.weight") for index in range(count)]
        m.tensors[f"model.{word}.weight"] = np.stack(parts)


@converts(ARCH.GEMMA4, "gemma4_text")
def gemma4(m: Conversion) -> None:
    """What transformers says layer by layer is of two kinds of layers."""
    c, sliding = m.config, m.sliding_pattern()
    full = c["per_layer_config"][str(sliding.index(False))]
    width, kv_heads = full["head_dim"], full.get("num_key_value_heads", m.kv_heads)
    shared, hidden = c["num_kv_shared_layers"], c["intermediate_size"]
    m.keys |= {
        "attention.sliding_window": c["sliding_window"],
        "attention.sliding_window_pattern": sliding,
        "attention.shared_kv_layers": shared,
        "attention.key_length": width,
        "attention.value_length": width,
        "attention.key_length_swa": c["head_dim"],
        "attention.value_length_swa": c["head_dim"],
        "attention.head_count_kv": [m.kv_heads if slides else kv_heads for slides in sliding],
        "rope.dimension_count": width,
        "rope.dimension_count_swa": c["head_dim"],
        "embedding_length_per_layer_input": c["hidden_size_per_layer_input"] or 0,
    }
    if c["final_logit_softcapping"]:
        m.keys["final_logit_softcapping"] = c["final_logit_softcapping"]
    if c["enable_moe_block"]:
        m.keys |= {
            "expert_used_count": c["top_k_experts"],
            "expert_feed_forward_length": c["moe_intermediate_size"],
        }
    else:
        m.keys.pop("expert_count", None)
    if c["use_double_wide_mlp"]:
        wide = [hidden * (1 + (index >= m.layers - shared)) for index in range(m.layers)]
        m.keys["feed_forward_length"] = wide
    turning = int(width * m.rope["partial_rotary_factor"] / 2)
    m.named["rope_freqs.weight"] = np.array([1.0] * turning + [1e30] * (width // 2 - turning))
    for layer in range(m.layers):
        moved = {"router.scale": "ffn_gate_inp.scale", "router.per_expert_scale": "ffn_down_exps.scale"}
        for name, scale in moved.items():
            values = m.tensors.pop(f"model.layers.{layer}.{name}", None)
            if values is not None:
                m.named[f"blk.{layer}.{scale}"] = values
    m.rename("layer_scalar", "layer_scalar.weight")
    m.rename("experts.gate_up_proj", "experts.gate_up_proj.weight")
    m.rename("experts.down_proj", "experts.down_proj.weight")
