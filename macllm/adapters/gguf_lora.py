"""Adapters as llama.cpp loads them beside a GGUF model (``--lora FILE``).

A file of ``general.type`` adapter with ``NAME.lora_a`` (r, I) and ``NAME.lora_b`` (O, r) for each tensor NAME of the
model, their rows in the order of the model's file; llama.cpp multiplies by ``adapter.lora.alpha / r``.
"""

from pathlib import Path

import numpy as np

from macllm.adapters.files import Adapter
from macllm.adapters.method import Method
from macllm.adapters.names import AdapterNames
from macllm.errors import MacllmError, OptionError
from macllm.spec import ModelSpec
from macllm.weights.gguf.metadata import architecture_of
from macllm.weights.gguf.names import gguf_naming


def write_gguf(file: Path, spec: ModelSpec, adapter: Adapter, name: str = "") -> None:
    """Writes the adapter to one file, whole or not at all, in float32.

    Raises OptionError for what the format has no place for, ConfigError where llama.cpp does not know the family,
    MacllmError where it cannot be written.
    """
    import gguf

    method = adapter.method
    if not isinstance(method, Method):
        raise OptionError(f"what {method.kind} learns cannot be written in GGUF's format; keep macllm's own")
    architecture = architecture_of(spec, name or "the adapter's base")
    names = AdapterNames(spec, "hub", naming=gguf_naming(spec, architecture))
    stored, left = names.store({module: one.whole() for module, one in adapter.factors.items()})
    stretched = [module for module, one in stored.items() if one.magnitude is not None]
    if left or stretched:
        raise OptionError(
            f"{(*sorted(left), *stretched)[0]} has an adapter that GGUF's format has no place for (expected LoRA on "
            "matrices that llama.cpp holds one by one); fuse it instead, and convert what comes of it"
        )
    rank = max(one.rank for one in stored.values())
    alpha = method.factor * rank
    partial = file.with_name(f".partial-{file.name}")
    writer = gguf.GGUFWriter(None, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    if name:
        writer.add_name(name)
    for module, one in stored.items():
        # alpha is divided by each tensor's own rank, and where it is 0 it is not looked at
        b = one.b * (one.scale * one.rank / alpha if alpha else 0.0)
        for part, factor in (("lora_a", one.a), ("lora_b", b)):
            turned = np.ascontiguousarray(np.array(factor.swapaxes(-1, -2), np.float32))
            writer.add_tensor(f"{module}.weight.{part}", turned)
    try:
        writer.write_header_to_file(partial)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.replace(file)
    except OSError as error:
        writer.close()
        partial.unlink(missing_ok=True)
        raise MacllmError(
            f"{file}: the adapter cannot be written ({error}); make room, or name another place"
        ) from None
