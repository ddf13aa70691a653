"""Loads a model for a command: a download and a slow load show themselves on stderr."""

import time
from typing import TYPE_CHECKING

from macllm.cli.download import DownloadDisplay
from macllm.cli.progress import Progress

if TYPE_CHECKING:
    from macllm.api import LLM

_SHOW_AFTER_S = 1.0  # a load that is done sooner needs no bar


def load(
    name: str, dtype: str | None = None, kv_bits: int | None = None, adapter: str | None = None
) -> "LLM":
    """The model of this name, source or path, with an adapter of this name or path."""
    from macllm.api import load as load_model

    start = time.monotonic()
    with DownloadDisplay(name) as display, Progress(f"loading {name}", passing=True) as bar:

        def read(done: int, total: int) -> None:
            if time.monotonic() - start > _SHOW_AFTER_S:
                bar.update(done, total)

        return load_model(
            name, dtype=dtype, kv_bits=kv_bits, adapter=adapter, download=display, progress=read
        )
