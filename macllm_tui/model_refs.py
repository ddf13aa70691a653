"""Finds the model that a name means on this machine, for the engine's process. Asks no network."""

import difflib

from macllm.engine.protocol import ModelRef
from macllm.errors import InputError
from macllm.hub import catalogue, store
from macllm.hub.source import looks_like_model
from macllm.hub.store import Installed


def resolve(name: str) -> ModelRef:
    """The model that ``name`` means: an installed name, what it was pulled from, a path, or a name of the catalogue.

    Its catalogue's sampling goes with it. Raises InputError, with the nearest names, where there is none here.
    """
    name = name.strip()
    if not name:
        raise InputError("no model is named; give the name of an installed one")
    known = catalogue.entries()
    model = store.resolve(name)
    if model is not None and not (looks_like_model(model.path) or any(model.path.glob("*.gguf"))):
        raise InputError(f"{model.path} holds no model; name a folder with a config.json, or a .gguf file")
    entry = known.get(name.lower())
    if model is None and entry is not None:
        model = store.resolve(str(entry.source))
    if model is not None:
        return ref_of(model)
    if entry is not None:
        raise InputError(f"{entry.name} is not on this machine yet; /model downloads it")
    raise InputError(_unknown(name))


def ref_of(model: Installed) -> ModelRef:
    """An installed model with what the catalogue recommends for it."""
    return ModelRef(model.name, str(model.path), sampling=catalogue.sampling_of(model.source))


def _unknown(name: str) -> str:
    gone = store.named(name)
    if gone is not None:
        return f"the files of {gone.name} are gone from {gone.path}; download it again, or delete it, with /model"
    here = [model.name for model in store.installed()]
    if not here:
        return f"there is no model '{name}' here, and no other; /model downloads one"
    near = difflib.get_close_matches(name.lower(), [known.lower() for known in here], n=3, cutoff=0.4)
    guess = f"did you mean {' or '.join(near)}?" if near else f"installed: {_some(here)}"
    return f"there is no model '{name}' here ({guess}); /model shows and downloads models"


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:5])} and {len(names) - 5} more"
