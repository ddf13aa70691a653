"""Reads a Hugging Face config strictly: what is missing, of a wrong type or not understood is named.

A key that nobody read and that could change the maths is refused; keys known not to matter for inference are
listed here once for all families.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from macllm.errors import ConfigError
from macllm.spec import LinearScaling, Llama3Scaling, Rope, RopeScaling, TableScaling, YarnScaling

# Training, bookkeeping, tokenizer and generation settings: no effect on the logits of a causal pass.
_HARMLESS = frozenset(
    """
    architectures auto_map model_type model_name torch_dtype dtype transformers_version transformers.js_config
    use_cache initializer_range initializer_factor attention_dropout hidden_dropout resid_pdrop embd_pdrop
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
_HARMLESS_PREFIXES = ("_", "unsloth", "router_aux")


class Config:
    """A config being read. Remembers what was read, so that the rest can be refused by name."""

    def __init__(self, values: Mapping[str, Any], family: str, where: str = "config.json") -> None:
        self._values = values
        self._read: set[str] = set()
        self.family = family
        self.where = where

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or ``default`` where the key is missing or null."""
        self._read.add(key)
        value = self._values.get(key)
        return default if value is None else value

    def integer(self, key: str, default: int | None = None, *, low: int = 1) -> int:
        """A whole number of at least ``low``. Raises ConfigError where missing without default, or out of range."""
        value = self.get(key, default)
        if value is None:
            raise ConfigError(f"{self.where}: {key!r} is missing and family {self.family!r} needs it")
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise self.unsupported(key, value, f"a whole number of at least {low}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number above zero."""
        value = self.get(key, default)
        if value is None:
            raise ConfigError(f"{self.where}: {key!r} is missing and family {self.family!r} needs it")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
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
            f"{self.where}: {key}={value!r} is not supported by family {self.family!r} (expected {expected})"
        )

    def refuse_unread(self) -> None:
        """Raises ConfigError for a key that was not read and is not known to be harmless.

        A key that is null or false switches nothing on and passes.
        """
        for key, value in self._values.items():
            known = key in self._read or key in _HARMLESS or key.startswith(_HARMLESS_PREFIXES)
            if not known and value is not None and value is not False:
                raise ConfigError(
                    f"{self.where}: {key}={value!r} is not known to family {self.family!r} and could change what the "
                    "model computes; remove the key if it has no effect, or use a newer macllm"
                )

    def rope(self, dims: int, *, base: float = 10_000.0, kind: str | None = None) -> Rope:
        """The rotary embedding over ``dims``, in either form of config.

        Repositories carry ``rope_theta`` and ``rope_scaling``; transformers 5 writes ``rope_parameters`` with
        both inside, for models with several kinds of layer one mapping a ``kind`` (``full_attention``, ...).
        """
        parameters = self.get("rope_parameters")
        if parameters is not None:
            if kind is not None and kind in parameters:
                parameters = parameters[kind]
            base = float(parameters.get("rope_theta", self.get("rope_theta", base)))
            partial = parameters.get("partial_rotary_factor")
            if partial not in (None, 1.0):
                raise self.unsupported("partial_rotary_factor", partial, "1.0")
            return Rope(dims, base, self._scaling("rope_parameters", parameters))
        base = self.number("rope_theta", base)
        return Rope(dims, base, self._scaling("rope_scaling", self.get("rope_scaling") or {}))

    def _scaling(self, key: str, values: Mapping[str, Any]) -> RopeScaling | None:
        kind = values.get("rope_type", values.get("type", "default"))
        context = values.get("original_max_position_embeddings") or self.get("max_position_embeddings")
        try:
            if kind == "default":
                return None
            if kind == "linear":
                return LinearScaling(float(values["factor"]))
            if kind == "llama3":
                low, high = float(values["low_freq_factor"]), float(values["high_freq_factor"])
                return Llama3Scaling(float(values["factor"]), low, high, int(context))
            if kind == "table":
                return TableScaling(tuple(float(value) for value in values["factors"]))
            if kind == "yarn":
                return self._yarn(key, values, int(context))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{self.where}: {key} of type {kind!r} lacks or misstates {error}") from None
        raise self.unsupported(f"{key}.rope_type", kind, "'default', 'linear', 'llama3' or 'yarn'")

    def _yarn(self, key: str, values: Mapping[str, Any], context: int) -> YarnScaling:
        for name in ("mscale", "mscale_all_dim"):
            if values.get(name) not in (None, 0):
                raise self.unsupported(f"{key}.{name}", values[name], "none")
        return YarnScaling(
            float(values["factor"]),
            context,
            float(values.get("beta_fast") or 32.0),
            float(values.get("beta_slow") or 1.0),
            values.get("attention_factor"),
            bool(values.get("truncate", True)),
        )
