"""Adapters as a checkpoint's modules have them: where several matrices are stored as one, so are their factors.

The rows of a matrix go into the stored ones as the spec's table of names says, and the rows of its change with them.
Factors of several parts of one stored matrix stand side by side: ``[A1 A2]`` and the blocks of B on a diagonal.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx

from macllm.nn.adapted import Factors
from macllm.nn.stored import Dense, Stored
from macllm.spec import ModelSpec
from macllm.spec.names import Form, HeadPairs, HeadTurns, Operation, Rows, Scaled, Stack, Transposed
from macllm.weights.names import Naming, hugging_face
from macllm.weights.operations import Relation

_KINDS = ("matrix", "stack", "router")
_ONE_EACH = (Stack(),)


@dataclass(frozen=True)
class Place:
    """Stored modules and the canonical matrices that they hold; ``relation`` is that of their rows."""

    modules: tuple[str, ...]
    canonical: tuple[str, ...]
    relation: Relation

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Those of the modules, (O, I) or (N, O, I)."""
        return self.relation.stored_shapes()


class AdapterNames:
    """Where each matrix of a model lies, for adapters. ``modules``: those that an adapter was made for."""

    def __init__(
        self,
        spec: ModelSpec,
        form: Form,
        modules: Collection[str] | None = None,
        naming: Naming | None = None,
    ) -> None:
        """``naming``: other names than Hugging Face's in this ``form``."""
        present = None if modules is None else {*modules, *(f"{name}.weight" for name in modules)}
        naming = naming or hugging_face(spec, form, present)
        self.places: list[Place] = []
        self.torn: dict[
            str, tuple[str, ...]
        ] = {}  # by stored module, matrices whose factors have no place there
        seen = set[str]()
        for tensor in spec.tensors():
            if tensor.kind not in _KINDS or tensor.name in seen:
                continue
            relation = naming.relation(tensor.name)
            seen |= {one.name for one in relation.canonical}
            canonical = tuple(one.name.removesuffix(".weight") for one in relation.canonical)
            stored = tuple(name.removesuffix(".weight") for name in relation.stored)
            rows = _of_rows(relation)
            if rows is None:
                self.torn |= dict.fromkeys(stored, canonical)
            else:
                self.places.append(Place(stored, canonical, rows))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every stored module that may have an adapter, the shape (O, I) or (N, O, I) of its matrix."""
        return {
            module: shape
            for place in self.places
            for module, shape in zip(place.modules, place.shapes, strict=True)
        }

    def store(self, factors: Mapping[str, Factors]) -> tuple[dict[str, Factors], set[str]]:
        """Factors by canonical name, to those by stored module; and the names of those that have no place there."""
        found: dict[str, Factors] = {}
        left = set(factors)
        for place in self.places:
            members = [factors.get(name) for name in place.canonical]
            stretched = any(one is not None and one.magnitude is not None for one in members)
            if not any(members) or (stretched and not all(members)):
                continue  # rows whose length is not known have no place beside rows of a length of their own
            left -= set(place.canonical)
            found |= dict(zip(place.modules, _stored(place, members), strict=True))
        return found, left

    def load(self, stored: Mapping[str, Factors]) -> dict[str, Factors]:
        """Factors by stored module, to those by canonical name. Raises KeyError for an expert that is missing."""
        found: dict[str, Factors] = {}
        for place in self.places:
            if any(module in stored for module in place.modules):
                members = [stored[module] for module in place.modules]
                found |= dict(zip(place.canonical, _loaded(place, members), strict=True))
        return found


def _stored(place: Place, members: Sequence[Factors | None]) -> list[Factors]:
    known = [one for one in members if one is not None]
    whole = known[0]
    if place.relation.operations == _ONE_EACH:
        lengths = whole.magnitude
        return [
            Factors(whole.a[n], whole.b[n], whole.scale, None if lengths is None else lengths[n])
            for n in range(len(place.modules))
        ]
    if not place.relation.operations:
        return [whole]
    a = mx.concatenate([one.a for one in known], axis=-1)
    rank, start, blocks = a.shape[-1], 0, list[Stored]()
    for one, tensor in zip(members, place.relation.canonical, strict=True):
        if one is None:
            blocks.append(Dense(mx.zeros((*tensor.shape[:-1], rank))))
            continue
        rows = one.b.swapaxes(-1, -2) * (one.scale / whole.scale)  # (O, r)
        end = start + one.rank
        sides = [(0, 0)] * (rows.ndim - 1) + [(start, rank - end)]
        blocks.append(Dense(mx.pad(rows, sides)))
        start = end
    b = _array(_relation(place, rank).store(blocks)[0]).swapaxes(-1, -2)
    lengths = None
    if all(one.magnitude is not None for one in known):
        columns: list[Stored] = [
            Dense(one.magnitude[..., None]) for one in known if one.magnitude is not None
        ]
        lengths = _array(_relation(place, 1).store(columns)[0])[..., 0]
    return [Factors(a, b, whole.scale, lengths)]


def _loaded(place: Place, members: Sequence[Factors]) -> list[Factors]:
    whole = members[0]
    if place.relation.operations == _ONE_EACH:
        lengths = [one.magnitude for one in members if one.magnitude is not None]
        a, b = mx.stack([one.a for one in members]), mx.stack([one.b for one in members])
        return [Factors(a, b, whole.scale, mx.stack(lengths) if lengths else None)]
    if not place.relation.operations:
        return [whole]
    rows = _relation(place, whole.rank).load([Dense(whole.b.swapaxes(-1, -2))])
    columns: list[mx.array | None] = [None] * len(rows)
    if whole.magnitude is not None:
        columns = [
            _array(one)[..., 0] for one in _relation(place, 1).load([Dense(whole.magnitude[..., None])])
        ]
    return [
        Factors(whole.a, _array(one).swapaxes(-1, -2), whole.scale, lengths)
        for one, lengths in zip(rows, columns, strict=True)
    ]


def _relation(place: Place, width: int) -> Relation:
    """That of matrices with as many rows, ``width`` wide."""
    tensors = (replace(one, shape=(*one.shape[:-1], width)) for one in place.relation.canonical)
    return replace(place.relation, canonical=tuple(tensors))


def _of_rows(relation: Relation) -> Relation | None:
    """What is done to rows; None where it is done across them too, or what is stored is no matrix of a module.

    Which way round a matrix lies does not concern its factors.
    """
    rows = tuple(one for one in relation.operations if not isinstance(one, Transposed))
    whole = rows == _ONE_EACH or len(relation.stored) == 1
    return (
        replace(relation, operations=rows)
        if whole and (rows == _ONE_EACH or all(map(_by_row, rows)))
        else None
    )


def _by_row(operation: Operation) -> bool:
    if isinstance(operation, HeadTurns):
        return not operation.columns
    return isinstance(operation, Rows | HeadPairs | Scaled)


def _array(stored: Stored) -> mx.array:
    assert isinstance(stored, Dense)  # nothing is packed on the way
    return stored.array
