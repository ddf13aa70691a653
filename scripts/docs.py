"""Writes the parts of docs/ that are generated: help texts, the keys, tables, the app's pictures.

python scripts/docs.py                   writes them, and the number of architectures in README.md
python scripts/docs.py --check           fails where one is out of date (tests/test_docs.py does the same)
python scripts/docs.py --take RAW NAME   makes docs/recordings/NAME.jsonl of what `macllm chat --record RAW` wrote
"""

import argparse
import asyncio
import contextlib
import html
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from docs_finetuning import methods_page, objectives_page
from docs_parts import NOTE, ROOT, code, real_spec, table

DOCS = ROOT / "docs"
_BOUNDED = (
    "llama-3.2-1b",
    "llama-3.1-8b",
    "qwen3-30b-a3b",
    "gemma-3-1b-it",
)  # dense, experts, sliding windows
_CONTEXTS = (1024, 32768)
_BANDWIDTHS = (120, 273, 400, 546, 819)  # GB/s: M4, M4 Pro, M3 Max, M4 Max, M3 Ultra
_PLACES = {
    "chat": ("Anywhere", "Esc first closes what is open: a drawer, a list, a notice."),
    "prompt": ("In the prompt", "Other keys edit the text as in every terminal editor field."),
    "message": ("On a message", "`alt+up` chooses a message; typing goes on in the prompt after `esc`."),
}


def commands() -> str:
    """``docs/commands.md``: every command's help, as the program prints it."""
    from macllm.cli.main import COMMANDS, main

    os.environ["COLUMNS"] = "100"
    parts = [NOTE, "# Commands\n"]
    for words in ([], *([name] for name in COMMANDS)):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            main([*words, "--help"])
        title = " ".join(["macllm", *words])
        parts.append(f"## {title}\n\n```text\n{out.getvalue().strip()}\n```\n")
    return "\n".join(parts)


def catalogue() -> str:
    """``docs/catalogue.md``: the models known by name."""
    from macllm.hub.catalogue import entries
    from macllm.units import size

    rows = [
        f"| `{e.name}` | {e.title} | {size(e.size_bytes)} | {e.context:,} | {e.min_memory_gb} GB | {e.licence} |"
        for e in entries().values()
    ]
    head = "| name | model | download | context | smallest Mac | licence |\n| --- | --- | --: | --: | --: | --- |"
    return "\n".join([NOTE, "# Catalogue\n", "`macllm pull NAME` fetches one.\n", head, *rows]) + "\n"


def families() -> str:
    """``docs/families.md``: the architectures that macllm runs itself, and of which blocks."""
    from macllm.describe import block_names
    from macllm.families import spec_from_config
    from macllm.families.registry import FAMILIES
    from macllm.families.tiny import tiny_config

    rows = []
    for model_type in sorted(FAMILIES):
        what = (FAMILIES[model_type].__doc__ or "").strip().splitlines()[0]
        blocks = ", ".join(block_names(spec_from_config(tiny_config(model_type))))
        rows.append(f"| `{model_type}` | {what.removesuffix('.')} | {blocks} |")
    note = (
        "By the `model_type` of a model's `config.json`. `macllm families` shows these and what runs through mlx-lm's\n"
        "classes; `macllm families --check NAME` compares one with its original.\n"
    )
    head = "| model type | what it is | blocks |\n| --- | --- | --- |"
    return "\n".join([NOTE, "# Architectures\n", note, head, *rows]) + "\n"


