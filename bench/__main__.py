"""``python -m bench``: measures macllm beside its peers. The figures judge, the exit code does not."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.rows import HEADERS, RIGHT, Report
from bench.settings import GROUPS, Settings
from bench.suite import report
from macllm.cli.output import print_table

RESULTS = Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark. Exit code 0 whether targets are met or not."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--model", default="starter", help="what to measure: a name or a GGUF file (starter)")
    parser.add_argument("--only", action="append", choices=GROUPS, default=[], help="only these rows")
    parser.add_argument("--quick", action="store_true", help="shorter prompts, one turn: to see that it runs")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="where to write (bench/results/<time>.json)"
    )
    args = parser.parse_args(argv)

    start = time.monotonic()
    settings = make_settings(args.model, args.only, args.quick)
    done = report(
        settings, lambda text: print(f"[{time.monotonic() - start:4.0f} s] {text}", file=sys.stderr)
    )
    show(done)
    file = args.json or RESULTS / time.strftime("%Y%m%d-%H%M%S.json")
    write(done, file)
    print(f"{time.monotonic() - start:.0f} s; all samples in {file}", file=sys.stderr)
    return 0


def make_settings(model: str, only: Sequence[str], quick: bool, results: Path = RESULTS) -> Settings:
    """The settings of the command's options."""
    from macllm.hub.pull import find
    from macllm.weights.model_files import open_model

    path = find(model).path
    settings = Settings(path, open_model(path).spec.vocab, results, tuple(only))
    if quick:
        return replace(
            settings,
            quick=True,
            prompt_tokens=64,
            decode_tokens=8,
            repeats=1,
            process_repeats=1,
            host_steps=20,
        )
    return settings


def show(done: Report) -> None:
    """Prints the table and what it was taken on."""
    print_table(HEADERS, done.table(), right=RIGHT)
    print()
    print(", ".join(f"{name} {value}" for name, value in done.machine.items()))


def write(done: Report, file: Path) -> None:
    """Writes the report as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(done.as_dict(), indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
