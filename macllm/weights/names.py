"""Under which names a checkpoint holds a model's tensors, and in which form: the spec's table of names, resolved.

Weights come in and adapters and exports go back out by the same relations (``macllm.weights.operations``).
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from macllm.errors import CheckpointError
from macllm.nn.stored import Stored
from macllm.spec import ModelSpec
from macllm.spec.names import Absent, Entry, Form, Joined, Names, Stack
from macllm.weights.operations import Relation

_LAYER = re.compile(r"^layers\.(\d+)\.")
_ANY_LAYER = "layers.{i}."


class Naming:
    """One origin's names for one model.

    ``form`` is how the tensors are laid out where that differs; with ``present``, the names that a checkpoint
    holds, the way that is there is taken, whatever the form.
    """

    def __init__(
        self, spec: ModelSpec, table: Names, form: Form, present: Collection[str] | None = None
    ) -> None:
        self._tensors = {tensor.name: tensor for tensor in spec.tensors()}
        self._entries = table.alternatives()
        self._ignored = re.compile("|".join(table.ignored) or r"(?!)")
        self._form = form
        self._present = set(present) if present is not None else None
        self._relations: dict[str, Relation] = {}

    def relation(self, canonical: str) -> Relation:
        """What holds a canonical tensor, ``layers.3.mixer.q.weight`` say, alone or with others."""
        if canonical not in self._relations:
            relation = self._resolve(canonical)
            self._relations |= dict.fromkeys((tensor.name for tensor in relation.canonical), relation)
        return self._relations[canonical]

    def relations(self) -> Iterator[Relation]:
        """All, each once, in the order of the model's tensors."""
        seen = set[int]()
        for name in self._tensors:
            relation = self.relation(name)
            if id(relation) not in seen:
                seen.add(id(relation))
                yield relation

    def stored(self, canonical: str) -> tuple[str, ...]:
        """The stored names of what holds a canonical tensor."""
        return self.relation(canonical).stored

    def module(self, canonical: str) -> str:
        """The stored module that holds a matrix, as configs name it."""
        return self.stored(canonical)[0].removesuffix(".weight")

    def unexpected(self, stored: Iterable[str]) -> list[str]:
        """Stored tensors that the model does not use and that are not known to be superfluous."""
        known = {name for relation in self.relations() for name in relation.stored}
        return [name for name in stored if name not in known and not self._ignored.fullmatch(name)]

    def _resolve(self, canonical: str) -> Relation:
        match = _LAYER.match(canonical)
        layer = match[1] if match is not None else ""
        general = _LAYER.sub(_ANY_LAYER, canonical)
        module, _, kind = general.rpartition(".")
        whole = general in self._entries  # the tensor itself has an entry, not its module
        entries = self._entries[general if whole else module]
        suffix = "" if whole else f".{kind}"
        relations = [self._bound(entry, layer, suffix, canonical) for entry in entries]
        return self._chosen(entries, relations)

    def _chosen(self, entries: Sequence[Entry], relations: Sequence[Relation]) -> Relation:
        """The relation of this form, or of those that are there the first."""
        ranked = sorted(zip(entries, relations, strict=True), key=lambda pair: self._rank(pair[0]))
        if self._present is not None:
            for _, relation in ranked:
                if all(name in self._present for name in relation.stored):
                    return relation
        return ranked[0][1]

    def _rank(self, entry: Entry) -> int:
        if entry.form is None:
            return 1
        return 0 if entry.form == self._form else 2

    def _bound(self, entry: Entry, layer: str, suffix: str, canonical: str) -> Relation:
        keys = [key.replace("{i}", layer) + suffix for key in entry.keys] or [canonical]
        tensors = tuple(self._tensors[key] for key in keys if key in self._tensors)
        name = entry.stored.replace("{i}", layer) + suffix
        if Absent() in entry.operations:
            return Relation((), tensors, entry.operations)
        each: Iterable[object] = ()
        for operation in entry.operations:
            if isinstance(operation, Stack):
                each = range(tensors[0].shape[0])
            elif isinstance(operation, Joined):
                each = operation.parts
        stored = tuple(name.replace("{e}", str(part)) for part in each) or (name,)
        return Relation(stored, tensors, entry.operations)


class Reader:
    """Reads canonical tensors; of several that are stored as one, the rest is kept until asked for."""

    def __init__(self, naming: Naming, label: str, read: Callable[[str], Stored]) -> None:
        """``read`` gives a tensor by its stored name; ``label`` names the checkpoint in errors."""
        self._naming, self._label, self._read = naming, label, read
        self._left: dict[str, Stored] = {}

    def read(self, canonical: str) -> Stored:
        """The tensor. Raises CheckpointError where what is stored cannot be put together."""
        if canonical not in self._left:
            relation = self._naming.relation(canonical)
            try:
                loaded = relation.load([self._read(name) for name in relation.stored])
            except ValueError as error:
                raise CheckpointError(
                    f"{self._label}: {relation.stored[0]} and its like cannot be put together ({error}); "
                    "convert the model again"
                ) from None
            self._left |= {tensor.name: one for tensor, one in zip(relation.canonical, loaded, strict=True)}
        return self._left.pop(canonical)


def hugging_face(spec: ModelSpec, form: Form = "mlx", present: Collection[str] | None = None) -> Naming:
    """Names as transformers ("hub") and mlx-lm ("mlx") write them."""
    return Naming(spec, spec.names, form, present)
