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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOTE = "<!-- written by scripts/docs.py -->\n"
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
    for spec in map(_real_spec, _BOUNDED):
        costs.append([step(spec, quantized(spec, CHOICES["4"]), context) for context in _CONTEXTS])
    rows = []
    for chip in CHIPS:
        cells = [
            ", ".join(f"{cost.tokens_per_s(chip.bandwidth_gb_s):.0f}" for cost in each) for each in costs
        ]
        label = f"{chip.name}, {chip.gpu_cores} cores"
        rows.append([label, f"{chip.bandwidth_gb_s:g} GB/s", *cells, chip.source])
    return _table(["chip", "memory", *_BOUNDED, "bandwidth according to"], rows, plain=(0, len(_BOUNDED) + 2))


def _ways_table() -> str:
    from macllm.kernels.cost import Formats, Setting, Way, step
    from macllm.kernels.roofline import CHOICES, q4_k_m, quantized
    from macllm.quantization import Quantization

    spec = _real_spec("llama-3.1-8b")
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
    return _table(["", "bits moved a weight", "a token", *(f"{each} GB/s" for each in _BANDWIDTHS)], rows)


def _real_spec(name: str) -> Any:
    from macllm.families import spec_from_config

    return spec_from_config(json.loads((ROOT / "tests" / "configs" / f"{name}.json").read_text("utf-8")))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], plain: Sequence[int] = (0,)) -> str:
    """A table whose columns are flush right, but for ``plain`` ones."""
    rule = ["---" if column in plain else "--:" for column in range(len(heads))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (heads, rule, *rows))


_METHODS_NOTE = """
`macllm finetune MODEL --data PATH --method METHOD`. Parameters are those that learn of Llama-3.1-8B, at rank 8, 20
virtual tokens and all targets; its weights are 8,030,261,248.
"""
_METHODS = {  # what learns, and on which bases
    "lora": ("two thin factors beside every matrix ([2106.09685](https://arxiv.org/abs/2106.09685))", "all"),
    "qlora": ("`lora`, on packed bases alone ([2305.14314](https://arxiv.org/abs/2305.14314))", "packed"),
    "rslora": (
        "`lora` whose scale shrinks with the root of the rank ([2312.03732](https://arxiv.org/abs/2312.03732))",
        "all",
    ),
    "dora": ("`lora`, and the length of every row ([2402.09353](https://arxiv.org/abs/2402.09353))", "all"),
    "pissa": ("the largest part of every matrix ([2404.02948](https://arxiv.org/abs/2404.02948))", "all"),
    "qalora": (
        "factors of whole quantization groups, folded into biases ([2309.14717](https://arxiv.org/abs/2309.14717))",
        "affine",
    ),
    "full": ("the weights themselves, embeddings, norms and head too", "16-bit, 32-bit"),
    "ia3": (
        "a number for every key, value and feed-forward channel ([2205.05638](https://arxiv.org/abs/2205.05638))",
        "all",
    ),
    "prompt": ("embeddings before every row ([2104.08691](https://arxiv.org/abs/2104.08691))", "all"),
    "prefix": (
        "keys and values of every layer before every row ([2101.00190](https://arxiv.org/abs/2101.00190))",
        "all",
    ),
    "bottleneck": (
        "two small matrices after every block ([1902.00751](https://arxiv.org/abs/1902.00751)), or after "
        "`--targets mlp` alone ([2005.00247](https://arxiv.org/abs/2005.00247))",
        "all",
    ),
}
_METHODS_MORE = """
- Bases: `all` are 16 or 32 bits, affine, mxfp4, mxfp8, nvfp4, nf4 and the blocks of GGUF files. Only `full` changes
  the base. Beside a packed one, gradients are those beside its dequantized matrices.
- Every method starts with the model as it is, to the bit, but for `prompt` and `prefix`: those start as tokens of the
  vocabulary, drawn by the seed. Their tokens have the positions before 0, so that caches hold and count real tokens
  alone. They need models whose layers all attend to all keys and values (no sliding windows, no recurrences), rows
  that are not packed, and plain caches; everything else is refused by name.
- `--loraplus-ratio 16` is LoRA+ ([2402.12354](https://arxiv.org/abs/2402.12354)): the second factor of `lora` and its
  relatives learns that much faster than the first.
- `pissa` keeps the base whole. The first factors are taken off again, `W + s (A B - A0 B0)`, which is the paper's
  residual on any base, exact where it is packed. On disk it is a LoRA of twice the rank, as PEFT converts it.
- `qalora` is a LoRA on disk, too, whose first factor repeats within groups; `macllm.adapters.fold` adds its change to
  the biases of the packed base, which keeps codes and scales.
- `lora`, `qlora`, `rslora`, `dora`, `pissa` and `qalora` are written in mlx-lm's format, and PEFT's on request. The
  others have `adapters.safetensors` with canonical names (`layers.0.mixer.k.ia3_l`), and `fine_tune_type` in
  `adapter_config.json`; PEFT's format is read and written of `ia3` and `prompt`.
"""


