"""``macllm explain``: what a model is, layer by layer, how its weights are placed, and on which Mac it fits."""

import argparse
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from macllm.cli import roofline
from macllm.cli.options import add_json, add_kv_bits, positive
from macllm.cli.output import print_json, print_table
from macllm.units import count, size

if TYPE_CHECKING:
    from macllm.explain import Explanation
    from macllm.kernels.roofline import Roofline
    from macllm.spec import Layer, ModelSpec
    from macllm.weights.model_files import ModelFiles

HELP = "Show what a model is, how its weights are stored, and on which Mac it fits. Nothing is downloaded or loaded."
WIDTH = 80
GB = 1e9
ROOFLINE_CONTEXT = 4096  # tokens
_COUNTED = (
    "-: does not fit. Usable is what macOS lets the GPU take by default: about two thirds of the memory up to 32 GB,"
    " three quarters above (Metal's recommendedMaxWorkingSetSize; `macllm doctor` shows this machine's). Counted are"
    " weights, a KV cache in {kv} bits and one prefill chunk; for QLoRA a rank 8 adapter on 4-bit weights and a"
    " sequence of 2,048 tokens."
)
_HEADS = {"16": "16-bit", "8": "8-bit", "4": "4-bit", "stored": "as is"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a folder with a config.json, a .gguf file, an installed or catalogue name, a repository",
    )
    parser.add_argument(
        "--context",
        type=positive,
        metavar="N",
        help="show the memory that N tokens of context take (default: the longest that fits)",
    )
    parser.add_argument(
        "--roofline",
        action="store_true",
        help="show instead how many tokens a second each chip can make at most, at N tokens of context (4096)",
    )
    add_kv_bits(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Shows the explanation."""
    from macllm.explain import explain

    files = find(args.model)
    name = None if Path(args.model).expanduser().exists() else args.model
    found = explain(files, name=name, context=args.context, dtype=_dtype(), kv_bits=args.kv_bits)
    bounds = _roofline(files, args.context, args.kv_bits) if args.roofline else None
    if args.json:
        print_json(as_json(found) | ({"roofline": roofline.as_json(bounds)} if bounds is not None else {}))
    elif bounds is not None:
        print("\n".join(header(found)))
        roofline.show(bounds)
    else:
        show(found, args.context)
    return 0


def _roofline(files: "ModelFiles", context: int | None, kv_bits: int | None) -> "Roofline":
    """Raises OptionError where what a token reads is not known."""
    from macllm.errors import OptionError
    from macllm.kernels.roofline import roofline as bounds_of

    if not files.native:
        raise OptionError(
            f"{files.label}: mlx-lm's classes run this architecture, and what they read is not known; "
            "explain it without --roofline"
        )
    tokens = context or min(ROOFLINE_CONTEXT, files.spec.max_context)
    return bounds_of(files.spec, files.stored_formats(), tokens, kv_bits)


def find(text: str) -> "ModelFiles":
    """The model that a name, path or source means. Of a repository that is not installed, only the config."""
    from macllm.errors import SourceError
    from macllm.hub import catalogue, source, store
    from macllm.weights.model_files import ModelFiles, open_model

    installed = store.resolve(text)
    if installed is not None:
        return open_model(installed.path)
    known = catalogue.entries()
    wanted = source.parse(text, known)
    if isinstance(wanted, source.CatalogueSource):
        entry = known[wanted.name]
        local = store.resolve(str(entry.source))
        if local is not None:
            return open_model(local.path)
        wanted = entry.source
    if isinstance(wanted, source.LocalSource):
        return open_model(wanted.path)
    if isinstance(wanted, source.HubSource) and wanted.file is None and wanted.quant is None:
        from macllm.hub.config_file import fetch_config

        return ModelFiles(Path(wanted.repo), fetch_config(wanted))
    raise SourceError(f"{text} is not installed; pull it with `macllm pull {text}`, then explain it")


def as_json(found: "Explanation") -> dict[str, Any]:
    """The explanation's facts; the promised keys first."""
    promised = "family native layers parameters weight_bytes kv_bytes_per_token max_context rewindable trainable_memory"
    more = "name context kv_bits kv_bytes state_bytes rewind_tokens needed_bytes placements fits notes"
    values = asdict(found)
    return {key: values[key] for key in f"{promised} {more}".split()}


def show(found: "Explanation", context: int | None) -> None:
    """Prints the header, the layers, the weights' formats and the table of Macs."""
    print("\n".join(header(found)))
    if found.spec is not None:
        print("\n" + "\n".join(diagram(found.spec)))
    if found.placements:
        _gap()
        rows = [(p.format, p.tensors, size(p.bytes), p.placement) for p in found.placements]
        print_table(("WEIGHTS", "TENSORS", "SIZE", "IN MEMORY"), rows, right=(1, 2))
    if found.fits:
        _gap()
        _show_fits(found, context)
    else:
        print("\nNot enough is known of this architecture to say on which Mac it fits.")
    for note in found.notes:
        print("\n" + textwrap.fill(note, WIDTH))


def header(found: "Explanation") -> list[str]:
    """One to three lines: name, family, and the sizes that are known."""
    runs = "native" if found.native else "not native: run by mlx-lm's classes, where it has them"
    kv = f" {found.kv_bits}-bit" if found.kv_bits is not None else ""
    facts = {
        "{} parameters": found.parameters and count(found.parameters),
        "{} layers": found.layers,
        "context {}": found.max_context and f"{found.max_context:,}",
        "{} of weights": found.weight_bytes and size(found.weight_bytes),
        f"{{}} of{kv} KV cache a token": found.kv_bytes_per_token and size(found.kv_bytes_per_token),
        "{} of state": size(found.state_bytes) if found.state_bytes else None,
    }
    words = ", ".join(text.format(value) for text, value in facts.items() if value is not None)
    whole = found.spec.part_of if found.spec is not None else None
    part = f", the text part of {whole}" if whole is not None else ""
    return [
        f"{found.name}  ({found.family}{part}, {runs})",
        *(_wrapped("  ", words, break_at=", ") if words else ()),
    ]


def diagram(spec: "ModelSpec") -> list[str]:
    """The layers from the embedding to the head, equal ones folded."""
    scaled = f", times {spec.embed_scale:.4g}" if spec.embed_scale is not None else ""
    tied = ", also the head" if spec.tied else ""
    kinds = list(dict.fromkeys(spec.layers))
    lines = [f"  embed   {spec.vocab:,} x {spec.dim:,}{scaled}{tied}", "    │"]
    if len(kinds) == 1:
        lines += [f"  {_span('layer', 0, len(spec.layers) - 1)}", *_block(kinds[0])]
    else:
        labels = _labels(kinds)
        lines += _wrapped("  layers  ", " | ".join(_runs(spec.layers, labels)), break_at=" | ")
        for kind in kinds:
            count = sum(layer == kind for layer in spec.layers)
            lines += [
                "    │",
                f"  {labels[kind]}: {count} {'layer' if count == 1 else 'layers'}",
                *_block(kind),
            ]
    return [*lines, "    │", "  norm", f"  head    {spec.dim:,} → {spec.vocab:,}"]


def _block(layer: "Layer") -> Iterator[str]:
    from macllm.describe import beside_words, block_name, block_words

    blocks = [(name, block) for name, block in (("mixer", layer.mixer), ("channel", layer.channel)) if block]
    rows = [(_head(layer, name, block_name(block)), block_words(block)) for name, block in blocks]
    rows += [(f"    ├─ {name}", words) for name, words in beside_words(layer)]
    width = max(len(head) for head, _ in rows) + 2
    for head, words in rows:
        yield from _wrapped(head.ljust(width), words, break_at=", ", margin="    │")


def _head(layer: "Layer", which: str, name: str) -> str:
    """``├─ norm ─ attention ─ norm``, as the norms stand."""
    norms = layer.norms
    before = "norm ─ " if f"{which}_norm" in norms or layer.placement == "parallel" else ""
    after = " ─ norm" if f"{which}_post_norm" in norms else ""
    branch = "├┬" if layer.placement.startswith("parallel") and which == "mixer" else "├─"
    if layer.placement.startswith("parallel") and which == "channel":
        branch = "├┴"
    return f"    {branch} {before}{name}{after}"


def _labels(kinds: Sequence["Layer"]) -> dict["Layer", str]:
    """A short name for each kind of layer, with a number where that does not tell them apart."""
    from macllm.describe import layer_label

    names = [layer_label(kind) for kind in kinds]
    if len(set(names)) < len(names):
        names = [f"{name} (kind {number})" for number, name in enumerate(names, 1)]
    return dict(zip(kinds, names, strict=True))


def _runs(layers: Sequence["Layer"], labels: dict["Layer", str]) -> Iterator[str]:
    """``0-4 sliding 512``, ``5 full``, ...: neighbours of one kind together."""
    first = 0
    for index, layer in enumerate(layers):
        if index + 1 == len(layers) or layers[index + 1] != layer:
            span = f"{first}-{index}" if index > first else f"{first}"
            yield f"{span} {labels[layer]}"
            first = index + 1


def _span(noun: str, first: int, last: int) -> str:
    return f"{noun}s  {first}-{last}, all alike" if last > first else f"{noun}   {first}"


def _wrapped(head: str, words: str, *, break_at: str, margin: str = "") -> list[str]:
    """``words`` after ``head``, broken within 80 columns only at ``break_at``, continued below their start."""
    lines, line = [], head
    for index, part in enumerate(words.split(break_at)):
        joint = break_at if index else ""
        if index and len(line) + len(joint) + len(part) + len(break_at.rstrip()) > WIDTH:
            lines.append((line + joint).rstrip())
            line, joint = margin.ljust(len(head)), ""
        line += joint + part
    return [*lines, line]


def _show_fits(found: "Explanation", context: int | None) -> None:
    keys = [key for key in _HEADS if key in found.needed_bytes]
    rows = []
    for fit in found.fits:
        cells = [_cell(fit.contexts[key], found.needed_bytes[key], fit.usable_bytes, context) for key in keys]
        qlora = {True: "fits", False: "-", None: "?"}[fit.qlora]
        rows.append((f"{fit.memory_gb} GB", f"{fit.usable_bytes / GB:.1f} GB", *cells, qlora))
    if context is None:
        print("The longest context that fits, by the Mac's memory and the weights' precision:")
    else:
        print(f"Memory that {context:,} tokens of context take, by the weights' precision:")
    heads = ("MAC", "USABLE", *(_HEADS[key] for key in keys), "QLoRA")
    print_table(heads, rows, right=range(len(heads)))
    _gap()
    print(textwrap.fill(_COUNTED.format(kv=found.kv_bits or 16), WIDTH))


def _gap() -> None:
    """An empty line beside a table; on a terminal tables bring their own."""
    if not sys.stdout.isatty():
        print()


def _cell(longest: int, needed: int, usable: int, context: int | None) -> str:
    if context is not None:
        return f"{needed / GB:.1f} GB" if needed <= usable else "-"
    if longest < 1024:
        return f"{longest}" if longest else "-"
    return f"{longest // 1024}k"


def _dtype() -> str:
    """The type a GPU would compute in: this machine's, or on a CPU, which is for trying out, a Mac's."""
    from macllm.backend import current

    backend = current()
    return backend.dtype if backend.name != "cpu" else "float16"
