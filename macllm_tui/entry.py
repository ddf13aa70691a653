"""Opens the app on the user's terminal."""

from pathlib import Path

from macllm.engine.client import EngineClient
from macllm.engine.recording import Recorder
from macllm.engine.stream import Engine
from macllm_tui import settings
from macllm_tui.app import MacllmApp, Start


def run(start: Start, *, record: Path | None = None) -> int:
    """Runs the app until the user leaves; returns the exit code. ``record`` keeps the engine's events in a file."""
    engine: Engine = EngineClient()
    if record is not None:
        engine = Recorder(engine, record)
    loaded = settings.load()
    app = MacllmApp(engine, loaded.settings, start, notices=loaded.problems)
    app.run()
    return app.return_code or 0
