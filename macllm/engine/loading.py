"""From a model on disk to a model that answers: placement, parameters, tokenizer, defaults."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from macllm.adapters.slot import Learned, Slot, read_learned
from macllm.backend import Backend, apply_limits, current
from macllm.engine.fallback import load_fallback
from macllm.engine.first_trial import FirstTrial
from macllm.engine.model import Model
from macllm.engine.placement import compute_backend, plan
from macllm.engine.request import Sampling
from macllm.errors import ConfigError, OptionError, TokenizerError
from macllm.kernels import dispatch
from macllm.nn.decoder import Decoder
from macllm.nn.stored import DTYPES
from macllm.spec import ModelSpec
from macllm.spec.memory import KV_BITS, NO_KV_BITS
from macllm.tokenizer.base import Tokenizer
from macllm.tokenizer.load import has_tokenizer
from macllm.weights.model_files import ModelFiles, open_model
from macllm.weights.parameters import CheckpointParameters

Progress = Callable[[int, int], None]  # bytes read, bytes of all weights

_NO_ADAPTERS = (
    "mlx-lm's class runs this model, and adapters need one that macllm runs itself; see `macllm families`"
)
UNKNOWN_CONTEXT = 2**20  # tokens; where a config does not say how many


@dataclass(frozen=True)
class Loaded:
    """A model in memory with all that a generation needs."""

    name: str
    path: Path
    model: Model
    tokenizer: Tokenizer | None
    spec: ModelSpec | None  # None where mlx-lm's class runs it
    backend: Backend
    vocab: int
    max_context: int
    stop_ids: frozenset[int]
    sampling: Sampling  # the model's own defaults
    load_s: float
    kv_bits: int | None = None  # that caches hold keys and values in; None: plain
    slot: Slot | None = None  # for what was learned beside it; None where mlx-lm's class runs it
    config: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @property
    def adapter(self) -> Path | None:
        """The folder of the adapter that the model answers with."""
        return self.slot.folder if self.slot is not None else None

    def use_adapter(self, folder: Path | None) -> None:
        """Has the model answer with what was learned beside it, or alone, without a reload.

        Whatever is raised, the model stays as it was: ConfigError or CheckpointError where it belongs to another
        base, OptionError where mlx-lm's class runs the model.
        """
        if folder is None and self.slot is None:
            return
        if self.slot is None or self.spec is None:
            raise OptionError(f"{self.name}: {_NO_ADAPTERS}")
        self.slot.use(read_learned(folder, self.spec) if folder is not None else None)

    @property
    def xtc_keep(self) -> Sequence[int]:
        """Tokens that XTC must not take away: line breaks and stop tokens."""
        if self.tokenizer is None:
            return sorted(self.stop_ids)
        return sorted(self.stop_ids | set(self.tokenizer.encode("\n")))

    def require_tokenizer(self) -> Tokenizer:
        """The tokenizer, or TokenizerError saying what is missing."""
        if self.tokenizer is None:
            raise TokenizerError(
                f"{self.path}: there is no tokenizer; add the model's tokenizer.json, or give token ids (--tokens-in)"
            )
        return self.tokenizer


def load_model(
    path: Path,
    *,
    name: str | None = None,
    dtype: str | None = None,
    kv_bits: int | None = None,
    adapter: Path | None = None,
    progress: Progress | None = None,
) -> Loaded:
    """Loads a model folder or a GGUF file.

    ``dtype`` overrides the backend's compute type, ``kv_bits`` packs keys and values in the caches. ``adapter``: the
    folder of what the model answers with, looked at before the weights are. A folder without any tokenizer file
    loads: it can be used with token ids. Raises ConfigError, CheckpointError, TokenizerError, MemoryLimitError or
    OptionError.
    """
    start = time.perf_counter()
    files = open_model(path)
    _check_kv_bits(kv_bits, files)
    learned = _learned(adapter, files)
    spec = files.spec if files.native else None
    backend = compute_backend(current(dtype), spec, files.half_type, forced=dtype is not None)
    apply_limits(backend)
    tokenizer = _tokenizer(files)
    model: Model
    slot: Slot | None = None
    if spec is not None:
        with FirstTrial(files, DTYPES[backend.dtype]):
            model = _native(files, backend, kv_bits, progress)
        slot = Slot(model, DTYPES[backend.dtype])
        if learned is not None:
            slot.use(learned)
        vocab, context = spec.vocab, spec.max_context
    else:
        model = load_fallback(files, backend, progress)
        vocab, context = model.vocab, files.stated_context or UNKNOWN_CONTEXT
    return Loaded(
        name=name or (path.name if path.is_dir() else path.stem),
        path=path,
        model=model,
        tokenizer=tokenizer,
        spec=spec,
        backend=backend,
        vocab=vocab,
        max_context=context,
        stop_ids=stop_ids(files, tokenizer),
        sampling=default_sampling(files.generation_config, files.path),
        load_s=time.perf_counter() - start,
        kv_bits=kv_bits,
        slot=slot,
        config=files.config,
    )


def default_sampling(generation_config: Mapping[str, Any], folder: Path) -> Sampling:
    """A model's own settings, from its generation config; greedy where it says nothing. Raises ConfigError."""
    if generation_config.get("do_sample") is False:
        return Sampling()
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    given = {name: generation_config[name] for name in names if generation_config.get(name)}
    try:
        return Sampling(**given)
    except OptionError as error:
        raise ConfigError(
            f"{folder / 'generation_config.json'}: {error}; correct it or delete the file"
        ) from None


def _check_kv_bits(bits: int | None, files: ModelFiles) -> None:
    if bits is None:
        return
    if bits not in KV_BITS:
        raise OptionError(f"kv_bits={bits!r} is not supported (expected {' or '.join(map(str, KV_BITS))})")
    if not files.native:
        raise OptionError(f"{files.label}: {NO_KV_BITS}")


def _learned(adapter: Path | None, files: ModelFiles) -> Learned | None:
    if adapter is None:
        return None
    if not files.native:
        raise OptionError(f"{files.label}: {_NO_ADAPTERS}")
    return read_learned(adapter, files.spec)


def _native(files: ModelFiles, backend: Backend, kv_bits: int | None, progress: Progress | None) -> Decoder:
    dtype = DTYPES[backend.dtype]
    checkpoint = files.checkpoint(dtype, dispatch.kept_blocks(dtype))
    chosen = plan(files.spec, checkpoint, files.naming, backend, kv_bits)
    parameters = CheckpointParameters(files.spec, checkpoint, files.naming, chosen.placement, progress)
    return Decoder(files.spec, parameters, kv_bits)


def _tokenizer(files: ModelFiles) -> Tokenizer | None:
    return files.tokenizer() if files.gguf is not None or has_tokenizer(files.path) else None


def stop_ids(files: ModelFiles, tokenizer: Tokenizer | None) -> frozenset[int]:
    """All that ends a reply: by the config, the generation config, the tokenizer and its template."""
    found: set[int] = set(tokenizer.stop_ids) if tokenizer is not None else set()
    for values in (files.config, files.generation_config):
        entry = values.get("eos_token_id")
        found |= set(entry) if isinstance(entry, list) else {entry} if isinstance(entry, int) else set()
    return frozenset(found)
