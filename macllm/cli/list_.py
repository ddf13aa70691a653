"""``macllm list``: the installed models, or those of the catalogue."""

import argparse

from macllm.cli.output import print_json, print_table
from macllm.units import size

HELP = "show the installed models, or the catalogue"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--catalogue", action="store_true", help="show the models that macllm knows by name")
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(args: argparse.Namespace) -> int:
    """Shows one of the two lists."""
    return _catalogue(args.json) if args.catalogue else _installed(args.json)


def _installed(as_json: bool) -> int:
    from macllm.hub import store

    models = store.installed()
    if as_json:
        print_json(
            [
                {
                    "name": model.name,
                    "source": model.source,
                    "revision": model.revision,
                    "path": str(model.path),
                    "size_bytes": model.size_bytes,
                    "format": model.format,
                    "quantization": model.quantization,
                    "pulled": model.pulled,
                    "last_used": store.used_at(model.name),
                    "missing": model.missing,
                }
                for model in models
            ]
        )
        return 0
    if not models:
        print(
            "no model is installed; `macllm pull starter` fetches a small one, `macllm list --catalogue` shows more"
        )
        return 0
    rows = []
    for model in models:
        kind = f"{model.format} {model.quantization}".strip()
        used = (store.used_at(model.name) or "never").partition("T")[0]
        state = "files missing" if model.missing else size(model.size_bytes)
        rows.append((model.name, state, kind, used, model.source))
    print_table(("NAME", "SIZE", "FORMAT", "LAST USED", "SOURCE"), rows, right=(1,))
    return 0


def _catalogue(as_json: bool) -> int:
    from macllm.hub import catalogue, store

    here = {model.name for model in store.installed() if not model.missing}
    entries = catalogue.entries().values()
    if as_json:
        print_json(
            [
                {
                    "name": entry.name,
                    "title": entry.title,
                    "description": entry.description,
                    "source": str(entry.source),
                    "licence": entry.licence,
                    "parameters": entry.parameters,
                    "active_parameters": entry.active_parameters,
                    "size_bytes": entry.size_bytes,
                    "context": entry.context,
                    "min_memory_gb": entry.min_memory_gb,
                    "draft": entry.draft,
                    "installed": entry.name in here,
                }
                for entry in entries
            ]
        )
        return 0
    rows = [
        (
            entry.name + (" *" if entry.name in here else ""),
            size(entry.size_bytes),
            f"{entry.min_memory_gb} GB",
            f"{entry.context // 1024}k",
            entry.licence,
            entry.description,
        )
        for entry in entries
    ]
    print_table(("NAME", "SIZE", "MAC", "CONTEXT", "LICENCE", ""), rows, right=(1, 2, 3))
    if any(entry.name in here for entry in entries):
        print("* installed")
    return 0
