"""Reads a Hugging Face config strictly: what is missing, of a wrong type or not understood is named.

A key that nobody read and that could change the maths is refused; keys known not to matter for inference are
listed here once for all families.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from macllm.errors import ConfigError
from macllm.spec import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongScaling,
    ProportionalScaling,
    Rope,
    RopeScaling,
    TableScaling,
    YarnScaling,
)

# Training, bookkeeping, tokenizer and generation settings: no effect on the logits of a causal pass.
_HARMLESS = frozenset(
    """
    architectures auto_map model_type model_name torch_dtype dtype transformers_version transformers.js_config
    use_cache initializer_range initializer_factor attention_dropout hidden_dropout resid_pdrop embd_pdrop attn_pdrop
    attn_implementation _attn_implementation_autoset cache_implementation is_decoder is_llama_config
    bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id decoder_start_token_id
    quantization quantization_config finetuning_task task_specific_params problem_type id2label label2id
    num_labels output_attentions output_hidden_states return_dict return_dict_in_generate torchscript
    tokenizer_class prefix gradient_checkpointing tf_legacy_loss use_bfloat16 chunk_size_feed_forward
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature
    top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size num_return_sequences
    encoder_no_repeat_ngram_size bad_words_ids forced_bos_token_id forced_eos_token_id suppress_tokens
    begin_suppress_tokens remove_invalid_values exponential_decay_length_penalty output_scores name_or_path
    license language datasets
    """.split()
)
_HARMLESS_PREFIXES = ("_", "unsloth", "router_aux", "summary_")
# Notes that scalings carry along, and how image tokens would be placed.
_ROPE_HARMLESS = (
    "type",
    "finetuned",
    "max_position_embeddings",
    "original_max_position_embeddings",
    "mrope_section",
    "mrope_interleaved",
)

LAYER_KINDS = ("full_attention", "sliding_attention")


class Config:
    """A config being read. Remembers what was read, so that the rest can be refused by name."""

    def __init__(self, values: Mapping[str, Any], family: str, where: str = "config.json") -> None:
        self._values = values
        self._missing: Mapping[str, Any] = {}
        self._other_names: Mapping[str, str] = {}
        self._read: set[str] = set()
        self._parts: list[Config] = []
        self.family = family
        self.where = where

    def where_missing(self, **values: Any) -> None:
        """What the family takes for a key that is not there, where that differs from a key that is null."""
        self._missing = values

    def also_named(self, **names: str) -> None:
        """The family's own name of a key that most families call otherwise: ``hidden_size="n_embd"``."""
        for key, name in names.items():
            if key in self._values and self._values.get(name, self._values[key]) != self._values[key]:
                raise self.unsupported(name, self._values[name], f"{self._values[key]!r} as {key!r} says")
        self._other_names = names

    def pass_over(self, pattern: str) -> None:
        """Takes the keys that match for read: they are of no concern here."""
        self._read |= {key for key in self._values if re.fullmatch(pattern, key)}

    @property
    def read(self) -> frozenset[str]:
        """The keys that were looked at, whether they are there or not; of two names for one the family's own."""
        return frozenset(self._read - set(self._other_names))

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or ``default`` where the key is missing or null."""
        self._read |= {self._name(key), self._other_names.get(key, key)}
        name = self._name(key)
        value = self._values[name] if name in self._values else self._missing.get(key)
        return default if value is None else value

    def integer(self, key: str, default: int | None = None, *, low: int = 1) -> int:
        """A whole number of at least ``low``. Raises ConfigError where missing without default, or out of range."""
        value = self.get(key, default)
        if value is None:
            raise self._absent(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise self.unsupported(key, value, f"a whole number of at least {low}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above zero."""
        value = self.get(key, default)
        if value is None:
            raise self._absent(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.unsupported(key, value, "a number above 0")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.unsupported(key, value, "true or false")
        return value

    def only(self, key: str, expected: Iterable[Any], default: Any = None) -> Any:
        """The value if it is one of ``expected``; else ConfigError with the value found and those supported."""
        value = self.get(key, default)
        choices = list(expected)
        if value not in choices:
            raise self.unsupported(key, value, " or ".join(repr(choice) for choice in choices))
        return value

    def unsupported(self, key: str, value: object, expected: str) -> ConfigError:
        return ConfigError(
            f"{self.where}: {self._name(key)}={value!r} is not supported by family {self.family!r} "
            f"(expected {expected})"
        )

    def _absent(self, key: str) -> ConfigError:
        return ConfigError(
            f"{self.where}: {self._name(key)!r} is missing and family {self.family!r} needs it"
        )

    def _name(self, key: str) -> str:
        """The name that a key has in this config."""
        return key if key in self._values else self._other_names.get(key, key)

    def refuse_unread(self) -> None:
        """Raises ConfigError for a key that was not read and is not known to be harmless.

        A key that is null, false or empty switches nothing on and passes.
        """
        for part in self._parts:
            part.refuse_unread()
        for key, value in self._values.items():
            known = key in self._read or key in _HARMLESS or key.startswith(_HARMLESS_PREFIXES)
            nothing = value is None or value is False or value == [] or value == {}
            if not known and not nothing:
                raise ConfigError(
                    f"{self.where}: {key}={value!r} is not known to family {self.family!r} and could change what the "
                    "model computes; remove the key if it has no effect, or use a newer macllm"
                )

    def rope(
        self,
        dims: int,
        *,
        base: float,
        kind: str | None = None,
        partial: float | None = None,
        interleaved: bool = False,
        beside: tuple[str, ...] = (),
    ) -> Rope:
        """The rotary embedding of heads of ``dims``, in either form of config.

        Repositories carry ``rope_theta`` (``base``) and ``rope_scaling``; transformers 5 writes
        ``rope_parameters`` with both inside, for models with several kinds of layer one mapping a ``kind``.
        ``partial`` is the share of a head that turns where the config does not say; None: always all of it.
        ``beside`` are keys in there that the family reads itself.
        """
        within = self.rope_settings(kind)
        for key in (*_ROPE_HARMLESS, *beside):
            within.get(key)
        type_ = within.get("rope_type", within.get("type", "default"))
        share = self._share(within, 1.0 if type_ == "proportional" else partial)
        turned = dims if type_ == "proportional" else int(dims * share)
        if turned % 2 or not 0 < turned <= dims:
            raise self.unsupported("partial_rotary_factor", share, f"an even part of a head of {dims}")
        scaling = self._scaling(type_, within, turned, share)
        theta = within.number("rope_theta", base)
        within.refuse_unread()
        return Rope(turned, theta, scaling, interleaved)

    def rope_settings(self, kind: str | None = None) -> "Config":
        """The mapping that holds a rotary embedding's settings, for one ``kind`` of layer where they differ."""
        older, newer = self.mapping("rope_scaling"), self.mapping("rope_parameters")
        if self._values.get("rope_parameters") and not self._values.get("rope_scaling"):
            older = {}  # what the config states comes before what a missing key means
        if older or not newer:
            return self._within("rope_scaling", older)
        within = self._within("rope_parameters", newer)
        if kind is None:
            return within
        if unknown := set(newer) - set(LAYER_KINDS):
            raise self.unsupported("rope_parameters", sorted(unknown), f"one mapping for {kind!r}")
        return self._within(f"rope_parameters.{kind}", within.mapping(kind))

    def _share(self, within: "Config", partial: float | None) -> float:
        """The share of a head that turns: as said beside the scaling, else outside, else ``partial``."""
        stated = [values for values in (within, self) if values.get("partial_rotary_factor") is not None]
        if not stated:
            return partial or 1.0
        if partial is None:
            stated[0].only("partial_rotary_factor", [1.0])
        return stated[0].number("partial_rotary_factor")

    def mapping(self, key: str) -> Mapping[str, Any]:
        """A JSON object; empty where missing or null."""
        value = self.get(key, {})
        if not isinstance(value, Mapping):
            raise self.unsupported(key, value, "a mapping")
        return value

    def part(self, key: str) -> "Config":
        """The config inside this one under ``key``, read as strictly."""
        part = self._within(key, self.mapping(key))
        self._parts.append(part)
        return part

    def _within(self, key: str, values: Mapping[str, Any]) -> "Config":
        return Config(values, self.family, f"{self.where}: {key}")

    def _scaling(self, type_: Any, values: "Config", dims: int, share: float) -> RopeScaling | None:
        match type_:
            case "default":
                return None
            case "linear":
                return LinearScaling(values.number("factor"))
            case "llama3":
                low, high = values.number("low_freq_factor"), values.number("high_freq_factor")
                return Llama3Scaling(values.number("factor"), low, high, self.original_context(values))
            case "table":
                return TableScaling(_factors(values, "factors", dims // 2))
            case "proportional":
                return ProportionalScaling(share, values.number("factor", 1.0))
            case "dynamic":
                return DynamicScaling(values.number("factor"), self.integer("max_position_embeddings"))
            case "longrope" | "su":
                return self._longrope(values, dims // 2)
            case "yarn":
                return self._yarn(values)
        raise values.unsupported(
            "rope_type",
            type_,
            "'default', 'linear', 'llama3', 'yarn', 'longrope', 'dynamic' or 'proportional'",
        )

    def original_context(self, values: "Config") -> int:
        """The context before it was stretched, by a rotary embedding's settings and what stands beside them."""
        inside = values.get("original_max_position_embeddings")
        if inside is not None and self.get("original_max_position_embeddings") is None:
            return values.integer("original_max_position_embeddings")
        # where a config has both, the one outside counts
        return self.integer("original_max_position_embeddings", self.integer("max_position_embeddings"))

    def _longrope(self, values: "Config", count: int) -> LongScaling:
        context = self.original_context(values)
        factor = values.number("factor", self.integer("max_position_embeddings") / context)
        usual = 1.0
        if values.get("attention_factor") is not None:
            usual = values.number("attention_factor")
        elif factor > 1:
            usual = math.sqrt(1 + math.log(factor) / math.log(context))
        short, long = (
            TableScaling(
                _factors(values, f"{length}_factor", count), values.number(f"{length}_mscale", usual)
            )
            for length in ("short", "long")
        )
        return LongScaling(short, long, context)

    def _yarn(self, values: "Config") -> YarnScaling:
        factor = values.number("factor")
        stated = values.get("attention_factor")
        mscale, all_dim = values.get("mscale"), values.get("mscale_all_dim")
        attention = values.number("attention_factor") if stated is not None else None
        if attention is None and mscale and all_dim:
            attention = _mscale(factor, values.number("mscale")) / _mscale(
                factor, values.number("mscale_all_dim")
            )
        return YarnScaling(
            factor,
            self.original_context(values),
            values.number("beta_fast", 32.0),
            values.number("beta_slow", 1.0),
            attention,
            values.flag("truncate", True),
            _mscale(factor, values.number("mscale_all_dim")) ** 2 if all_dim else 1.0,
        )


def _mscale(factor: float, weight: float) -> float:
    """YaRN's temperature for a context ``factor`` times as long, by DeepSeek's weights."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def _factors(values: Config, key: str, count: int) -> tuple[float, ...]:
    """What each frequency is divided by."""
    factors = values.get(key)
    numbers = isinstance(factors, list) and all(isinstance(one, int | float) for one in factors)
    if not numbers or len(factors) != count:
        raise values.unsupported(key, factors, f"a list of {count} numbers")
    return tuple(float(factor) for factor in factors)
