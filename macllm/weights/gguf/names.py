"""Under which names llama.cpp holds a model's tensors: one table for all architectures, and what few do otherwise."""

import re
from collections.abc import Mapping

import macllm.weights.gguf.architectures  # noqa: F401 - enters them
from macllm.families.names import Table, fused
from macllm.spec import Attention, Layer, ModelSpec
from macllm.spec.names import Decay, Entry, Names, Reshaped, Stack
from macllm.weights.gguf.header import Tensor
from macllm.weights.gguf.layouts import QKV
from macllm.weights.gguf.registry import ARCHITECTURES
from macllm.weights.names import Naming

_OUTER = {
    "embed": "token_embd",
    "positions": "position_embd",
    "embed_norm": "token_embd_norm",
    "norm": "output_norm",
    "head": "output",
}
# by key, less "layers.{i}.", the module of a block
_MODULES = {
    "mixer_norm": "attn_norm",
    "mixer_post_norm": "post_attention_norm",
    "channel_norm": "ffn_norm",
    "channel_post_norm": "post_ffw_norm",
    "mixer.q": "attn_q",
    "mixer.k": "attn_k",
    "mixer.v": "attn_v",
    "mixer.o": "attn_output",
    "mixer.q_norm": "attn_q_norm",
    "mixer.k_norm": "attn_k_norm",
    "mixer.sinks": "attn_sinks.weight",
    "mixer.q_down": "attn_q_a",
    "mixer.q_up": "attn_q_b",
    "mixer.kv_down": "attn_kv_a_mqa",
    "mixer.kv_norm": "attn_kv_a_norm",
    "mixer.out_norm": "attn_sub_norm",
    "mixer.in": "ssm_in",
    "mixer.conv": "ssm_conv1d",
    "mixer.x": "ssm_x",
    "mixer.dt": "ssm_dt",
    "mixer.dt_bias": "ssm_dt.bias",
    "mixer.dt_norm": "ssm_dt_norm",
    "mixer.b_norm": "ssm_b_norm",
    "mixer.c_norm": "ssm_c_norm",
    "mixer.D": "ssm_d",
    "mixer.norm": "ssm_norm",
    "mixer.out": "ssm_out",
    "mixer.output": "ssm_out",
    "mixer.z": "attn_gate",
    "channel.gate": "ffn_gate",
    "channel.up": "ffn_up",
    "channel.down": "ffn_down",
    "channel.down_norm": "ffn_sub_norm",
    "channel.router": "ffn_gate_inp",
    "channel.correction": "exp_probs_b.bias",
    "channel.shared_gate": "ffn_gate_inp_shexp",
    "channel.latent_down": "ffn_latent_down",
    "channel.latent_up": "ffn_latent_up",
    **{f"channel.shared.{name}": f"ffn_{name}_shexp" for name in ("gate", "up", "down")},
}
_SHARED_GATE = "layers.{i}.channel.shared_gate"
# the scaling that the config carries, a table of frequencies in old files, what fills a gap in RWKV's first layer
_IGNORED = (
    r"rope_(freqs|factors_(long|short))\.weight",
    r"blk\.\d+\.attn_rot_embd.*",
    r"blk\.0\.time_mix_v[012]\.weight",
)
_FURTHER = re.compile(r"blk\.(\d+)\.nextn\..*")  # of a layer that predicts further tokens


def gguf_naming(spec: ModelSpec, architecture: str, tensors: Mapping[str, Tensor] | None = None) -> Naming:
    """The names in a file whose ``general.architecture`` is ``architecture``.

    With the file's ``tensors`` the ways that it holds them in; without, those that llama.cpp's converter writes.
    """
    table = _general() | ARCHITECTURES[architecture].layout(spec)
    if tensors is not None and any(
        len(tensor.shape) == 1
        for name, tensor in tensors.items()
        if name.endswith("ffn_gate_inp_shexp.weight")
    ):
        table[_SHARED_GATE] = (Entry("blk.{i}.ffn_gate_inp_shexp", (Reshaped((spec.dim,)),)),)  # old files
    further = {match[1] for match in map(_FURTHER.fullmatch, tensors or ()) if match is not None}
    ignored = [*_IGNORED, *(rf"blk\.{layer}\..*" for layer in further)]
    if shared := "|".join(str(index) for index, layer in enumerate(spec.layers) if _shares(layer)):
        ignored.append(
            rf"blk\.({shared})\.attn_[kv](_norm)?\.(weight|bias)"
        )  # written for layers without keys too
    if spec.tied:
        ignored.append(r"output\.weight")  # a tied head may be stored a second time
    return Naming(spec, Names(tuple(table.items()), tuple(ignored)), "hub", tensors)


def _shares(layer: Layer) -> bool:
    return any(isinstance(mixer, Attention) and mixer.source is not None for mixer in layer.mixers)


def _general() -> Table:
    table: Table = {key: (Entry(stored),) for key, stored in _OUTER.items()}
    table |= {f"layers.{{i}}.{key}": (Entry(f"blk.{{i}}.{stored}"),) for key, stored in _MODULES.items()}
    for key, entries in fused("blk.{i}.attn_qkv", *QKV).items():  # the converter can be asked for it
        table[key] += entries
    table["layers.{i}.mixer.A_log"] = (Entry("blk.{i}.ssm_a", (Decay(),)),)
    return table | _experts()


def _experts() -> Table:
    """One stack for each projection; gate and up as one if asked for; in old files one matrix an expert."""
    gate, up, down = (f"layers.{{i}}.channel.experts.{name}" for name in ("gate", "up", "down"))
    joined = fused("blk.{i}.ffn_gate_up_exps", gate, up)
    return {
        key: (
            Entry(f"blk.{{i}}.ffn_{name}_exps"),
            *joined.get(key, ()),
            Entry(f"blk.{{i}}.ffn_{name}.{{e}}", (Stack(),)),
        )
        for key, name in ((gate, "gate"), (up, "up"), (down, "down"))
    }