_KERNEL_CHECK = """
`macllm kernels check` runs the Metal text of the custom kernels on the CPU: the text that MLX itself would hand to
Apple's compiler, compiled by clang 19 as C++ with stand-ins for Metal's library, each thread of the GPU a fiber. It
needs no Mac, only Linux and clang (Debian: `apt-get install clang-19 libclang-rt-19-dev`).

- **fast** finds wrong numbers (against float64), touches outside of a buffer on both sides, elements that are never
  written, results that depend on the order of threads, barriers that not all threads reach, and more than 32 KB of
  threadgroup memory. It runs all cases of a kernel, the others its edges.
- **lint** finds what Metal's language forbids and C++ does not: pointers into the wrong address space, double, a
  bfloat from a float without a cast.
- **address** finds touches outside of an array on the stack or in threadgroup memory, misaligned loads, and shifts
  and overflows that have no defined result.
- **thread** finds two threads that touch one place, one of them writing, without a barrier between.
- **memory** finds numbers that come from what was never written.

It cannot see speed, registers, or what Apple's compiler makes of the text: those are for `macllm doctor` on a Mac.

Would it find a bug? Each of these is planted into a kernel in a test (`tests/metal`), and must be reported by the
build named. The kernels `small_...` are the tests' own: they use what no kernel of macllm's does.
""".lstrip()


def kernel_check() -> str:
    """``docs/kernel-check.md``: how kernels are proven without a Mac, and the bugs that are planted to see whether."""
    sys.path.insert(0, str(ROOT / "tests" / "metal"))
    from mutants import page

    return "\n".join([NOTE, "# How custom kernels are checked\n", _KERNEL_CHECK, page()])


def roofline() -> str:
    """``docs/roofline.md``: the most tokens a second, of some models on every chip, and by whose kernels."""
    short, long = (f"{context:,}" for context in _CONTEXTS)
    chips_note = (
        "The most tokens a second that memory allows in decoding, with every matrix in 4 bits (affine, groups of\n"
        f"64), at {short} and at {long} tokens of context. `macllm explain MODEL --roofline` shows the same of any\n"
        "model, as its weights are and in other formats; `macllm bench` says which share of it this machine reaches.\n"
    )
    ways_note = (
        "The same of Llama-3.1-8B by memory bandwidth: what macllm's own kernels multiply as it lies, beside what\n"
        "must be done for MLX's kernels. They have no NF4, which is expanded to 16 bits at each use. GGUF blocks are\n"
        "held in affine groups of 32 where those hold the codes, else in 16 bits. Their fused attention takes plain\n"
        "keys and values: quantized ones are expanded for it (mlx-lm makes two quantized products instead, which\n"
        "move the scores of all heads in place of the copy). Weights are without a context, keys and values at\n"
        f"{long} tokens beside weights in 4 bits.\n"
    )
    parts = [NOTE, "# How fast a model can be\n", chips_note, _chips_table(), "## Whose kernels\n", ways_note]
    return "\n".join([*parts, _ways_table()])


def _chips_table() -> str:
    from macllm.kernels.chips import CHIPS
    from macllm.kernels.cost import step
    from macllm.kernels.roofline import CHOICES, quantized

    costs = []
    for spec in map(real_spec, _BOUNDED):
        costs.append([step(spec, quantized(spec, CHOICES["4"]), context) for context in _CONTEXTS])
    rows = []
    for chip in CHIPS:
        cells = [
            ", ".join(f"{cost.tokens_per_s(chip.bandwidth_gb_s):.0f}" for cost in each) for each in costs
        ]
        label = f"{chip.name}, {chip.gpu_cores} cores"
        rows.append([label, f"{chip.bandwidth_gb_s:g} GB/s", *cells, chip.source])
    return table(["chip", "memory", *_BOUNDED, "bandwidth according to"], rows, plain=(0, len(_BOUNDED) + 2))


