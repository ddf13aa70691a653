"""The files of a model folder beside the weights: config in the form every reader knows, tokenizer, licence."""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from macllm.families import keys_read
from macllm.families.multimodal import text_values
from macllm.quantization import QuantizationPlan
from macllm.spec import Attention, Mamba, Mamba2, Mixer, ModelSpec, MoE
from macllm.weights.model_files import ModelFiles

# Copied from a folder as they are. Code is not: nothing is run from a model folder.
_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "tiktoken.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "*.tiktoken",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "generation_config.json",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
# families whose mlx-lm class wants ``rope_parameters``, as their repositories have it
_NEWER_ROPE = ("qwen3_5_text", "qwen3_5_moe_text")
_OLDER_KINDS = {"linear_attention": "mamba", "full_attention": "attention"}


def copied_files(folder: Path) -> Iterator[Path]:
    """The files of a folder that its conversion takes over, relative to it."""
    for pattern in _COPIED:
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                yield path.relative_to(folder)


def copy_files(source: Path, destination: Path) -> None:
    """Copies them; links become files."""
    for name in copied_files(source):
        (destination / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, destination / name)


def converted_config(files: ModelFiles, plan: QuantizationPlan, dtype: str | None) -> dict[str, Any]:
    """The config of the converted model, keys sorted as mlx-lm has them; ``dtype`` None: as it was."""
    config = portable(text_values(files.config), files.spec)
    if files.spec.part_of is not None:
        # some of mlx-lm's classes take the vocabulary from outside, or one of their own
        config = {**files.config, "vocab_size": files.spec.vocab, "text_config": config}
    for key in ("quantization", "quantization_config", "_name_or_path"):
        config.pop(key, None)
    if quantization := plan.to_config():
        config["quantization"] = config["quantization_config"] = quantization
    if dtype is not None:
        config.pop("dtype", None)  # transformers 5; both it and older readers know the other name
        config["torch_dtype"] = dtype
    return dict(sorted(config.items()))


def portable(values: Mapping[str, Any], spec: ModelSpec) -> dict[str, Any]:
    """A config that readers of the older form take for the same model.

    transformers 5 writes ``rope_parameters``, which mlx-lm's classes pass over in silence; and for keys left out,
    they do not all have the original's defaults.
    """
    config = dict(values)
    parameters = config.get("rope_parameters")
    if isinstance(parameters, Mapping) and parameters and spec.family not in _NEWER_ROPE:
        older = _older_rope(parameters)
        if older is not None:
            del config["rope_parameters"]
            config |= older
    mixers = [mixer for layer in spec.layers for mixer in layer.mixers]
    if older_keys := _OLDER_KEYS.get(spec.family):
        config |= older_keys(config)
    read = keys_read(config)  # other families have other words for the same
    if "time_step_limit" in read:
        config |= _older_mamba(config)
    for key, value in _stated(spec, mixers).items():
        if key in read and config.get(key) is None and not ("rope" in key and "rope_parameters" in config):
            config[key] = value
    pattern = config.get("_sliding_window_pattern")
    if pattern is not None and _follows(config.get("layer_types"), pattern):
        config.setdefault("sliding_window_pattern", pattern)
    return config


def _stated(spec: ModelSpec, mixers: Sequence[Mixer]) -> dict[str, Any]:
    """Values by the keys that configs often leave out."""
    stated: dict[str, Any] = {"tie_word_embeddings": spec.tied}
    if spec.norm.kind == "rms":
        stated |= {"rms_norm_eps": spec.norm.eps, "layer_norm_epsilon": spec.norm.eps}
    attentive = [mixer for mixer in mixers if isinstance(mixer, Attention)]
    if attentive:
        stated |= {"num_key_value_heads": attentive[0].kv_heads, "rope_scaling": None}
        if len({mixer.head_dim for mixer in attentive}) == 1:
            stated["head_dim"] = attentive[0].head_dim
    turning = [mixer for mixer in attentive if mixer.rope is not None]
    if turning:
        full = next((mixer for mixer in turning if mixer.window is None), turning[0])
        stated["rope_theta"] = full.rope.base if full.rope is not None else None
        if full.rope is not None and full.rope.dims < full.head_dim:
            stated["partial_rotary_factor"] = full.rope.dims / full.head_dim
    mixtures = [layer.channel for layer in spec.layers if isinstance(layer.channel, MoE)]
    if mixtures:
        shared = mixtures[0].shared
        stated |= {
            "num_experts": mixtures[0].experts,
            "shared_intermediate_size": shared.hidden if shared is not None else 0,
        }
    inner = [mixer.inner for mixer in mixers if isinstance(mixer, Mamba | Mamba2)]
    if inner:
        stated["intermediate_size"] = inner[0]  # where it is left out there is no feed-forward block
        if attentive:
            stated["head_dim"] = attentive[0].head_dim
    return stated