def methods() -> str:
    """``docs/finetuning-methods.md``: what each method learns, how much it is, and on which bases."""
    from macllm.adapters.method import KINDS
    from macllm.adapters.shapes import parameters
    from macllm.tune.job import method_of
    from macllm.tune.settings import DEFAULTS

    spec = _real_spec("llama-3.1-8b")
    rows = []
    for kind in KINDS:
        what, bases = _METHODS[kind]
        rows.append(
            [f"`{kind}`", what, f"{parameters(spec, method_of({**DEFAULTS, 'method': kind})):,}", bases]
        )
    table = _table(["method", "what learns", "parameters", "bases"], rows, plain=(0, 1, 3))
    return (
        "\n".join(
            [NOTE, "# Methods of fine-tuning", _METHODS_NOTE, table.rstrip("\n"), _METHODS_MORE]
        ).rstrip()
        + "\n"
    )


_EXAMPLE_ROWS = {
    "messages": '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}',
    "completion": '{"prompt": "What is 2+2?", "completion": "4"}',
    "text": '{"text": "Call me Ishmael."}',
    "preference": '{"prompt": "What is 2+2?", "chosen": "4", "rejected": "It depends."}',
    "labelled": '{"prompt": "What is 2+2?", "completion": "It depends.", "label": false}',
    "prompt": '{"prompt": "What is 2+2?", "answer": "4"}',
}
_OBJECTIVES_NOTE = """
`macllm finetune MODEL --data PATH --objective OBJECTIVE`. Every objective counts rows, pairs or tokens the same however
they are padded and batched, and adds up over `--grad-accumulation-steps`. Rows that it cannot learn from are named by
file and line before a model is loaded.
"""
_OBJECTIVES_MORE = """
- `dpo`, `ipo` and `kto` ask the base how likely it finds each answer, once and before anything is learned. What it says
  is kept in the cache, by the content of the base and of the answers, so a second run begins at once.
- Formulas and names are TRL's. Where a loss has a term of its own for what is chosen (`orpo`, `cpo`), that is the mean
  over the answer's tokens, for every pair; TRL takes it over all tokens of a batch. `ipo` is of means a token.
- `kto` counts a reward from how much the model gained on answers to other prompts: the mean over all rows of a step.
  Which answer goes with which prompt is fixed for a run. Of a preference row, one answer is wanted and the other not.
- Looks at the validation rows tell `rewards/chosen`, `rewards/rejected`, `rewards/accuracies` and `rewards/margins`
  (in `metrics.jsonl`); a margin that grows is what preferring means.
- `--balance 0.01` adds the load-balancing loss of a mixture of experts (arXiv 2101.03961) to any objective, as Hugging
  Face's models have it; validation losses are without it.

## A reward model

`--objective reward` teaches a scalar head beside the adapter. It is kept as `reward_head.safetensors`
(`score.weight`, 1 x D), and used like this, for example as the judge of other answers:

```python
from pathlib import Path

from macllm.tune.reward_model import RewardModel

judge = RewardModel.load(Path("models/base"), Path("adapters/judge"))
asked = {"role": "user", "content": "What is 2+2?"}
good, bad = judge.score([[asked, {"role": "assistant", "content": text}] for text in ("4", "It depends.")])
```

Only differences between answers to one prompt mean something.

## Rows under other names

`--keys question=prompt,answer=completion` reads rows that have keys of their own. `instruction+input=prompt` joins two
texts by a blank line, and `messages=` leaves a key out. A key that a row does not have is told by file and line.
ShareGPT's conversations are read with `--keys conversations=messages`, where they have `from` and `value` alone.

## Data sets of Hugging Face

`--data org/name`, `--data org/name:config` or `--data org/name:config:split` (`org/name::train_sft` without a config)
reads a data set by its name, once `pip install 'macllm[datasets]'` has brought the library. Its splits train,
validation and test become train, valid and test; one that is named is learned from alone. What the library has read is
written down as JSONL in the cache, so that lines which are told can be looked at.
"""


