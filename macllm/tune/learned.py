"""What a run has learned, put on disk: an adapter, or the weights themselves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from macllm.adapters import files, full
from macllm.adapters.method import AnyMethod, Method
from macllm.nn.decoder import Decoder


def write(folder: Path, model: Decoder, method: AnyMethod, extra: Mapping[str, Any]) -> None:
    """Writes what ``method`` made learn; what was there stays until it is whole.

    ``extra``: further keys of its config. Raises MacllmError where it cannot be written.
    """
    if isinstance(method, Method) and method.kind == "full":
        full.write_full(folder, model, method.num_layers, extra)
        return
    files.write(folder, model.spec, files.taken(model, method), extra)
