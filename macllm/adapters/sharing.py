"""An adapter in the format of another tool: mlx-lm's, PEFT's, or a GGUF file for llama.cpp."""

from pathlib import Path
from typing import Literal, TypeAlias

from macllm.adapters.files import read, write, write_peft
from macllm.adapters.gguf_lora import write_gguf
from macllm.adapters.slot import read_learned
from macllm.errors import InputError, OptionError
from macllm.weights.model_files import open_model

Format: TypeAlias = Literal["mlx", "peft", "gguf"]


def convert(adapter: Path, out: Path, to: Format, base: Path, base_name: str = "") -> None:
    """Writes the adapter of a folder to ``out``, a new folder, or for GGUF a new file.

    ``base`` is the model's folder or file, for names and shapes; ``base_name`` what the config names it. Raises
    InputError where ``out`` exists, OptionError for what the format has no place for, and what reading raises.
    """
    if out.exists():
        raise InputError(f"{out} exists already; delete it, or choose another destination")
    files = open_model(base)
    if not files.native:
        raise OptionError(
            f"{base}: adapters are converted for models that macllm runs itself; see `macllm families`"
        )
    if isinstance(read_learned(adapter, files.spec).content, dict):
        raise OptionError(
            f"{adapter}: these are whole weights of full fine-tuning, which only mlx-lm's format holds; "
            "write a model of them with `macllm fuse`"
        )
    learned = read(adapter, files.spec)
    if to == "gguf":
        write_gguf(out, files.spec, learned, adapter.name)
    elif to == "peft":
        write_peft(out, files.spec, learned, base_name)
    else:
        write(out, files.spec, learned, {"model": base_name} if base_name else None)
