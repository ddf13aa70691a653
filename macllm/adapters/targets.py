"""What of a model has an adapter: matrices, by names and patterns."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from macllm.adapters.learnable import ALL, attention, first_layer, layer_of, matrices
from macllm.adapters.method import ALL_LAYERS
from macllm.errors import OptionError
from macllm.spec import ModelSpec, TensorSpec
from macllm.weights.names import Naming, hugging_face


def select(
    spec: ModelSpec, targets: Sequence[str] = (), num_layers: int = ALL_LAYERS
) -> tuple[TensorSpec, ...]:
    """The weights that ``targets`` name in the last ``num_layers`` layers, in the model's order.

    None, or ``all``: every matrix in the layers, routers aside. Else each is ``attention``, ``mlp``, or a pattern
    with ``*`` and ``?`` for a canonical name (``layers.0.mixer.q``) or its end (``mixer.q``, ``q``), or for the name
    that mlx-lm has (``q_proj``); several may stand in one, with commas between. The head is meant only by name.
    Raises OptionError for one that names nothing.
    """
    patterns = [one.strip() for each in targets for one in each.split(",") if one.strip()]
    first = first_layer(spec, num_layers)
    inside = [tensor for tensor in matrices(spec) if layer_of(tensor.name) is not None]
    if not patterns or ALL in patterns:
        chosen = {tensor.name for tensor in inside if tensor.kind != "router"}
    else:
        chosen = {name for pattern in patterns for name in _named(spec, pattern)}
    found = tuple(tensor for tensor in matrices(spec) if tensor.name in chosen and _reached(tensor, first))
    if not found:
        raise OptionError(
            f"targets {', '.join(patterns) or ALL!r} name no matrix in the last {len(spec.layers) - first} layers; "
            "raise num_layers, or name others"
        )
    return found


def scaled(
    spec: ModelSpec, targets: Sequence[str] = (), num_layers: int = ALL_LAYERS
) -> tuple[TensorSpec, ...]:
    """What IA3 scales: as :func:`select`, but that all are the keys, values and last feed-forward matrices."""
    chosen = select(spec, targets, num_layers)
    if ALL not in targets and any(targets):
        return chosen
    places = [place.removesuffix("*") for place in attention(spec)]
    patterns = (*(f"{place}{end}" for place in places for end in ("k", "v")), "*.channel.*down")
    names = {each.name.removesuffix(".weight") for each in chosen}
    wanted = {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}
    if not wanted:
        raise OptionError("ia3 scales keys, values and down, and these layers have none; name other targets")
    return tuple(one for one in chosen if one.name.removesuffix(".weight") in wanted)


def blocks(targets: Sequence[str]) -> tuple[str, ...]:
    """The blocks that ``targets`` name whole: ``mixer`` for attention, ``channel`` for mlp. Raises OptionError."""
    words = [one.strip() for each in targets for one in each.split(",") if one.strip()] or [ALL]
    known = {ALL: ("mixer", "channel"), "attention": ("mixer",), "mlp": ("channel",)}
    other = next((word for word in words if word not in known), None)
    if other is not None:
        raise OptionError(f"target {other!r} is no block to stand behind (expected {', '.join(known)})")
    named = {block for word in words for block in known[word]}
    return tuple(block for block in known[ALL] if block in named)


def _reached(tensor: TensorSpec, first: int) -> bool:
    layer = layer_of(tensor.name)
    return layer is None or layer >= first


def _named(spec: ModelSpec, pattern: str) -> set[str]:
    """The tensors of the whole model that one pattern names."""
    blocks = {"attention": attention(spec), "mlp": ("*.channel.*",)}
    naming = hugging_face(spec)
    found = set()
    for tensor in matrices(spec):
        name = tensor.name.removesuffix(".weight")
        if pattern in blocks:
            routes = tensor.kind == "router"
            if not routes and any(fnmatchcase(name, each) for each in blocks[pattern]):
                found.add(tensor.name)
        elif any(fnmatchcase(end, pattern) for end in _ends(name, naming)):
            found.add(tensor.name)
    if not found:
        known = dict.fromkeys(tensor.name.split(".")[-2] for tensor in matrices(spec))
        raise OptionError(
            f"target {pattern!r} names no matrix of this model (expected attention, mlp, or a pattern for "
            f"{', '.join(known)})"
        )
    return found


def _ends(name: str, naming: Naming) -> Iterator[str]:
    """A matrix's names, whole and from every dot on."""
    stored = naming.stored(f"{name}.weight")
    for whole in (name, *(each.removesuffix(".weight") for each in stored)):
        words = whole.split(".")
        yield from (".".join(words[start:]) for start in range(len(words)))
