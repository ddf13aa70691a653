"""What the engine says of itself: the machine it runs on, and the model it holds."""

import hashlib
import json
from pathlib import Path

import mlx.core as mx

from macllm.backend import current
from macllm.engine.events import Machine, Ready
from macllm.engine.loading import Loaded
from macllm.tokenizer.reasoning import find_markers

_WEIGHTS = (".safetensors", ".gguf")
_HASH_DIGITS = 12


def machine() -> Machine:
    """What models run on here."""
    backend = current()
    return Machine(
        backend.name, backend.device, backend.memory_bytes, backend.memory_limit_bytes, backend.dtype
    )


def ready(loaded: Loaded) -> Ready:
    """The model in memory. Without a tokenizer its template is ``none``."""
    tokenizer = loaded.tokenizer
    return Ready(
        model=loaded.name,
        max_context=loaded.max_context,
        sampling=loaded.sampling,
        native=loaded.spec is not None,
        template=tokenizer.template_origin if tokenizer is not None else "none",
        thinks=tokenizer is not None and find_markers(tokenizer) is not None,
        hash=model_hash(loaded),
        load_s=loaded.load_s,
        memory_bytes=mx.get_active_memory(),
    )


def model_hash(loaded: Loaded) -> str:
    """Tells models apart by config and by the names and sizes of their weight files; the weights stay unread."""
    digest = hashlib.sha256(json.dumps(loaded.config, sort_keys=True, default=str).encode())
    for file in _weight_files(loaded.path):
        digest.update(f"\n{file.name} {file.stat().st_size}".encode())
    return digest.hexdigest()[:_HASH_DIGITS]


def _weight_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in _WEIGHTS and file.is_file())
