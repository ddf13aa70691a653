"""Converts architectures without a native family through mlx-lm's own classes, which are imported only then.

Same command, same files; but mlx-lm holds the converted model in memory and cannot resume, and its types are the
checkpoint's.
"""

import io
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map_with_path

from macllm.errors import OptionError
from macllm.nn.stored import DTYPES
from macllm.quantization import MLX_MODES, QuantizationPlan
from macllm.weights import companions, foreign_model
from macllm.weights.convert import (
    Conversion,
    Converted,
    Notice,
    Planned,
    Report,
    check_space,
)
from macllm.weights.model_files import ModelFiles
from macllm.weights.plan import Target
from macllm.weights.save import PartialFolder

_NOTICE = "this architecture has no native family: mlx-lm converted it, which holds the model in memory"


def convert_foreign(
    files: ModelFiles,
    destination: Path,
    target: Target,
    report: Report,
    disk_free: Callable[[Path], int],
) -> Conversion:
    """Raises ConfigError where mlx-lm does not know the architecture either, OptionError for what it cannot do."""
    start = time.perf_counter()
    mx.reset_peak_memory()
    _refuse(files, target)
    weights = list(files.path.glob("*.safetensors"))
    identity = {
        "source": [[str(path), path.stat().st_mtime_ns] for path in sorted(weights)],
        "target": asdict(target),
    }
    check_space(sum(path.stat().st_size for path in weights), destination, disk_free)
    model, config = _converted(files, target)
    leaves: Any = tree_flatten(model.parameters())
    sizes = {name: array.nbytes for name, array in leaves}
    del leaves  # saving gives up each array as soon as it is written
    total = sum(sizes.values())
    with PartialFolder(destination, identity) as folder:
        folder.clear()
        report(Planned(len(sizes), total, 0))
        parameters = _save(model, config, folder)
        companions.copy_files(files.path, folder.path)
        report(Converted(destination.name, total, total))
        folder.publish()
    report(Notice(_NOTICE))
    return Conversion(
        path=destination,
        parameters=parameters,
        size_bytes=total,
        quantization=QuantizationPlan.from_config(config),
        dtype=target.dtype,
        kept=(),
        quantized=tuple(name for name in sizes if name.removesuffix(".weight") + ".scales" in sizes),
        plain=(),
        notices=(_NOTICE,),
        elapsed_s=time.perf_counter() - start,
        peak_memory_bytes=mx.get_peak_memory(),
    )


def _refuse(files: ModelFiles, target: Target) -> None:
    foreign_model.refuse_unknown(files)
    if target.mode not in (None, *MLX_MODES):
        raise OptionError(
            f"{files.path} has no native family, and mlx-lm's classes know no mode {target.mode!r}; choose one of "
            f"{', '.join(sorted(MLX_MODES))}"
        )
    if files.plan.default is not None and target.quantize:
        raise OptionError(
            f"{files.path} is quantized already and has no native family: its codes cannot be quantized again; start "
            "from the 16-bit model"
        )


def _converted(files: ModelFiles, target: Target) -> tuple[Any, dict[str, Any]]:
    """The model with lazy weights in the target's form, and its config."""
    from mlx_lm.convert import mixed_quant_predicate_builder
    from mlx_lm.utils import dequantize_model, quantize_model

    model, config = foreign_model.load(files)
    if target.dtype is not None:
        _cast(model, DTYPES[target.dtype])
    if target.dequantize:
        config = {key: value for key, value in config.items() if not key.startswith("quantization")}
        model = dequantize_model(model)
    if target.quantize:
        base = target.base
        predicate = (
            mixed_quant_predicate_builder(target.recipe, model, base.group_size) if target.recipe else None
        )
        with redirect_stdout(io.StringIO()):  # it prints
            model, config = quantize_model(
                model, config, base.group_size, base.bits, mode=base.mode, quant_predicate=predicate
            )
    return model, config


def _cast(model: Any, dtype: mx.Dtype) -> None:
    """The floating tensors in ``dtype``, but for those of which the class says that they must not be."""
    casts: Callable[[str], bool] = getattr(model, "cast_predicate", lambda _: True)

    def cast(name: str, array: mx.array) -> mx.array:
        return array.astype(dtype) if casts(name) and mx.issubdtype(array.dtype, mx.floating) else array

    model.update(tree_map_with_path(cast, model.parameters()))


def _save(model: Any, config: dict[str, Any], folder: PartialFolder) -> int:
    """Writes weights, index and config; returns the number of parameters."""
    from mlx_lm.utils import get_total_parameters, save_config, save_model

    parameters = int(get_total_parameters(model))
    save_model(folder.path, model, donate_model=True)
    save_config(config, folder.path / "config.json")
    return parameters
