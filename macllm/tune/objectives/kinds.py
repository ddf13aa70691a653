"""The objectives by name: which rows they learn from, and which settings say something to them. Never imports MLX."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from macllm.errors import InputError, OptionError
from macllm.tune.schema import Schema

_SPOKEN: tuple[Schema, ...] = ("messages", "completion", "text")
_PAIRS: tuple[Schema, ...] = ("preference",)


@dataclass(frozen=True)
class Kind:
    """An objective. ``settings`` are those that only some objectives read, ``beta`` is its own default."""

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
            "to prefer an answer to another, near to what the base says (arXiv 2305.18290)",
            _PAIRS,
            ("beta", "label_smoothing"),
        ),
        Kind(
            "ipo", "the same, with a margin that is not to grow further (arXiv 2310.12036)", _PAIRS, ("beta",)
        ),
        Kind(
            "kto",
            "to give wanted answers and not the others, near to what the base says (arXiv 2402.01306)",
            ("labelled", "preference"),
            ("beta", "desirable_weight", "undesirable_weight"),
        ),
        Kind(
            "orpo",
            "what is chosen, and to prefer it; asks no base (arXiv 2403.07691)",
            _PAIRS,
            ("beta",),
        ),
        Kind(
            "simpo",
            "to prefer an answer by its likelihood a token; asks no base (arXiv 2405.14734)",
            _PAIRS,
            ("beta", "simpo_gamma", "label_smoothing"),
            beta=2.0,
        ),
        Kind(
            "cpo",
            "what is chosen, and to prefer it; asks no base (arXiv 2401.08417)",
            _PAIRS,
            ("beta", "cpo_alpha", "label_smoothing"),
        ),
        Kind(
            "reward",
            "to say with one number how good an answer is: a reward model (arXiv 2009.01325)",
            _PAIRS,
        ),
        Kind(
            "grpo",
            "to answer prompts better by a reward that is computed (arXiv 2402.03300)",
            ("prompt",),
            (
                "reward",
                "num_generations",
                "max_completion_length",
                "temperature",
                "beta",
                "epsilon",
                "epsilon_high",
                "loss_type",
                "scale_rewards",
                "mask_truncated_completions",
            ),
            beta=0.0,
        ),
        Kind(
            "distill",
            "what a teacher thinks of every token, of given answers or the model's own (arXiv 2306.13649)",
            (*_SPOKEN, "prompt"),
            (
                "teacher",
                "divergence",
                "mixing",
                "on_policy",
                "teacher_top_k",
                "temperature",
                "max_completion_length",
            ),
        ),
    )
}
NAMES: tuple[str, ...] = tuple(KINDS)
SPECIAL: frozenset[str] = frozenset(name for kind in KINDS.values() for name in kind.settings)


def refuse_rows(objective: str, schema: Schema, labels: Collection[bool | None] = ()) -> None:
    """Raises InputError where the objective does not learn from rows of this schema, or with these labels."""
    kind = KINDS[objective]
    if schema not in kind.schemas:
        others = [name for name, other in KINDS.items() if schema in other.schemas]
        raise InputError(
            f"objective {objective!r} does not learn from {schema!r} rows (expected {_either(kind.schemas)});"
            f" change the data, or take objective {_either(others)}"
        )
    if schema == "labelled" and len(set(labels)) == 1:
        (only,) = set(labels)
        raise InputError(
            f"the label of all rows to learn from is {str(only).lower()}, but objective {objective!r} learns from"
            f" wanted answers and from others; add rows with label {str(not only).lower()}"
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
