"""Has an unquantized model downloaded and quantized on this machine, as a view of the command that does it."""

import asyncio
from typing import Any

from textual.app import App

from macllm.errors import InputError
from macllm.hub import store
from macllm.hub.pull import free_name, pull
from macllm_tui.model_rows import Row
from macllm_tui.screens.explain import CommandScreen

FOLDER = "weights"  # inside the installed model's own, so that deleting it deletes them


async def convert(app: App[Any], row: Row, bits: int) -> str:
    """Runs it to its end and returns what to say. Closed before, it goes on where it stopped the next time.

    Raises InputError where the model is here already.
    """
    name = f"{row.name if row.here else await asyncio.to_thread(free_name, row.source)}-{bits}bit"
    if await asyncio.to_thread(store.named, name) is not None:
        raise InputError(f"{name} is on this machine already; delete it first to convert it again")
    folder = store.folder_of(name) / FOLDER
    await asyncio.to_thread(folder.parent.mkdir, parents=True, exist_ok=True)
    words = ["convert", row.source, str(folder), "--quantize", "--q-bits", str(bits)]
    done = await app.push_screen_wait(
        CommandScreen(f"convert {row.title} to {bits} bit", words, waiting="downloading and converting")
    )
    if not done:
        return f"{name} is not converted yet; v and the same choice go on where it stopped."
    await asyncio.to_thread(pull, str(folder), name=name)
    return f"{name} is here."
