"""The first load where a chip, a system or a kernel is new: the kernels that the model may use are tried beside it."""

import contextlib
from types import TracebackType

import mlx.core as mx

from macllm.errors import CheckpointError
from macllm.kernels import permission
from macllm.kernels.dispatch import storage
from macllm.kernels.kernel import Kernel
from macllm.kernels.registry import KERNELS
from macllm.kernels.trial import untried
from macllm.kernels.trial_process import Order, TrialProcess
from macllm.kernels.verdicts import Verdicts
from macllm.kernels.workload import of_spec
from macllm.weights.model_files import ModelFiles

_ANY_MODEL = "plain"  # storage of what every model has: states between layers


class FirstTrial:
    """Around a load: begins trials in another process, and at the end waits for what it has not told yet.

    Takes under three seconds, once; does nothing where no kernel runs, where ``MACLLM_KERNELS`` is not ``auto``,
    or where all is known. Where it cannot work (no process, no data folder to write to), the next load tries again.
    """

    def __init__(self, files: ModelFiles, dtype: mx.Dtype) -> None:
        self._process: TrialProcess | None = None
        if permission.setting() != "auto" or permission.runner() is None:
            return
        self._known = Verdicts.load()
        names = tuple(kernel.name for kernel in untried(kernels_for(files), dtype, self._known))
        if not names:
            return
        with contextlib.suppress(OSError):  # no process can be started
            self._process = TrialProcess(Order(names, of_spec(files.spec, dtype), short=True))

    def __enter__(self) -> "FirstTrial":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        if error is not None:
            self._process.stop()
            return
        for kernel, verdicts in self._process.found():
            self._known.record(kernel, verdicts)
        with contextlib.suppress(OSError):
            self._known.save()
        permission.changed()


def kernels_for(files: ModelFiles) -> list[Kernel]:
    """What a model may use: what reads its matrices first, then what every model may use, last packed attention."""
    modes = _storages(files)
    ranks = {
        kernel.name: rank
        for kernel in KERNELS.values()
        for rank, wanted in enumerate(
            (
                bool(modes & set(kernel.modes)) and kernel.role != "quantize",
                _ANY_MODEL in kernel.modes,
                kernel.role == "attention",
            )
        )
        if wanted
    }
    return [KERNELS[name] for name in sorted(ranks, key=lambda name: ranks[name])]


def _storages(files: ModelFiles) -> set[str]:
    """How the model's matrices are stored, in the kernels' words; of a GGUF its own types too."""
    with contextlib.suppress(CheckpointError):  # the load itself says it
        found = {storage(packing) for packing in files.stored_formats().values() if packing is not None}
        if files.gguf is not None:
            found |= {tensor.type_name.lower() for tensor in files.gguf.tensors.values()}
        return found
    return set()
