"""``macllm finetune --init``: looks at the data and writes a recipe for it."""

import argparse
import os
from datetime import datetime
from pathlib import Path

from macllm.cli.download import DownloadDisplay
from macllm.cli.finetune_data import reading, refuse
from macllm.errors import InputError
from macllm.tune.recipe_draft import Rows, draft

_MOST_TOKENS = 1 << 20  # of a row that is measured


def write_recipe(args: argparse.Namespace, file: Path) -> str:
    """Writes the recipe, and says so in a sentence. Raises InputError where ``file`` is there already."""
    if not args.model or not args.data:
        raise InputError("--init needs to know MODEL and --data; see `macllm finetune --help`")
    if file.suffix != ".toml":
        raise InputError(f"{file}: a recipe is a TOML file; give it a name such as recipe.toml")
    if os.path.lexists(file):
        raise InputError(f"{file}: there is a file already; remove it, or name another one with --init FILE")
    data = Path(args.data).expanduser()
    text = draft(args.model, _data_path(data, file), _rows(args.model, data, args.keys or ""))
    partial = file.with_name(f".partial-{file.name}")
    partial.write_text(text, encoding="utf-8")
    partial.rename(file)
    return f"{file}: written; look at it, then `macllm finetune -c {file}`"


def _data_path(data: Path, file: Path) -> str:
    """Where the data lies as the recipe says it: paths there are relative to the recipe."""
    if not data.exists() or data.is_absolute():
        return str(data)
    return os.path.relpath(data, file.parent)


def _rows(model: str, data: Path, keys: str) -> Rows:
    """Every row, measured uncut, read under other ``keys``. Raises InputError where one cannot be learned from."""
    from macllm.hub.pull import find
    from macllm.tune.dataset import prepare, statistics
    from macllm.tune.examples import ExampleSettings
    from macllm.weights.model_files import open_model

    with DownloadDisplay(model) as display:
        files = open_model(find(model, display).path)
    date = datetime.now().replace(microsecond=0).isoformat()
    settings = ExampleSettings(_MOST_TOKENS, "turns", date, keys)
    with reading(data) as bar:
        found = prepare(data, files.tokenizer(), settings, progress=bar.update)
    if found.problems or found.schema is None:
        refuse(found.problems, str(data))
    assert found.schema is not None
    stats = statistics(found.train)
    together = 2 if found.pairs else 1
    lengths = [len(example) for example in found.train]
    longest = [max(lengths[start : start + together]) for start in range(0, len(lengths), together)]
    return Rows(found.schema, longest, stats.supervised, stats.longest_at, files.spec.max_context, keys)
