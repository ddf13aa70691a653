"""``macllm convert``: writes a model in another precision, as a folder that MLX tools load."""

import argparse
from typing import TYPE_CHECKING, Any

from macllm.backend import DTYPES
from macllm.cli.download import DownloadDisplay
from macllm.cli.options import add_json
from macllm.cli.output import print_json, tell
from macllm.cli.progress import Progress
from macllm.errors import Cancelled, OptionError
from macllm.quantization import DEFAULTS, RECIPES
from macllm.units import size

if TYPE_CHECKING:
    from macllm.weights.convert import Conversion, Event

HELP = "write a model in another precision"

EPILOG = """examples:
  macllm convert org/name out -q                       4-bit, groups of 64
  macllm convert org/name out -q --q-bits 8            8-bit
  macllm convert org/name out --q-mode mxfp4           another number format
  macllm convert model.gguf out                        a GGUF's codes, repacked exactly
  macllm convert 4bit-folder out -d --dtype float16    back to 16 bits

Interrupted, the same command goes on where it stopped. What is quantized already is never
quantized again unless --requantize says so."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments, flags as mlx-lm has them."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("first", metavar="SRC", help="a model (see `macllm pull --help`)")
    parser.add_argument("second", metavar="DST", help="the folder to write")
    parser.add_argument(
        "--hf-path",
        "--model",
        dest="source",
        metavar="SRC",
        action=_InsteadOfPosition,
        help="the same as SRC",
    )
    parser.add_argument(
        "--mlx-path", dest="destination", metavar="DST", action=_InsteadOfPosition, help="the same as DST"
    )
    group = parser.add_argument_group("quantization (any --q option or recipe implies -q)")
    group.add_argument("-q", "--quantize", action="store_true", help="quantize what is not quantized yet")
    group.add_argument("--q-bits", type=int, metavar="N", help="2, 3, 4, 5, 6 or 8 (default: the mode's)")
    group.add_argument("--q-group-size", type=int, metavar="N", help="32, 64 or 128 weights share a scale")
    group.add_argument("--q-mode", choices=list(DEFAULTS), help="number format (default: affine)")
    group.add_argument(
        "--quant-predicate", choices=list(RECIPES), help="mixed bits: more for the matrices that need them"
    )
    group.add_argument("--requantize", action="store_true", help="quantize again what is quantized already")
    group.add_argument("-d", "--dequantize", action="store_true", help="expand what is quantized")
    parser.add_argument("--dtype", choices=DTYPES, help="type of what is not packed, scales included")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Converts and says what came of it."""
    from pathlib import Path

    from macllm.hub.pull import find
    from macllm.weights.convert import convert, refuse_existing
    from macllm.weights.plan import Target

    source, destination = _places(args)
    target = Target(
        quantize=args.quantize,
        bits=args.q_bits,
        group_size=args.q_group_size,
        mode=args.q_mode,
        recipe=args.quant_predicate,
        dtype=args.dtype,
        dequantize=args.dequantize,
        requantize=args.requantize,
    )
    refuse_existing(Path(destination).expanduser())  # before a download
    try:
        with DownloadDisplay(source) as display:
            found = find(source, display)
        with _Display(f"converting {source}") as shown:
            done = convert(found.path, Path(destination).expanduser(), target, shown)
    except KeyboardInterrupt:
        raise Cancelled("interrupted; the same command goes on where it stopped") from None
    if args.json:
        print_json(as_json(done))
    else:
        print(f"{done.path}: {summary(done)}")
    return 0


class _InsteadOfPosition(argparse.Action):
    """A flag that says what a position would: each makes one position optional."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, values)
        required = [action for action in parser._actions if action.required and not action.option_strings]
        if required:
            required[-1].required = False


class _Display:
    """Shows a conversion on stderr: a bar, and what there is to know at its end."""

    def __init__(self, label: str) -> None:
        self._bar = Progress(label)

    def __enter__(self) -> "_Display":
        self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)

    def __call__(self, event: "Event") -> None:
        from macllm.weights.convert import Converted, Notice, Planned

        if isinstance(event, Planned):
            if event.present_bytes:
                tell(f"resuming: {size(event.present_bytes)} of {size(event.total_bytes)} are written")
            self._bar.update(event.present_bytes, event.total_bytes)
        elif isinstance(event, Converted):
            self._bar.update(event.done_bytes, event.total_bytes)
        elif isinstance(event, Notice):
            tell(f"note: {event.text}")


def _places(args: argparse.Namespace) -> tuple[str, str]:
    """SRC and DST, by position or by mlx-lm's flags."""
    places = [place for place in (args.first, args.second) if place is not None]
    source = args.source or places.pop(0)
    destination = args.destination or places.pop(0)
    if places:
        raise OptionError(f"'{places[0]}' is one argument too many; see `macllm convert --help`")
    return source, destination


def summary(done: "Conversion") -> str:
    """The size and the form of what was written."""
    default = done.quantization.default
    form = str(default) if default is not None else (done.dtype or "types as they were")
    return (
        f"{done.parameters / 1e6:,.0f}M parameters, {size(done.size_bytes)}, {form}, "
        f"{done.bits_per_weight:.2f} bits a weight"
    )


def as_json(done: "Conversion") -> dict[str, Any]:
    """A conversion for ``--json``."""
    return {
        "path": str(done.path),
        "parameters": done.parameters,
        "size_bytes": done.size_bytes,
        "bits_per_weight": done.bits_per_weight,
        "quantization": done.quantization.to_config() or None,
        "dtype": done.dtype,
        "matrices": {"kept": len(done.kept), "quantized": len(done.quantized), "plain": len(done.plain)},
        "notices": list(done.notices),
        "elapsed_s": done.elapsed_s,
        "peak_memory_bytes": done.peak_memory_bytes,
    }
