"""``macllm kernels``: which custom kernels there are and what is known of them here, or a check of them on the CPU."""

import argparse
import functools
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from macllm.cli.options import add_json
from macllm.cli.output import print_json, print_table, tell
from macllm.cli.progress import Progress
from macllm.errors import InputError

if TYPE_CHECKING:
    from macllm.kernels.harness.check import Row
    from macllm.kernels.kernel import Kernel
    from macllm.kernels.verdicts import Verdicts

HELP = "Show the custom kernels and what is known of them on this machine, or check them on the CPU."
BUILDS = ("fast", "lint", "address", "thread", "memory")
_TOLD_FAULTS = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument(
        "action",
        nargs="?",
        choices=("check",),
        help="check: run the kernels' Metal text on the CPU, compiled by clang, against exact results",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of one kernel (default: all)")
    parser.add_argument(
        "--build",
        choices=BUILDS,
        help="check in one build only: fast runs all cases, lint tells what Metal's language forbids, address, "
        "thread and memory watch what threads read and write (default: all)",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Shows the kernels, or checks some; exit code 1 where a case fails."""
    if args.action == "check":
        return _check(args.name, [args.build] if args.build else BUILDS, as_json=args.json)
    if args.build:
        raise InputError("--build is for a check: macllm kernels check --build fast")
    rows = listing()
    if args.json:
        print_json(rows)
        return 0
    headers = ("KERNEL", "STORAGE", "TYPES", "ROWS", "VERDICT", "WHY")
    cells = [
        (
            r["name"],
            ", ".join(r["modes"]),
            ", ".join(r["dtypes"]),
            _span(r["rows"]),
            r["verdict"],
            r["reason"],
        )
        for r in rows
    ]
    print_table(headers, cells)
    return 0


def listing() -> list[dict[str, Any]]:
    """A row per kernel, as JSON data."""
    from macllm.kernels.registry import KERNELS
    from macllm.kernels.verdicts import Verdicts, dtype_name

    known = Verdicts.load()
    rows = []
    for kernel in KERNELS.values():
        verdict, reason = _verdict(kernel, known)
        rows.append(
            {
                "name": kernel.name,
                "modes": list(kernel.modes),
                "dtypes": [dtype_name(dtype) for dtype in kernel.dtypes],
                "rows": list(kernel.rows),
                "twin": _qualified(kernel.twin),
                "verdict": verdict,
                "reason": reason,
            }
        )
    return rows


def _verdict(kernel: "Kernel", known: "Verdicts") -> tuple[str, str]:
    """What was found of a kernel here in all its types together, and why."""
    from macllm.kernels.runners import device_runner

    found = known.all_of(kernel)
    if not found:
        here = device_runner() is not None
        return "untried", "run `macllm doctor`" if here else "no GPU here: its twin computes instead"
    for each in found:
        if not each.good:
            return each.status, each.reason
    best = min(found, key=lambda each: -each.ratio)
    reason = f"{best.ratio:.2f} times as fast in {best.dtype}" if best.ratio else ""
    return best.status, best.reason or reason


def _qualified(twin: Callable[..., Any]) -> str:
    plain = twin.func if isinstance(twin, functools.partial) else twin
    return f"{plain.__module__}.{plain.__qualname__}"


def _span(rows: Sequence[int]) -> str:
    return str(rows[0]) if rows[0] == rows[1] else f"{rows[0]}-{rows[1]}"


def _check(name: str | None, builds: Sequence[str], *, as_json: bool) -> int:
    from macllm.kernels.harness.check import check
    from macllm.kernels.harness.compile import find_clang
    from macllm.kernels.registry import KERNELS

    if name is not None and name not in KERNELS:
        raise InputError(f"no kernel {name}; see `macllm kernels`")
    find_clang()  # one sentence now rather than after the first text was made
    kernels = [KERNELS[name]] if name is not None else list(KERNELS.values())
    rows: list[Row] = []
    with Progress("checking", len(kernels) * len(builds), unit="builds", passing=True) as progress:
        together = groupby(check(kernels, builds), key=lambda row: (row.kernel, row.build))
        for done, (_, found) in enumerate(together, 1):
            rows += found
            progress.update(done)
    if as_json:
        print_json({"cases": [row.as_json() for row in rows]})
    else:
        _show(rows)
    return 0 if all(row.ok for row in rows) else 1


def _show(rows: Sequence["Row"]) -> None:
    together: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        together.setdefault((row.kernel, row.build), []).append(row)
    cells = [(*key, *_summary(found)) for key, found in together.items()]
    print_table(("KERNEL", "BUILD", "CASES", "LARGEST ERROR", ""), cells, right=(2, 3))
    faults = [row for row in rows if not row.ok]
    for row in faults[:_TOLD_FAULTS]:
        tell(
            f"{row.kernel}, {row.build}, {row.label}, {row.dtype} {row.shape}, {row.rows} rows: {row.reason}"
        )
    if len(faults) > _TOLD_FAULTS:
        tell(f"... and {len(faults) - _TOLD_FAULTS} more: see --json")


def _summary(rows: Iterable["Row"]) -> tuple[str, str, str]:
    found = list(rows)
    errors = [row.max_rel_error for row in found if row.max_rel_error is not None]
    failed = sum(not row.ok for row in found)
    return str(len(found)), f"{max(errors):.1e}" if errors else "", f"{failed} FAIL" if failed else "right"
