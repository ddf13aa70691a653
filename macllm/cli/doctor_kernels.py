"""What ``macllm doctor`` says of the custom kernels: each tried beside its twin and timed beside its rival."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from macllm.cli.output import print_table, tell
from macllm.errors import InputError

if TYPE_CHECKING:
    from macllm.kernels.verdicts import Verdict
    from macllm.kernels.workload import Workload

HEADERS = ("KERNEL", "TYPE", "SHAPE", "ROWS", "ERROR", "KERNEL TIME", "RIVAL TIME", "RATIO", "VERDICT")


def reason_for_none() -> str:
    """Why no kernel is tried here; empty where they are. Raises OptionError for a wrong MACLLM_KERNELS."""
    from macllm.kernels.permission import runner, setting

    if setting() == "off":
        return "off, because MACLLM_KERNELS=off asks for it; their twins in plain MLX run"
    if runner() is None:
        return "none, because they need a GPU; their twins in plain MLX run"
    return ""


def check_target(file: Path) -> None:
    """Refuses a report that cannot be written, before minutes are spent on what goes into it."""
    if file.is_dir():
        raise InputError(f"--report {file}: this is a folder; name a file in it")
    if not file.parent.is_dir():
        raise InputError(f"--report {file}: there is no folder {file.parent}; make it, or name another file")


def tried(work: "Workload") -> list["Verdict"]:
    """Tries all kernels at the shapes of ``work``; says on stderr how far it is."""
    from macllm.kernels import registry
    from macllm.kernels.examination import examine

    count = len(registry.KERNELS)
    found: list[Verdict] = []
    tell(f"trying {count} kernels, each beside its twin and against the clock")
    for number, (kernel, verdicts) in enumerate(examine(work), 1):
        found += verdicts
        tell(f"{number} of {count}: {kernel.name}: {_said(verdicts)}")
    return found


def write_report(file: Path, verdicts: Sequence["Verdict"]) -> None:
    """Writes the shareable report, whole or not at all. Raises OSError."""
    from macllm.kernels.examination import shareable

    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(shareable(verdicts), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(file)


def rows(verdicts: Sequence["Verdict"]) -> list[dict[str, Any]]:
    """The verdicts as JSON data."""
    if not verdicts:
        return []
    from macllm.kernels.examination import row

    return list(map(row, verdicts))


def show(verdicts: Sequence["Verdict"]) -> None:
    """Prints the table, and below it why a kernel is bad."""
    print_table(HEADERS, list(map(_cells, verdicts)), right=(3, 4, 5, 6, 7))
    for each in verdicts:
        if each.reason:
            print(f"{each.kernel}, {each.dtype}: {each.reason}")


def workload(model: str | None) -> "Workload":
    """The shapes of ``model``, or of Llama 3.1 8B. Raises MacllmError where there is no such model."""
    import mlx.core as mx

    from macllm.backend import current
    from macllm.kernels.workload import of_spec, standard

    dtype = getattr(mx, current().dtype)
    if model is None:
        return standard(dtype)
    from macllm.cli.explain import find

    files = find(model)
    if not files.native:
        raise InputError(
            f"{model}: mlx-lm's classes run this architecture, so macllm has no shapes of it; leave --model out"
        )
    return of_spec(files.spec, dtype)


def _said(verdicts: Sequence["Verdict"]) -> str:
    """In a word or two: bad where one is, else how many times as fast."""
    bad = next((each for each in verdicts if not each.good), None)
    if bad is not None:
        return bad.status
    ratios = [each.ratio for each in verdicts if each.kernel_s > 0]
    return f"right, {min(ratios):.2f} to {max(ratios):.2f} times as fast" if ratios else "right"


def _cells(verdict: "Verdict") -> tuple[object, ...]:
    timed = verdict.kernel_s > 0
    return (
        verdict.kernel,
        verdict.dtype,
        " x ".join(map(str, verdict.shape)) or "-",
        verdict.rows or "-",
        f"{verdict.error:.1e}",
        _microseconds(verdict.kernel_s) if timed else "-",
        _microseconds(verdict.rival_s) if timed else "-",
        f"{verdict.ratio:.2f}" if timed else "-",
        verdict.status,
    )


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us"
