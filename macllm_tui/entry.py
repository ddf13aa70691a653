"""Opens the app on the user's terminal."""

from pathlib import Path

from macllm.engine.client import EngineClient
from macllm.engine.recording import Recorder
from macllm.errors import MacllmError
from macllm_tui import settings
from macllm_tui.app import MacllmApp, Start


def run(start: Start, *, record: Path | None = None) -> int:
    """Runs the app until the user leaves; returns the exit code. ``record`` keeps the engine's events in a file.

    Raises InputError, before anything is opened, where that file is there or cannot be made; and at the end
    MacllmError where it could not be written to its end.
    """
    engine = EngineClient(worker="macllm.tune.worker")
    recorder = Recorder(engine, record) if record is not None else None
    loaded = settings.load()
    app = MacllmApp(recorder or engine, loaded.settings, start, notices=loaded.problems)
    if recorder is not None:
        recorder.on_trouble = app.warn
    app.run()
    if recorder is not None and recorder.trouble:
        raise MacllmError(recorder.trouble)
    return app.return_code or 0
