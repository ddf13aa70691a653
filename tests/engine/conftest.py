"""Tiny models on disk for the engine's tests, and the engine over them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

from macllm.engine.events import Token
from macllm.engine.generate import Options, generate
from macllm.engine.loading import Loaded, load_model
from macllm.engine.request import Limits
from macllm.engine.session import Session


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a variant of tests/tiny.py, written once."""
    made: dict[str, Path] = {}

    def folder(variant: str) -> Path:
        if variant not in made:
            made[variant] = tmp_path_factory.mktemp(variant)
            tiny.write_model(tiny.config_of(variant), made[variant])
        return made[variant]

    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Callable[[str], Path]) -> Callable[[str], Loaded]:
    """A variant loaded as a user loads it: without a tokenizer, in float32."""
    made: dict[str, Loaded] = {}

    def loaded(variant: str) -> Loaded:
        if variant not in made:
            made[variant] = load_model(tiny_folder(variant), dtype="float32")
        return made[variant]

    return loaded


@pytest.fixture(scope="session")
def run_greedy() -> Callable[..., list[int]]:
    """Gives the first ``count`` greedy ids after a prompt."""

    def run(loaded: Loaded, prompt: list[int], count: int) -> list[int]:
        options = Options(limits=Limits(max_tokens=count, ignore_eos=True))
        events = generate(loaded, Session(loaded.model), prompt, options)
        return [event.id for event in events if isinstance(event, Token)]

    return run
