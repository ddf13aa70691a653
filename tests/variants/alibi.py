"""BLOOM, MPT and Falcon."""

from typing import Any

BLOOM = {
    "model_type": "bloom",
    "vocab_size": 99,
    "n_embed": 48,
    "n_layer": 3,
    "num_attention_heads": 8,
    "n_inner": None,
    "layer_norm_epsilon": 1e-4,
    "offset_alibi": 100,
    "skip_bias_add": True,
}
JUNK = {
    "init_config": {"fan_mode": "fan_in", "init_std": 0.02, "name": "kaiming_normal_"},
    "init_device": "cpu",
    "verbose": 0,
    "tokenizer_name": "EleutherAI/gpt-neox-20b",
}
MPT_ATTENTION = {"alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0, "clip_qkv": None}
MPT = {
    **JUNK,
    "model_type": "mpt",
    "vocab_size": 99,
    "d_model": 48,
    "n_layers": 3,
    "n_heads": 8,
    "expansion_ratio": 4,
    "max_seq_len": 512,
    "no_bias": True,
    "learned_pos_emb": True,
    "attn_config": MPT_ATTENTION,
}
FALCON = {
    "model_type": "falcon",
    "vocab_size": 99,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "layer_norm_epsilon": 1e-4,
    "max_position_embeddings": 512,
}
FALCON_RW = {**FALCON, "alibi": True, "multi_query": False, "parallel_attn": False, "bias": True}
FALCON_NEW = {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "multi_query": True}

VARIANTS: dict[str, Any] = {
    "bloom": BLOOM,
    "bloom-odd-heads": {**BLOOM, "num_attention_heads": 12},
    "bloom-one-head-untied": {**BLOOM, "num_attention_heads": 1, "tie_word_embeddings": False},
    "mpt": MPT,
    "mpt-odd-heads": {**MPT, "n_heads": 6},
    "mpt-clipped": {**MPT, "attn_config": {**MPT_ATTENTION, "clip_qkv": 0.8, "softmax_scale": 0.5}},
    "mpt-no-attention-keys": {key: value for key, value in MPT.items() if key != "attn_config"},
    "falcon": FALCON,
    "falcon-rw": FALCON_RW,
    "falcon-rw-rotary": {**FALCON_RW, "alibi": False, "bias": False, "tie_word_embeddings": False},
    "falcon-multi-query-sequential": {**FALCON, "parallel_attn": False, "bias": True, "rope_theta": 500.0},
    "falcon-alibi-multi-query": {**FALCON, "alibi": True, "bias": True, "num_attention_heads": 3},
    "falcon-new": FALCON_NEW,
    "falcon-new-one-norm": {
        **FALCON_NEW,
        "num_ln_in_parallel_attn": 1,
        "rope_theta": 5000042.0,
        "rope_scaling": None,
        "ffn_hidden_size": 100,
    },
    "falcon-new-alibi": {**FALCON_NEW, "alibi": True, "bias": True, "num_kv_heads": 3},
}
BEYOND_MLX_LM = dict.fromkeys(VARIANTS, "no class")