def objectives() -> str:
    """``docs/finetuning-objectives.md``: which objective for which rows, and what can be set of it."""
    from macllm.tune.objectives.kinds import KINDS, SPECIAL
    from macllm.tune.settings import SETTINGS

    kinds = []
    for kind in KINDS.values():
        what = re.sub(r"arXiv (\d+\.\d+)", r"[\1](https://arxiv.org/abs/\1)", kind.help)
        beta = [f"`beta` ({kind.beta:g})" if name == "beta" else f"`{name}`" for name in kind.settings]
        kinds.append([f"`{kind.name}`", what, _code(*kind.schemas), ", ".join(beta)])
    settings = []
    for setting in SETTINGS:
        if setting.name in SPECIAL:
            readers = _code(*(kind.name for kind in KINDS.values() if setting.name in kind.settings))
            settings.append([f"`{setting.name}`", setting.help, setting.write(setting.default), readers])
    rows = [f"`{schema}`:\n\n```json\n{row}\n```\n" for schema, row in _EXAMPLE_ROWS.items()]
    parts = [
        NOTE,
        "# Objectives of fine-tuning",
        _OBJECTIVES_NOTE,
        _table(["objective", "what is learned", "rows", "settings (default)"], kinds, plain=range(4)),
        "## Rows\n",
        *rows,
        "A prompt, and each answer, may also be a list of messages; `chosen` and `rejected` may be whole conversations"
        "\nthat begin with the same messages.\n",
        "## Settings\n",
        _table(["setting", "what it says", "default", "to"], settings, plain=(0, 1, 3)),
        "## What to know",
        _OBJECTIVES_MORE,
    ]
    return "\n".join(parts).rstrip() + "\n"


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
            f"| {_code(*key_names(a.key).split(', '))} | {_code(a.slash)} | {a.help} | {_code(a.id)} |"
            for a in ACTIONS
            if a.place == place
        ]
        head = "| key | slash command | what it does | name for remapping |\n| --- | --- | --- | --- |"
        parts += [f"## {heading}\n", f"{note}\n", "\n".join([head, *rows]) + "\n"]
    return "\n".join(parts)


def _code(*texts: str) -> str:
    return ", ".join(f"`{text}`" for text in texts if text)


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
    "finetune.svg": Picture(_TRAINING, (120, 32)),
}
PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "catalogue.md": catalogue,
    "families.md": families,
    "keys.md": keys,
    "roofline.md": roofline,
    "kernel-check.md": kernel_check,
    "finetuning-methods.md": methods,
    "finetuning-objectives.md": objectives,
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
