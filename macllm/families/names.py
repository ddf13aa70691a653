"""The names most checkpoints have, and the few words in which a family says where its own differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from macllm.spec.names import Entry, Form, Names, Offset, Operation, Rows, Squeezed, Stack, Transposed

Table: TypeAlias = dict[str, tuple[Entry, ...]]

_LAYER = "layers.{i}."
# by key, less "layers.{i}.", the module in a layer of Hugging Face's
_MODULES = {
    "mixer_norm": "input_layernorm",
    "mixer.q_norm": "self_attn.q_norm",
    "mixer.k_norm": "self_attn.k_norm",
    "mixer.sinks": "self_attn.sinks",
    "channel.router": "mlp.gate",
    "channel.correction": "mlp.gate.e_score_correction_bias",
    **{f"mixer.{name}": f"self_attn.{name}_proj" for name in "qkvo"},
    **{f"channel.{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")},
    **{f"channel.shared.{name}": f"mlp.shared_expert.{name}_proj" for name in ("gate", "up", "down")},
    "channel.shared_gate": "mlp.shared_expert_gate",
}
_NORMS = {
    "pre": {"channel_norm": "post_attention_layernorm"},
    "post": {
        "mixer_post_norm": "post_attention_layernorm",
        "channel_post_norm": "post_feedforward_layernorm",
    },
    "sandwich": {
        "mixer_post_norm": "post_attention_layernorm",
        "channel_norm": "pre_feedforward_layernorm",
        "channel_post_norm": "post_feedforward_layernorm",
    },
    "parallel": {},
    "parallel_two": {"channel_norm": "post_attention_layernorm"},
}
_OUTER = {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
_NEVER_USED = (r".*\.rotary_emb\.inv_freq", r".*\.attn\.masked_bias")


def standard(placement: str = "pre", layers: str = "model.layers.{i}.") -> Table:
    """Llama's names, which most families share, for norms placed so; experts as Qwen's."""
    table = {f"{_LAYER}{key}": (Entry(f"{layers}{module}"),) for key, module in _MODULES.items()}
    table |= {f"{_LAYER}{key}": (Entry(f"{layers}{module}"),) for key, module in _NORMS[placement].items()}
    table |= {key: (Entry(stored),) for key, stored in _OUTER.items()}
    return table | experts(
        f"{layers}mlp.experts.{{e}}.{{name}}_proj", f"{layers}mlp.switch_mlp.{{name}}_proj"
    )


def renamed(modules: Mapping[str, str], form: Form | None = None) -> Table:
    """Keys, with or without their layer, stored whole under another name (with ``{i}`` for the layer)."""
    return {key: (Entry(stored, form=form),) for key, stored in modules.items()}


def fused(stored: str, *keys: str, groups: int = 1, before: Sequence[Operation] = ()) -> Table:
    """Keys whose modules are the rows of one stored tensor; ``before`` leads from what is stored to those rows."""
    return dict.fromkeys(keys, (Entry(stored, (*before, Rows(groups)), keys=keys),))


def transposed(table: Table) -> Table:
    """The modules of a table, stored as (I, O)."""
    return {
        key: tuple(replace(entry, operations=(Transposed(), *entry.operations)) for entry in entries)
        for key, entries in table.items()
    }


def prefixed(table: Table, *prefixes: str) -> Table:
    """The modules of a table under one of these prefixes."""
    return {
        key: tuple(replace(entry, stored=prefix + entry.stored) for prefix in prefixes for entry in entries)
        for key, entries in table.items()
    }


def experts(hub: str, mlx: str, names: Mapping[str, str] | None = None) -> Table:
    """Experts stored one by one, as on the hub, or stacked, as by MLX's tools; ``{name}`` is gate, up or down.

    ``names`` are the words for those three that the hub's names use instead.
    """
    words = names or {}
    return {
        f"{_LAYER}channel.experts.{name}": (
            Entry(hub.replace("{name}", words.get(name, name)), (Stack(),), form="hub"),
            Entry(mlx.replace("{name}", name), form="mlx"),
        )
        for name in ("gate", "up", "down")
    }


def whole_experts(
    path: str,
    *,
    kind: str = "weight",
    suffix: str = "",
    groups: int = 1,
    before: Sequence[Operation] = (Transposed(),),
) -> Table:
    """Experts stored as a stack of gate and up together and one of down, under names of no ``kind``.

    ``groups`` as in :func:`fused`: as many as gate has rows where they take turns.
    """
    gate, up, down = (f"{_LAYER}channel.experts.{name}.{kind}" for name in ("gate", "up", "down"))
    last = (Entry(f"{path}.down_proj{suffix}", tuple(before)),)
    return fused(f"{path}.gate_up_proj{suffix}", gate, up, groups=groups, before=before) | {down: last}


def stacked_experts(path: str, kind: str = "weight") -> Table:
    """Experts stored as three stacks, as by MLX's tools, in place of :func:`whole_experts`."""
    return {
        f"{_LAYER}channel.experts.{name}.{kind}": (Entry(f"{path}.{name}_proj.{kind}"),)
        for name in ("gate", "up", "down")
    }


def alternatives(*tables: Table) -> Table:
    """Modules that may be stored in one way or another."""
    keys = dict.fromkeys(key for table in tables for key in table)
    return {key: tuple(entry for table in tables for entry in table.get(key, ())) for key in keys}


def convolutions(modules: Mapping[str, str]) -> Table:
    """Keys of depthwise convolutions: kernels (C, 1, K) on the hub, as torch has them, (C, K, 1) by MLX's tools."""
    return {
        key: (Entry(stored, (Squeezed(1),), form="hub"), Entry(stored, (Squeezed(2),), form="mlx"))
        for key, stored in modules.items()
    }


def either(hub: Table, mlx: Table) -> Table:
    """Modules that the hub and MLX's tools keep differently."""
    marked: Table = {}
    for form, table in (("hub", hub), ("mlx", mlx)):
        for key, entries in table.items():
            mine = tuple(replace(entry, form=form) for entry in entries)  # type: ignore[arg-type]
            marked[key] = (*marked.get(key, ()), *mine)
    return marked


def less(table: Table, amount: float, keys: Iterable[str] | None = None, form: Form | None = None) -> Table:
    """The norms of a table (or ``keys``), stored less ``amount``: everywhere, or only in checkpoints of ``form``."""
    norms = [key for key in table if key.endswith("norm")] if keys is None else keys
    changed: Table = {}
    for key in norms:
        offset = tuple(replace(e, operations=(Offset(amount), *e.operations), form=form) for e in table[key])
        changed[key] = offset if form is None else (*offset, *table[key])
    return table | changed


def names(
    table: Table, *, tied: bool = False, ignored: Sequence[str] = (), idle: Sequence[str] = ()
) -> Names:
    """The table as data. Checkpoints may store a tied head a second time."""
    superfluous = [*_NEVER_USED, *ignored, *idle]
    if tied:
        superfluous += [rf"{entry.stored}\.(weight|scales|biases)" for entry in table.get("head", ())]
    return Names(tuple(table.items()), tuple(superfluous), tuple(idle))