def _ways_table() -> str:
    from macllm.kernels.cost import Formats, Setting, Way, step
    from macllm.kernels.roofline import CHOICES, q4_k_m, quantized
    from macllm.quantization import Quantization

    spec = real_spec("llama-3.1-8b")
    four, nf4 = (quantized(spec, CHOICES[name]) for name in ("4", "nf4"))
    wanted: list[tuple[str, Formats, Quantization | None, str]] = [
        ("affine 4-bit", four, None, ""),
        ("NF4", nf4, None, "expanded"),
        ("Q4_K_M", q4_k_m(spec) or {}, None, "repacked"),
        ("16-bit K/V", four, None, ""),
        ("8-bit K/V", four, Quantization(8, 64), "expanded"),
        ("4-bit K/V", four, Quantization(4, 64), "expanded"),
    ]
    rows = []
    for name, formats, kv, otherwise in wanted:
        context = _CONTEXTS[1] if name.endswith("K/V") else 1
        ways: list[tuple[str, Way]] = [
            (name, "kernels"),
            *([(f"{name}, {otherwise}", "mlx")] if otherwise else []),
        ]
        for label, way in ways:
            cost = step(spec, formats, context, setting=Setting(kv=kv, way=way))
            bits = 16 * cost.weights.moved_bytes / cost.weights.operations
            rates = [f"{cost.tokens_per_s(bandwidth):.1f}" for bandwidth in _BANDWIDTHS]
            rows.append([label, f"{bits:.2f}", f"{cost.total.moved_bytes / 1e9:.2f} GB", *rates])
    return table(["", "bits moved a weight", "a token", *(f"{each} GB/s" for each in _BANDWIDTHS)], rows)


def readme() -> str:
    """``README.md``, with the number of architectures that there are."""
    from macllm.families.registry import FAMILIES

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    counted, places = re.subn(r"\d+(?= \[architectures\])", str(len(FAMILIES)), text)
    if places != 1:
        raise SystemExit(f"README.md says {places} times how many [architectures] there are (expected once)")
    return counted


def keys() -> str:
    """``docs/keys.md``: everything the chat can do, from the table that the app itself is made from."""
    from macllm_tui.actions import ACTIONS
    from macllm_tui.bindings import key_names

    parts = [NOTE, "# Keys and slash commands\n"]
    for place, (heading, note) in _PLACES.items():
        rows = [
            f"| {code(*key_names(a.key).split(', '))} | {code(a.slash)} | {a.help} | {code(a.id)} |"
            for a in ACTIONS
            if a.place == place
        ]
        head = "| key | slash command | what it does | name for remapping |\n| --- | --- | --- | --- |"
        parts += [f"## {heading}\n", f"{note}\n", "\n".join([head, *rows]) + "\n"]
    return "\n".join(parts)


@dataclass(frozen=True)
class Picture:
    """A screen of the app: what is played, and how large and in which colours it is shown."""

    recording: Path
    size: tuple[int, int]
    theme: str = "graphite"

    def svg(self) -> str:
        """The picture as it is drawn now."""
        from macllm_tui.replay import replay

        with tempfile.TemporaryDirectory() as folder:
            return replay(self.recording, self.size, Path(folder) / "screen.svg", self.theme)


@dataclass(frozen=True)
class ModelsPicture(Picture):
    """The models screen, on the machine of a recording."""

    def svg(self) -> str:
        """The picture as it is drawn now. Nothing is asked of the hub or of this machine's disk."""
        return asyncio.run(_models_screen(self))


_CHOSEN, _FREE_BYTES, _PATIENCE_S = "qwen3-8b", 180 * 10**9, 60
RECORDINGS = DOCS / "recordings"
_TRAINING = ROOT / "tests" / "tui" / "recordings" / "training.jsonl"
PICTURES: dict[str, Picture] = {
    "chat.svg": Picture(RECORDINGS / "chat.jsonl", (120, 32)),
    "chat-light.svg": Picture(RECORDINGS / "chat.jsonl", (120, 32), "paper"),
    "chat-small.svg": Picture(RECORDINGS / "chat.jsonl", (60, 20)),
    "compare.svg": Picture(RECORDINGS / "compare.jsonl", (120, 24)),
    "models.svg": ModelsPicture(_TRAINING, (120, 30)),
    "finetune.svg": Picture(RECORDINGS / "finetune.jsonl", (120, 40)),
}
PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "catalogue.md": catalogue,
    "families.md": families,
    "keys.md": keys,
    "roofline.md": roofline,
    "kernel-check.md": kernel_check,
    "finetuning-methods.md": methods_page,
    "finetuning-objectives.md": objectives_page,
    "../README.md": readme,
}


