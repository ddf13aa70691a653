"""Reads a Hugging Face config strictly: what is missing, of a wrong type or not understood is named.

A key that nobody read and that could change the maths is refused; keys known not to matter for inference are
listed here once for all families.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from macllm.errors import ConfigError
from macllm.spec import LinearScaling, Llama3Scaling, Rope, RopeScaling, TableScaling, YarnScaling

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

    @property
    def read(self) -> frozenset[str]:
        """The keys that were looked at, whether they are there or not."""
        return frozenset(self._read)

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or ``default`` where the key is missing or null."""
        self._read |= {key, self._other_names.get(key, key)}
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

        A key that is null or false switches nothing on and passes.
        """
        for part in self._parts:
            part.refuse_unread()
        for key, value in self._values.items():
            known = key in self._read or key in _HARMLESS or key.startswith(_HARMLESS_PREFIXES)
            if not known and value is not None and value is not False:
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
    ) -> Rope:
        """The rotary embedding of heads of ``dims``, in either form of config.

        Repositories carry ``rope_theta`` (``base``) and ``rope_scaling``; transformers 5 writes
        ``rope_parameters`` with both inside, for models with several kinds of layer one mapping a ``kind``.
        ``partial`` is the share of a head that turns where the config does not say; None: always all of it.
        """
        share = self._share(partial)
        parameters = self.mapping("rope_parameters")
        if not parameters:
            turned = int(dims * share)
            within = self._within("rope_scaling", self.mapping("rope_scaling"))
            return Rope(turned, base, self._scaling(within, turned), interleaved)
        within = self._within("rope_parameters", parameters)
        if kind is not None:
            if unknown := set(parameters) - set(LAYER_KINDS):
                raise self.unsupported("rope_parameters", sorted(unknown), f"one mapping for {kind!r}")
            within = self._within(f"rope_parameters.{kind}", within.mapping(kind))
        turned = int(dims * within._share(share if partial is not None else None))
        return Rope(turned, within.number("rope_theta", base), self._scaling(within, turned), interleaved)

    def _share(self, partial: float | None) -> float:
        if partial is None:
            self.only("partial_rotary_factor", [1.0], 1.0)
        return self.number("partial_rotary_factor", partial or 1.0)

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

    def _scaling(self, values: "Config", dims: int) -> RopeScaling | None:
        kind = values.get("rope_type", values.get("type", "default"))
        match kind:
            case "default":
                return None
            case "linear":
                return LinearScaling(values.number("factor"))
            case "llama3":
                low, high = values.number("low_freq_factor"), values.number("high_freq_factor")
                return Llama3Scaling(values.number("factor"), low, high, self._original_context(values))
            case "table":
                return _table(values, dims // 2)
            case "yarn":
                return self._yarn(values)
        raise values.unsupported("rope_type", kind, "'default', 'linear', 'llama3' or 'yarn'")

    def _original_context(self, values: "Config") -> int:
        return values.integer("original_max_position_embeddings", self.integer("max_position_embeddings"))

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
            self._original_context(values),
            values.number("beta_fast", 32.0),
            values.number("beta_slow", 1.0),
            attention,
            values.flag("truncate", True),
            _mscale(factor, values.number("mscale_all_dim")) ** 2 if all_dim else 1.0,
        )


def _mscale(factor: float, weight: float) -> float:
    """YaRN's temperature for a context ``factor`` times as long, by DeepSeek's weights."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def _table(values: Config, count: int) -> TableScaling:
    """The factors of a GGUF's ``rope_freqs``, as ``macllm.weights.gguf.rope`` hands them on."""
    factors = values.get("factors")
    if not isinstance(factors, list) or len(factors) != count:
        raise values.unsupported("factors", factors, f"a list of {count} numbers")
    return TableScaling(tuple(float(factor) for factor in factors))
