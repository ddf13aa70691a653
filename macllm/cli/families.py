"""``macllm families``: which architectures are native and which run through mlx-lm, and whether a family is right."""

import argparse
import ast
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from macllm.cli.options import add_json
from macllm.cli.output import print_json, print_table

HELP = (
    "Show which architectures macllm runs itself and which through mlx-lm, or compare one with its original."
)
WIDTH = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument(
        "--check",
        metavar="NAME",
        help="compare the native family NAME (a config's model_type, or `all`) with transformers, or where that is "
        "not installed with mlx-lm: a tiny model with random weights, the prompt at once and token by token",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Shows the families, or checks some; exit code 1 where one differs from its original."""
    if args.check is not None:
        return _check(args.check, as_json=args.json)
    from macllm.families.multimodal import TEXT_PARTS

    rows = [*_native(), *_fallback()]
    if args.json:
        print_json(rows)
        return 0
    print_table(
        ("MODEL TYPE", "BLOCKS"),
        [(row["model_type"], ", ".join(row["blocks"])) for row in rows if row["native"]],
    )
    others = ", ".join(row["model_type"] for row in rows if not row["native"])
    if not sys.stdout.isatty():
        print()
    print(textwrap.fill(f"Of {', '.join(sorted(TEXT_PARTS))}: the text model.", WIDTH) + "\n")
    print(textwrap.fill(f"Through mlx-lm's classes: {others}.", WIDTH))
    return 0


def _check(name: str, *, as_json: bool) -> int:
    from macllm.families.registry import FAMILIES
    from macllm.parity import TOLERANCE, check

    found = [check(each) for each in (sorted(FAMILIES) if name == "all" else [name])]
    if as_json:
        rows = [{**asdict(parity), "tolerance": TOLERANCE, "ok": parity.ok} for parity in found]
        print_json(rows if name == "all" else rows[0])
    else:
        cells = [
            (p.model_type, p.reference, f"{p.whole:.1e}", f"{p.stepwise:.1e}", "equal" if p.ok else "DIFFERS")
            for p in found
        ]
        print_table(("MODEL TYPE", "AGAINST", "AT ONCE", "STEPWISE", ""), cells, right=(2, 3))
    return 0 if all(parity.ok for parity in found) else 1


def _native() -> Iterator[dict[str, Any]]:
    from macllm.describe import block_names
    from macllm.families import spec_from_config
    from macllm.families.registry import FAMILIES
    from macllm.families.tiny import tiny_config

    for model_type in sorted(FAMILIES):
        blocks = block_names(spec_from_config(tiny_config(model_type)))
        yield {"model_type": model_type, "native": True, "blocks": blocks}


def _fallback() -> Iterator[dict[str, Any]]:
    """The architectures that mlx-lm has a class for and macllm no family; none of their modules is run."""
    from macllm.families.multimodal import TEXT_PARTS
    from macllm.families.registry import FAMILIES

    package = find_spec("mlx_lm")
    for place in (package.submodule_search_locations or []) if package is not None else []:
        for file in sorted((Path(place) / "models").glob("*.py")):
            if file.stem not in {*FAMILIES, *TEXT_PARTS} and _defines_a_model(file):
                yield {"model_type": file.stem, "native": False, "blocks": []}


def _defines_a_model(file: Path) -> bool:
    names = {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)}
    return {"Model", "ModelArgs"} <= names
