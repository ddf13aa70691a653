"""gpt-oss."""

from dataclasses import replace

from macllm.families.blocks import attention, layer_kinds, model, moe, rms_norm
from macllm.families.config import Config
from macllm.families.names import Table, renamed
from macllm.families.registry import family
from macllm.spec import Layer, ModelSpec
from macllm.spec.names import Entry, Operation, Rows, Transposed

_CONTEXT = 4096  # before YaRN
_YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": _CONTEXT,
}
_KEYS = "layers.{i}.channel.experts."
_EXPERTS = "model.layers.{i}.mlp.experts."


@family("gpt_oss")
def gpt_oss(c: Config) -> ModelSpec:
    """gpt-oss (arXiv 2508.10925): clamped experts with biases, sinks, alternate windows."""
    c.where_missing(
        num_key_value_heads=8, head_dim=64, sliding_window=128, rope_theta=150_000.0, rope_parameters=_YARN
    )
    c.only("swiglu_alpha", [1.702], 1.702)
    c.only("swiglu_limit", [7.0], 7.0)
    for key in ("initial_context_length", "experts_per_token"):
        c.get(key)  # said again in rope_scaling and num_experts_per_tok
    bias = c.flag("attention_bias", True)
    full = replace(attention(c, bias=bias, out_bias=bias), sinks=True)
    sliding = replace(full, window=c.integer("sliding_window"))
    experts = moe(
        c,
        experts_key="num_local_experts",
        hidden_key="intermediate_size",
        score="softmax_chosen",
        router_bias=True,
        bias=True,
    )
    experts = replace(experts, activation="clamped_swiglu")
    count = c.integer("num_hidden_layers")
    kinds = layer_kinds(c, ["full_attention" if i % 2 else "sliding_attention" for i in range(count)])
    norm = rms_norm(c, default=1e-5)
    layers = [Layer(sliding if kind == "sliding_attention" else full, experts, norm=norm) for kind in kinds]
    return model(c, layers, table=_names(experts.hidden))


def _names(hidden: int) -> Table:
    """Rows of gate and up in turns; on the hub whole and transposed, or in MXFP4 (blocks and their scales)."""
    pair = (f"{_KEYS}gate", f"{_KEYS}up")
    turns = Rows(groups=hidden)

    def hub(keys: tuple[str, ...], stored: str, *operations: Operation) -> Entry:
        return Entry(f"{_EXPERTS}{stored}", operations, "hub", keys)

    def apart(key: str) -> Entry:
        return Entry(f"{_EXPERTS}{key.removeprefix(_KEYS).replace('.', '_proj.')}", form="mlx")

    table = renamed({"layers.{i}.channel.router": "model.layers.{i}.mlp.router"})
    weights, biases = tuple(f"{key}.weight" for key in pair), tuple(f"{key}.bias" for key in pair)
    for key in weights:
        plain = hub(weights, "gate_up_proj", Transposed(), turns)
        table[key] = (plain, hub(weights, "gate_up_proj_blocks", turns), apart(key))
    for key in biases:
        table[key] = (hub(biases, "gate_up_proj_bias", turns), apart(key))
    down = f"{_KEYS}down"
    table[f"{down}.weight"] = (
        hub((), "down_proj", Transposed()), hub((), "down_proj_blocks"), apart(f"{down}.weight")
    )  # fmt: skip
    table[f"{down}.bias"] = (hub((), "down_proj_bias"), apart(f"{down}.bias"))
    return table
