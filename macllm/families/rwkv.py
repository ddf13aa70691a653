"""RWKV-7."""

from macllm.families.blocks import model
from macllm.families.config import Config
from macllm.families.names import Table, either, renamed
from macllm.families.registry import family
from macllm.spec import ChannelMix, Layer, LowRank, ModelSpec, Norm, TimeMix
from macllm.spec.names import Entry, Reshaped
from macllm.spec.rwkv import MIXED

_LAYER = "model.layers.{i}."
_MIXER = "layers.{i}.mixer."
_ATTENTION = f"{_LAYER}attn."
_NETWORKS = {"decay": "w", "rate": "a", "blend": "v", "gate": "g"}
_LETTERS = {"receptance": "r", "decay": "w", "key": "k", "value": "v", "rate": "a", "gate": "g"}
_NAMES = renamed(
    {
        "embed": "model.embeddings",
        "embed_norm": "model.layers.0.pre_norm",
        "layers.{i}.mixer_norm": f"{_LAYER}attn_norm",
        "layers.{i}.channel_norm": f"{_LAYER}ffn_norm",
        "layers.{i}.channel.mix": f"{_LAYER}ffn.x_k",
        "layers.{i}.channel.key": f"{_LAYER}ffn.key",
        "layers.{i}.channel.value": f"{_LAYER}ffn.value",
        **{
            f"{_MIXER}{name}": f"{_ATTENTION}{name[0]}_proj"
            for name in ("receptance", "key", "value", "output")
        },
        **{f"{_MIXER}{name}_down": f"{_ATTENTION}{letter}_lora.lora.0" for name, letter in _NETWORKS.items()},
        **{f"{_MIXER}{name}_up": f"{_ATTENTION}{letter}_lora.lora.2" for name, letter in _NETWORKS.items()},
    }
)


@family("rwkv7")
def rwkv7(c: Config) -> ModelSpec:
    """RWKV-7 (Peng et al. 2025, arXiv 2503.14456), as fla's checkpoints have it."""
    dim, head_dim, count = c.integer("hidden_size"), c.integer("head_dim", 64), c.integer("num_hidden_layers")
    if dim % head_dim:
        raise c.unsupported("head_dim", head_dim, f"a divisor of hidden_size={dim}")
    _read(c, dim, count)
    norm = Norm("layer", c.number("norm_eps", 1e-5), bias=True)
    by_head = Norm("layer", norm.eps * head_dim, bias=True)
    decay, rate = c.integer("decay_low_rank_dim"), c.integer("a_low_rank_dim")
    blend, gate = c.integer("v_low_rank_dim"), c.integer("gate_low_rank_dim")
    channel = ChannelMix(dim, c.integer("intermediate_size", int(c.number("hidden_ratio", 4.0) * dim)))
    layers = [
        Layer(
            TimeMix(dim, head_dim, LowRank(decay, rate, blend if index else None, gate), by_head),
            channel,
            norm=norm,
        )
        for index in range(count)
    ]
    return model(
        c,
        layers,
        embed_norm=norm,
        table=_NAMES | _vectors(dim, head_dim),
        max_context=c.integer("max_position_embeddings", 2048),
    )


def _read(c: Config, dim: int, count: int) -> None:
    c.only("hidden_act", ["sqrelu"], "sqrelu")
    for key in ("norm_first", "norm_bias"):
        c.only(key, [True], True)
    c.only("attn", [None])
    c.only("value_dim", [dim, [dim] * count], dim)
    for key in (
        "num_heads",
        "attn_mode",
        "fuse_norm",
        "fuse_cross_entropy",
        "fuse_linear_cross_entropy",
        "use_l2warp",
    ):
        c.get(key)  # heads are as wide as `head_dim` says; the rest is how training computes the same


def _vectors(dim: int, head_dim: int) -> Table:
    """Vectors, which are stored in several shapes."""
    by_head = (Reshaped((dim // head_dim, head_dim)),)
    flat = {"key_scale": "k_k", "rate_scale": "k_a", "norm": "g_norm"}
    hub = renamed({f"{_MIXER}{name}": f"{_ATTENTION}{stored}" for name, stored in flat.items()})
    mlx: Table = {key: (Entry(entry.stored, by_head),) for key, (entry,) in hub.items()}
    table = either(hub, mlx) | {f"{_MIXER}bonus": (Entry(f"{_ATTENTION}r_k", by_head),)}
    mixes = {name: Entry(f"{_ATTENTION}x_{_LETTERS[name]}", (Reshaped((1, 1, dim)),)) for name in MIXED}
    return table | {f"{_MIXER}mix_{name}": (entry,) for name, entry in mixes.items()}