def _older_mamba(config: Mapping[str, Any]) -> dict[str, Any]:
    """What mlx-lm's classes take in the older form only: names of layers, numbers, and no positions by a name."""
    older: dict[str, Any] = {}
    if isinstance(kinds := config.get("layer_types"), list):
        older["layer_types"] = [_OLDER_KINDS.get(kind, kind) for kind in kinds]
    if isinstance(limits := config.get("time_step_limit"), list):
        older["time_step_limit"] = [math.inf if isinstance(limit, Mapping) else limit for limit in limits]
    if config.get("position_embedding_type", "rope") is None:
        older["position_embedding_type"] = "nope"
    return older


def _letters(config: Mapping[str, Any]) -> dict[str, Any]:
    """EXAONE 4's kinds of layers as mlx-lm's class takes them: a letter for each, if any slides."""
    kinds = config.get("layer_types") or ()
    if "sliding_attention" not in kinds:
        return {}
    return {"sliding_window_pattern": "".join("L" if kind == "sliding_attention" else "G" for kind in kinds)}


def _two_biases(config: Mapping[str, Any]) -> dict[str, Any]:
    """InternLM 3's own names of its switches, which transformers renames."""
    own = {"attention_bias": "qkv_bias", "mlp_bias": "bias"}
    return {name: config[key] for key, name in own.items() if key in config}


def _interval(config: Mapping[str, Any]) -> dict[str, Any]:
    """How often a layer of Qwen3-Next is one of attention, for a list of all layers."""
    kinds = config.get("layer_types") or ()
    every = kinds.index("full_attention") + 1 if "full_attention" in kinds else 0
    return {"full_attention_interval": every} if every and _follows(kinds, every) else {}


def _rotary_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """GPT-NeoX's own names of rope's settings."""
    own = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
    return {name: config[key] for key, name in own.items() if key in config}


def _global_heads(config: Mapping[str, Any]) -> dict[str, Any]:
    """Heads of Gemma 4's full layers, where transformers 5 states those of each layer."""
    layers = config.get("per_layer_config") or {}
    found: Mapping[str, Any] = next(iter(layers.values()), {})
    names = {"head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"}
    return {name: found[key] for key, name in names.items() if key in found}


_OLDER_KEYS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "exaone4": _letters,
    "gemma4_text": _global_heads,
    "gpt_neox": _rotary_names,
    "internlm3": _two_biases,
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _interval),
}


def _older_rope(parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """``rope_theta`` and ``rope_scaling`` for ``rope_parameters``; None where only the newer form can say it."""
    if "llama_4_scaling_beta" in parameters:
        return None  # which mlx-lm looks for there
    if "full_attention" not in parameters:
        return None if _nested(parameters) else _flat(parameters)
    local = parameters.get("sliding_attention", {})
    if "partial_rotary_factor" in {**local, **parameters["full_attention"]}:
        return None
    if local.get("rope_type", "default") != "default":
        return None
    older = _flat(parameters["full_attention"])
    return older | ({"rope_local_base_freq": local["rope_theta"]} if "rope_theta" in local else {})


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    beside = {"rope_theta"} | ({"partial_rotary_factor"} if kind != "proportional" else set())
    outside = {key: parameters[key] for key in beside & set(parameters)}
    scaling = {key: value for key, value in parameters.items() if key not in beside}
    # some of mlx-lm's classes ask for the older name of the type
    return outside | {"rope_scaling": None if kind == "default" else {"type": kind} | scaling}


def _nested(parameters: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Mapping) for value in parameters.values())


def _follows(kinds: Any, pattern: int) -> bool:
    """Whether every ``pattern``-th layer is full and the others slide."""
    return isinstance(kinds, list) and all(
        (kind == "full_attention") == ((index + 1) % pattern == 0) for index, kind in enumerate(kinds)
    )
