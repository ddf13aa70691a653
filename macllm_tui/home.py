"""What the app asks of this machine beside its engine and its chats: the model to begin with, and what to remember."""

from typing import Protocol

from macllm.engine.protocol import ModelRef
from macllm_tui.settings import Settings, save


class Home(Protocol):
    """The user's data folder, or in its place what a recording holds. Every call may take a while."""

    def first_model(self, name: str | None, dtype: str | None) -> ModelRef | None:
        """The model of this name, else the one used last; None where none is installed. Raises InputError."""

    def resolve(self, name: str) -> ModelRef:
        """The installed model of this name. Raises InputError."""

    def names(self) -> tuple[str, ...]:
        """The models that can be named."""

    def adapter(self, name: str) -> str:
        """The folder of the adapter of this name, or at this path. Raises InputError."""

    def adapters(self) -> tuple[str, ...]:
        """The adapters that can be named."""

    def used(self, name: str) -> None:
        """Remembers that the model was used now."""

    def save(self, settings: Settings) -> None:
        """Keeps the settings. Raises MacllmError."""


class UserHome:
    """The data folder of the person at the keyboard."""

    def first_model(self, name: str | None, dtype: str | None) -> ModelRef | None:
        from dataclasses import replace

        from macllm.hub import store
        from macllm_tui.model_refs import resolve

        chosen = name if name is not None else store.last_used()
        if chosen is None:
            installed = [model for model in store.installed() if not model.missing]
            chosen = installed[0].name if installed else None
        return replace(resolve(chosen), dtype=dtype) if chosen is not None else None

    def resolve(self, name: str) -> ModelRef:
        from macllm_tui.model_refs import resolve

        return resolve(name)

    def names(self) -> tuple[str, ...]:
        from macllm.hub import store

        return tuple(model.name for model in store.installed() if not model.missing)

    def adapter(self, name: str) -> str:
        from macllm.adapters.kept import find

        return str(find(name))

    def adapters(self) -> tuple[str, ...]:
        from macllm.adapters.kept import kept

        return tuple(kept())

    def used(self, name: str) -> None:
        from macllm.hub import store

        store.mark_used(name)

    def save(self, settings: Settings) -> None:
        save(settings)


class RecordedHome:
    """For a recording: its model, and nothing is kept."""

    def __init__(self, model: ModelRef | None) -> None:
        self._model = model

    def first_model(self, name: str | None, dtype: str | None) -> ModelRef | None:
        return self._model

    def resolve(self, name: str) -> ModelRef:
        return self._model if self._model is not None else ModelRef(name, name)

    def names(self) -> tuple[str, ...]:
        return (self._model.name,) if self._model is not None else ()

    def adapter(self, name: str) -> str:
        return name

    def adapters(self) -> tuple[str, ...]:
        return ()

    def used(self, name: str) -> None:
        return

    def save(self, settings: Settings) -> None:
        return