async def _models_screen(picture: Picture) -> str:
    from textual.app import App

    from macllm.engine.recording import ReplayEngine
    from macllm.families import spec_from_config
    from macllm_tui import model_rows, pictures, themes
    from macllm_tui.downloads import Downloads
    from macllm_tui.screens.models import ModelsScreen

    class Host(App[None]):
        def on_mount(self) -> None:
            themes.install(self, picture.theme)
            self.push_screen(ModelsScreen(engine, Downloads(), current=_CHOSEN, section="catalogue"))

    def facts(row: model_rows.Row) -> model_rows.Facts:
        """What a model's config says, from the copies that the tests read: the hub is not asked."""
        looked_at.append(row.name)
        copy = ROOT / "tests" / "configs" / f"{row.name}.json"
        if not copy.exists():
            return model_rows.Facts()
        config = json.loads(copy.read_text(encoding="utf-8"))
        return model_rows.Facts(spec_from_config(config, row.title), config)

    looked_at: list[str] = []
    engine = ReplayEngine(picture.recording, pace="instant")
    await engine.start()
    with contextlib.ExitStack() as instead:
        home = instead.enter_context(tempfile.TemporaryDirectory())
        instead.enter_context(mock.patch.dict(os.environ, MACLLM_HOME=home))
        instead.enter_context(mock.patch.object(model_rows, "facts_of", facts))
        instead.enter_context(mock.patch.object(model_rows, "free_bytes", lambda: _FREE_BYTES))
        app = Host(**themes.app_arguments())
        async with asyncio.timeout(_PATIENCE_S), app.run_test(size=picture.size) as pilot:
            await pictures.steady(app, pilot, lambda: _CHOSEN not in looked_at)
            return pictures.picture(app)


def words_of(svg: str) -> str:
    """The words and figures of a picture, in the order in which they are drawn."""
    lines = re.findall(r"<text [^>]*>(.*?)</text>", svg)
    return " ".join(" ".join(html.unescape(line).replace("\xa0", " ") for line in lines).split())


def _elsewhere(event: Any) -> Any:
    """An event with the name alone of the folder that it tells of."""
    from macllm.engine.training_events import Saved, Trained

    return replace(event, path=Path(event.path).name) if isinstance(event, Saved | Trained) else event


def take(raw: Path, name: str) -> None:
    """Keeps a recording for the documents: without the paths of this machine, and without counts of what was typed."""
    from macllm.engine.protocol import Count
    from macllm.engine.recording import read_recording, write_recording

    read = read_recording(raw)
    if read.machine is None:
        raise SystemExit(f"{raw}: the engine never said what machine it runs on; record it again")
    kept = [
        replace(
            each,
            request=replace(each.request, model=replace(each.request.model, path=each.request.model.name)),
            batches=tuple((at, tuple(map(_elsewhere, batch))) for at, batch in each.batches),
        )
        for each in read.exchanges
        if not isinstance(each.request, Count)
    ]
    write_recording(RECORDINGS / f"{name}.jsonl", read.machine, kept)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--take", nargs=2, metavar=("RAW", "NAME"))
    args = parser.parse_args()
    if args.take is not None:
        take(Path(args.take[0]), args.take[1])
        return 0
    pages = {name: make() for name, make in PAGES.items()}
    pictures = {name: picture.svg() for name, picture in PICTURES.items()}
    stale = [name for name, text in pages.items() if _there(name) != text]
    stale += [name for name, svg in pictures.items() if words_of(_there(name)) != words_of(svg)]
    if args.check:
        print(f"out of date: {', '.join(stale)}" if stale else "docs are up to date")
        return 1 if stale else 0
    for name, text in (pages | pictures).items():
        (DOCS / name).write_text(text, encoding="utf-8")
    return 0


def _there(name: str) -> str:
    file = DOCS / name
    return file.read_text(encoding="utf-8") if file.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
