"""All rows of the benchmark, in the order of the table."""

import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench import families, finetune_memory, finetune_speed, speed
from bench.processes import import_seconds, macllm_command, modules_after, seconds
from bench.rows import Report, Row, Target
from bench.settings import Settings
from bench.worker import Worker, WorkerError
from macllm import __version__ as macllm_version

Say = Callable[[str], None]

PACKAGES = ("mlx", "mlx-lm", "llama-cpp-python", "numpy", "cmeel-openblas")
PROMPT = "What is the capital of France?"
FOREIGN = {"mlx_lm", "transformers", "torch"}


def report(settings: Settings, say: Say) -> Report:
    """Measures what ``settings`` ask for."""
    make_models(settings, say)
    rows = [row for row in _rows(settings, say) if settings.wants(row.key)]
    kept = {
        "model": settings.model.name,
        "prompt_tokens": settings.prompt_tokens,
        "decode_tokens": settings.decode_tokens,
        "repeats": settings.repeats,
        "process_repeats": settings.process_repeats,
    }
    return Report(machine(), kept, rows)


def make_models(settings: Settings, say: Say) -> None:
    """Writes the models that the wanted rows need beside the one given."""
    with Worker("worker_macllm") as worker:
        for dtype in ("float32", "float16"):
            folder = settings.mlx_folder(dtype)
            needed = settings.wants("prefill", "decode", "start") and _installed("mlx_lm")
            if needed and settings.model.suffix == ".gguf" and not (dtype == "float16" and settings.quick):
                say(f"writing {folder.name} for mlx-lm")
                worker.ask("write_same_weights", source=str(settings.model), path=str(folder), dtype=dtype)
        if settings.wants("host"):
            worker.ask(
                "write_tiny",
                path=str(settings.tiny),
                layers=settings.tiny_layers,
                width=settings.tiny_width,
            )


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "macllm": macllm_version,
        **{package: _version(package) for package in PACKAGES},
    }


def _rows(settings: Settings, say: Say) -> Iterator[Row]:
    if settings.wants("prefill", "decode"):
        yield from speed.measure(settings, say)
    if settings.wants("host"):
        say("host time of a step")
        yield _host(settings)
    if settings.wants("families"):
        yield from families.measure(settings, say)
    if settings.wants("start"):
        say("process start to first token")
        yield _start(settings)
    if settings.wants("help"):
        say("macllm --help")
        yield _help(settings)
    if settings.wants("import"):
        say("import macllm")
        yield _import(settings)
    if settings.wants("load"):
        say("memory of a load")
        yield from _load(settings)
    if settings.wants("finetune"):
        say("bits of a base")
        yield _base(settings)
    if settings.wants("finetune-speed"):
        yield from finetune_speed.measure(settings, say)
    if settings.wants("finetune-memory"):
        yield from finetune_memory.measure(settings, say)
    if settings.wants("app"):
        from bench.screen import measure_app  # Textual is imported for these rows only

        yield from measure_app(settings, say)


def _host(settings: Settings) -> Row:
    ours: list[float] = []
    theirs: list[float] = []
    why = "" if _installed("mlx_lm") else "not installed"
    request = {"path": str(settings.tiny), "steps": settings.host_steps}
    with Worker("worker_macllm") as macllm, Worker("worker_mlx_lm") as mlx_lm:
        for _ in range(settings.repeats):
            ours.append(macllm.ask("host", **request)["host_us"] / 1e3)
            if not why:
                try:
                    theirs.append(mlx_lm.ask("host", **request)["host_us"] / 1e3)
                except WorkerError as error:
                    why = str(error)
    figure = f"host time a step, tiny model of {settings.tiny_layers} layers"
    return Row("host", figure, "ms", tuple(ours), "mlx-lm", tuple(theirs), Target("ratio", at_most=1.0), why)


def _start(settings: Settings) -> Row:
    ours: list[float] = []
    theirs: list[float] = []
    folder = str(settings.mlx_folder("float32"))
    words = ["-p", PROMPT, "--max-tokens", "1", "--temp", "0"]
    macllm = [*macllm_command(), "generate", str(settings.model), *words]
    mlx_lm = [sys.executable, "-m", "mlx_lm", "generate", "--model", folder, *words]
    why = "" if _installed("mlx_lm") else "not installed"
    for turn in range(settings.process_repeats + 1):
        try:
            own = seconds(macllm)
            other = seconds(mlx_lm) if not why else None
        except WorkerError as error:
            why = str(error)
            break
        if turn:  # the first reads the files into memory
            ours.append(own)
            theirs += [other] if other is not None else []
    return Row(
        "start",
        "process start to first token, files warm",
        "s",
        tuple(ours),
        "mlx_lm generate, float32 4-bit",
        tuple(theirs),
        Target("ratio", at_most=0.5),
        why,
    )


def _help(settings: Settings) -> Row:
    command = [*macllm_command(), "--help"]
    samples = [seconds(command) for _ in range(settings.process_repeats + 1)][1:]
    return Row("help", "macllm --help", "s", tuple(samples), target=Target("value", at_most=0.2))


def _import(settings: Settings) -> Row:
    """What ``import macllm`` adds: it has to come first to place the BLAS, so both orders are timed whole."""
    samples = []
    for turn in range(settings.process_repeats + 1):
        extra = import_seconds("import macllm, mlx.core") - import_seconds("import mlx.core")
        if turn:
            samples.append(max(extra, 0.0))
    foreign = sorted(FOREIGN & modules_after("import macllm; macllm.load"))
    figure = "import macllm over import mlx.core"
    if foreign:
        return Row("import", f"{figure} (imports {', '.join(foreign)})", "s", ())
    return Row("import", figure, "s", tuple(samples), target=Target("value", at_most=0.1))


def _load(settings: Settings) -> Iterator[Row]:
    for packed, words in ((False, "as placed here"), (True, "kept packed")):
        with Worker("worker_macllm") as worker:  # fresh: a peak is a process's
            sizes = worker.ask("load_peak", path=str(settings.model), packed=packed)
        peak = max(sizes["mlx_peak_bytes"], sizes["process_growth_bytes"])
        yield Row(
            "load",
            f"peak of a quantized load over bytes kept, {words}",
            "x",
            (peak / sizes["kept_bytes"],),
            target=Target("value", at_most=1.15),
        )


def _base(settings: Settings) -> Row:
    rows = 64 if settings.quick else 1024
    with Worker("worker_macllm") as worker:
        found = worker.ask("packed_bits", outputs=rows, inputs=4096)["bits"]
    figure = f"NF4 base of QLoRA, a matrix of {rows} x 4,096"
    return Row("finetune", figure, "bits a weight", (found,), target=Target("value", at_most=4.13))


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
