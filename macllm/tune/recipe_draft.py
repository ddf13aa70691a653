"""A recipe for the data at hand, to be read and changed: what is known of the rows, and what follows from it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from macllm.errors import InputError
from macllm.tune.groups import grouped
from macllm.tune.objectives.kinds import KINDS
from macllm.tune.schema import Schema
from macllm.tune.settings import Setting, Value

_SHORT, _LONG = (
    512,
    4096,
)  # tokens: room that costs nothing where rows are shorter, and up to where nothing is cut
_PASSES = ((500, 5.0), (5_000, 3.0), (50_000, 2.0))  # up to so many rows, so many passes; beyond, one
_BATCHES, _STEPS_A_PASS = (4, 2), 10  # the first of which leaves so many steps a pass, else 1
_RATES = (
    (100, 1e-4),
    (500, 5e-5),
    (10**9, 2e-5),
)  # up to so many steps: where they are few, each has to count
_LOOKS = 10  # at the validation rows in a run


@dataclass(frozen=True)
class Rows:
    """What is known of a data set: ``lengths`` are in tokens of the model, none of them cut; ``longest_at`` a line.

    ``keys`` are those that it was read under.
    """

    schema: Schema
    lengths: Sequence[int]
    supervised: int
    longest_at: str
    context: int  # tokens that the model can read
    keys: str = ""


def draft(model: str, data: str, rows: Rows) -> str:
    """The text of a recipe. Raises InputError where there is no objective for such rows."""
    values = proposed(rows)
    parts = [_head(rows), f"model = {_text(model)}", f"data = {_text(data)}"]
    parts.append(
        '# adapter_path = "my-adapter"  # the folder to write (a free name among macllm\'s adapters)'
    )
    for title, settings in grouped():
        parts += ["", f"# -- {title} --"]
        parts += [_entry(setting, values, rows) for setting in settings]
    return "\n".join(parts) + "\n"


def proposed(rows: Rows) -> dict[str, Value]:
    """The settings that follow from the rows."""
    objective = next((kind.name for kind in KINDS.values() if rows.schema in kind.schemas), None)
    if objective is None:
        raise InputError(
            f"there is no objective that learns from {rows.schema!r} rows; give rows of another kind"
        )
    length = _max_seq_length(rows)
    epochs = next((passes for most, passes in _PASSES if len(rows.lengths) <= most), 1.0)
    count = len(rows.lengths)
    batch = next((size for size in _BATCHES if count >= size * _STEPS_A_PASS), 1)
    steps = max(1, round(epochs * math.ceil(count / batch)))
    return {
        "objective": objective,
        "max_seq_length": length,
        "epochs": epochs,
        "batch_size": batch,
        "learning_rate": next((rate for most, rate in _RATES if steps <= most), _RATES[-1][1]),
        "steps_per_eval": max(1, _round(steps / _LOOKS)),
        **({"keys": rows.keys} if rows.keys else {}),
    }


def _max_seq_length(rows: Rows) -> int:
    longest = max(rows.lengths)
    if longest > _LONG:  # a few rows that are longer than the others are not worth the memory of all
        longest = max(_LONG // 2, sorted(rows.lengths)[math.ceil(0.99 * len(rows.lengths)) - 1])
    return min(rows.context, max(_SHORT, math.ceil(longest / 128) * 128))


def _round(number: float) -> int:
    """Down to 1, 2 or 5 times a power of ten."""
    if number < 1:
        return 1
    power = 10 ** math.floor(math.log10(number))
    return int(max(factor * power for factor in (1, 2, 5) if factor * power <= number))


def _head(rows: Rows) -> str:
    tokens = sum(rows.lengths)
    share = rows.supervised / tokens if tokens else 0.0
    return (
        "# A recipe for `macllm finetune -c THIS-FILE`; options of the command line go over it.\n"
        "# What is commented out is the default.\n#\n"
        f"# The data: {len(rows.lengths):,} rows of schema {rows.schema!r}, {tokens:,} tokens, {share:.0%} of them"
        f" learned;\n# the longest row has {max(rows.lengths):,} ({rows.longest_at}).\n"
    )


def _entry(setting: Setting, values: Mapping[str, Value], rows: Rows) -> str:
    why = {
        "max_seq_length": _cut(int(values["max_seq_length"]), rows),
        "objective": f"rows are of schema {rows.schema!r}",
    }.get(setting.name)
    note = f"# {setting.help}" + (f"; {why}" if why else "")
    value = values.get(setting.name, setting.default)
    if setting.name in values:
        return f"{note}\n{setting.name} = {_toml(setting, value)}"
    return f"{note}\n# {setting.name} = {_toml(setting, value)}"


def _cut(length: int, rows: Rows) -> str:
    longer = sum(each > length for each in rows.lengths)
    return f"here {longer:,} rows are" if longer else "here none is"


def _toml(setting: Setting, value: Value | None) -> str:
    if value is None:
        return f"<{setting.expected}>"
    if isinstance(value, bool):
        return "true" if value else "false"
    written = setting.write(value)
    return _text(written) if isinstance(value, str) or written.isalpha() else repr(value)


def _text(text: str) -> str:
    """A basic string of TOML, which may hold what one of JSON does."""
    return json.dumps(text, ensure_ascii=False)
