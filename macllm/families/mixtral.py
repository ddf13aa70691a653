"""Mixtral."""

from dataclasses import replace

from macllm.families.blocks import attention, model, moe, rms_norm
from macllm.families.config import Config
from macllm.families.names import experts, renamed
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec

NAMES = renamed({"layers.{i}.channel.router": "model.layers.{i}.block_sparse_moe.gate"}) | experts(
    "model.layers.{i}.block_sparse_moe.experts.{e}.{name}",
    "model.layers.{i}.block_sparse_moe.switch_mlp.{name}_proj",
    {"gate": "w1", "up": "w3", "down": "w2"},
)


@family("mixtral")
def mixtral(c: Config) -> ModelSpec:
    """Mixtral (Jiang et al. 2024): Mistral with two of eight experts for each token."""
    c.where_missing(num_key_value_heads=8, rope_theta=1_000_000.0)
    c.get("router_jitter_noise")  # training only
    window = c.get("sliding_window")
    mixer = replace(attention(c), window=c.integer("sliding_window") if window is not None else None)
    channel = moe(c, experts_key="num_local_experts", hidden_key="intermediate_size", score="softmax_chosen")
    return model(
        c,
        [Layer(mixer, channel, norm=rms_norm(c, default=1e-5))] * c.integer("num_hidden_layers"),
        table=NAMES,
    )
