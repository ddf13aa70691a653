"""``macllm fuse``: writes a model with an adapter in its weights, as a folder that MLX tools load."""

import argparse
from typing import TYPE_CHECKING, Any

from macllm.cli.convert import as_json as conversion_json
from macllm.cli.convert import summary
from macllm.cli.download import DownloadDisplay
from macllm.cli.options import add_json
from macllm.cli.output import print_json, print_table, tell
from macllm.cli.progress import Progress
from macllm.errors import Cancelled
from macllm.quantization import AFFINE_BITS
from macllm.units import size

if TYPE_CHECKING:
    from macllm.adapters.fuse import Fidelity, Fusion, Measured
    from macllm.weights.convert import Event

HELP = "write a model with an adapter in its weights"
_SHOWN = 8  # tensors, those that keep least of their change

EPILOG = """examples:
  macllm fuse starter my-adapter out --bits 8       the changed matrices in 8 bits
  macllm fuse starter my-adapter out --dequantize   all in 16 bits

Four-bit weights are too coarse for most of what is learned: each tensor's change is compared
with the wanted one first, and nothing is written where one would keep less than 0.95 (cosine),
unless --force says so. Without options matrices stay packed as they are; rows that did not
change keep their codes. Interrupted, the same command goes on where it stopped."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("model", metavar="MODEL", help="the base: an installed name, a repository, a path")
    parser.add_argument("adapter", metavar="ADAPTER", help="a name `macllm adapters list` shows, or a folder")
    parser.add_argument("out", metavar="OUT", help="the folder to write")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--bits",
        type=int,
        choices=AFFINE_BITS,
        help="quantize what changed, and what is plain, in so many bits",
    )
    form.add_argument("--dequantize", action="store_true", help="write all in 16 bits")
    parser.add_argument(
        "--force", action="store_true", help="write it even where little of the change is kept"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Fuses and says how much of each change is kept."""
    from pathlib import Path

    from macllm.adapters.fuse import fuse
    from macllm.adapters.kept import find as find_adapter
    from macllm.hub.pull import find
    from macllm.weights.convert import refuse_existing

    out = Path(args.out).expanduser()
    refuse_existing(out)  # before a download
    adapter = find_adapter(args.adapter)
    try:
        with DownloadDisplay(args.model) as display:
            found = find(args.model, display)
        with _Display(args.adapter) as shown:
            done = fuse(
                found.path,
                adapter,
                out,
                bits=args.bits,
                dequantize=args.dequantize,
                force=args.force,
                report=shown,
            )
    except KeyboardInterrupt:
        raise Cancelled("interrupted; the same command goes on where it stopped") from None
    if args.json:
        print_json(_as_json(done))
    else:
        _show(done)
    return 0


class _Display:
    """Shows on stderr how far the look at the changes is, and then the writing."""

    def __init__(self, adapter: str) -> None:
        self._looking = Progress(f"looking at {adapter}", unit="tensors", passing=True)
        self._writing = Progress("writing")

    def __enter__(self) -> "_Display":
        self._looking.__enter__()
        self._writing.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writing.__exit__(*error)
        self._looking.__exit__(*error)

    def __call__(self, event: "Measured | Event") -> None:
        from macllm.adapters.fuse import Measured
        from macllm.weights.convert import Converted, Notice, Planned

        if isinstance(event, Measured):
            self._looking.update(event.done, event.total)
        elif isinstance(event, Planned):
            self._looking.__exit__(None, None, None)
            if event.present_bytes:
                tell(f"resuming: {size(event.present_bytes)} of {size(event.total_bytes)} are written")
            self._writing.update(event.present_bytes, event.total_bytes)
        elif isinstance(event, Converted):
            self._writing.update(event.done_bytes, event.total_bytes)
        elif isinstance(event, Notice):
            tell(f"note: {event.text}")


def _show(done: "Fusion") -> None:
    print(f"{done.conversion.path}: {summary(done.conversion)}")
    if not done.tensors:
        print("the adapter changes nothing; every tensor is as it was")
        return
    least = sorted(done.tensors, key=lambda one: one.cosine)[:_SHOWN]
    print(f"{len(done.tensors)} tensors changed; those that keep least of what was learned:\n")
    rows = [
        [one.name.removesuffix(".weight"), f"{one.cosine:.4f}", f"{one.relative:.2%}", _form(one)]
        for one in least
    ]
    print_table(["tensor", "cosine", "change", "stored as"], rows, right=(1, 2))


def _form(tensor: "Fidelity") -> str:
    return str(tensor.packing) if tensor.packing is not None else "plain"


def _as_json(done: "Fusion") -> dict[str, Any]:
    worst = done.worst
    return {
        **conversion_json(done.conversion),
        "least_cosine": worst.cosine if worst is not None else None,
        "tensors": [
            {"name": one.name, "cosine": one.cosine, "relative_change": one.relative, "stored_as": _form(one)}
            for one in done.tensors
        ],
    }
