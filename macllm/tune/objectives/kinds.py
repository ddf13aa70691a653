"""The objectives by name: which rows they learn from, and which settings say something to them. Never imports MLX."""

from collections.abc import Mapping
from dataclasses import dataclass

from macllm.errors import InputError, OptionError
from macllm.tune.schema import Schema

_SPOKEN: tuple[Schema, ...] = ("messages", "completion", "text")


@dataclass(frozen=True)
class Kind:
    """An objective. ``settings`` are those that only some objectives read, ``beta`` its own default of the first."""

    name: str
    help: str  # one phrase without a full stop
    schemas: tuple[Schema, ...]
    settings: tuple[str, ...] = ()
    beta: float = 0.1


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("sft", "what is said in the rows", _SPOKEN),
        Kind(
            "dpo",
            "to prefer an answer to another, near to the base (arXiv 2305.18290)",
            ("preference",),
            ("beta", "label_smoothing"),
        ),
    )
}
NAMES: tuple[str, ...] = tuple(KINDS)
SPECIAL: frozenset[str] = frozenset(name for kind in KINDS.values() for name in kind.settings)


def refuse_rows(objective: str, schema: Schema) -> None:
    """Raises InputError where the objective does not learn from such rows."""
    kind = KINDS[objective]
    if schema in kind.schemas:
        return
    others = [name for name, other in KINDS.items() if schema in other.schemas]
    raise InputError(
        f"objective {objective!r} does not learn from {schema!r} rows (expected {_either(kind.schemas)});"
        f" change the data, or take objective {_either(others)}"
    )


def refuse_settings(objective: str, given: Mapping[str, object], defaults: Mapping[str, object]) -> None:
    """Raises OptionError for a setting that says nothing to the objective and is not at its default."""
    for name in sorted(SPECIAL - set(KINDS[objective].settings)):
        if given.get(name) != defaults.get(name):
            readers = [kind.name for kind in KINDS.values() if name in kind.settings]
            raise OptionError(
                f"{name}={given[name]} says nothing to objective {objective!r}, only to {_either(readers, 'and')};"
                " leave it out"
            )


def _either(names: tuple[str, ...] | list[str], word: str = "or") -> str:
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last
