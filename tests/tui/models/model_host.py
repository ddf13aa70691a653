"""What the tests of the model screens share: an app around one screen, a machine, and models on a local hub."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from textual.app import App

from macllm.engine.events import Machine
from macllm.hub.pull import pull
from macllm_tui.downloads import Downloads

CONFIG = (Path(__file__).parent.parent.parent / "configs" / "smollm2-135m.json").read_bytes()
WEIGHTS = bytes(range(256)) * 1_600
MLX = ["mlx", "safetensors", "text-generation", "license:apache-2.0"]


def machine(limit_gb: float = 16) -> Machine:
    return Machine("metal", "Apple M2", int(24e9), int(limit_gb * 1e9), "float16")


@dataclass
class EngineThere:
    """As much of an engine as these screens ask of one."""

    machine: Machine | None = None


class Host(App):
    """An app that shows one screen and keeps what it was dismissed with."""

    result: object = "not dismissed"

    def __init__(self, screen, downloads=None):
        super().__init__()
        self.shown, self.downloads = screen, downloads

    def on_mount(self):
        self.push_screen(self.shown, self.took)

    def took(self, result):
        self.result = result


def host(kind, *, limit_gb=16, **arguments):
    """An app around ``kind`` of screen, with downloads of its own."""
    engine = EngineThere(machine(limit_gb) if limit_gb else None)
    downloads = Downloads()
    app = Host(kind(engine, downloads, **arguments), downloads)
    app.engine = engine
    return app


async def until(condition, what="", within_s=20):
    """Waits until ``condition`` holds; fails with ``what`` when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"never: {what or condition}"
        await asyncio.sleep(0.01)


def add_model(hub, repo="org/Tiny-4bit", **about):
    """A small model with a real config."""
    files = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}
    hub.add(repo, files, **{"tags": MLX, "downloads": 50, **about})
    return repo


def install(hub, repo="org/Tiny-4bit", **arguments):
    """One that is on this machine."""
    add_model(hub, repo)
    return pull(repo, **arguments)


def text_of(app, selector):
    """What a Static says."""
    return str(app.screen.query_one(selector).render())
