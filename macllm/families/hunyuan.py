"""Hunyuan V1, dense."""

from macllm.families.blocks import attention, mlp, model, rms_norm
from macllm.families.config import Config
from macllm.families.names import renamed
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec, QKNorm, Rope

# What Tencent's configs carry for their other models: images, experts, compressed attention.
_ELSEWHERE = """
    attention_head_dim cla_share_factor class_num dense_list enable_lm_head_fp32 eod_token_id im_end_id
    im_newline_id im_start_id image_token_id mask_init_id org_vocab_size pad_id pool_type pretraining_tp
    text_end_id text_start_id video_end_id video_start_id
""".split()
_NAMES = renamed(
    {
        "layers.{i}.mixer.q_norm": "model.layers.{i}.self_attn.query_layernorm",
        "layers.{i}.mixer.k_norm": "model.layers.{i}.self_attn.key_layernorm",
    }
)


@family("hunyuan_v1_dense")
def hunyuan_v1_dense(c: Config) -> ModelSpec:
    """Hunyuan V1, dense: Llama with RMSNorm on each head of q and k after they are turned."""
    for key in _ELSEWHERE:
        c.get(key)
    for key, value in (("use_qk_norm", True), ("use_rotary_pos_emb", True), ("norm_type", "rms")):
        c.only(key, [value], value)
    bias, norm = c.flag("attention_bias"), rms_norm(c, default=1e-5)
    mixer = attention(c, bias=bias, out_bias=bias, qk_norm=QKNorm(norm, after_rope=True), rope=alpha_rope(c))
    return model(c, [Layer(mixer, mlp(c), norm=norm)] * c.integer("num_hidden_layers"), table=_NAMES)


def alpha_rope(c: Config) -> Rope:
    """The config's rope; where its scaling has an ``alpha``, NTK-aware: a longer base, whatever the context.

    The type is called "dynamic" there, and the scaling's other keys have no effect.
    """
    dims = c.integer("head_dim", c.integer("hidden_size") // c.integer("num_attention_heads"), low=4)
    key = "rope_parameters" if c.mapping("rope_parameters") else "rope_scaling"
    scaling = Config(c.mapping(key), c.family, f"{c.where}: {key}")
    if scaling.get("rope_type", scaling.get("type")) != "dynamic" or scaling.get("alpha") is None:
        return c.rope(dims, base=c.number("rope_theta", 10_000.0))
    base = scaling.number(
        "rope_theta", c.get("rope_theta")
    )  # never guessed: conversions would write the longer one
    return Rope(dims, base * scaling.number("alpha") ** (dims / (dims - 2)))
