"""The first run: what is offered, that it comes, and how to leave."""

import random
import threading
from dataclasses import replace

import pytest
from index_server import Index, make_wheel
from model_host import add_model, host, install, machine, text_of, until

from macllm.hub import catalogue
from macllm.hub.source import HubSource, PackageSource
from macllm_tui.screens.models import ModelsScreen
from macllm_tui.screens.welcome import WelcomeScreen
from macllm_tui.widgets.download_lines import DownloadLines

WHEEL = "tiny_model-1.0-py3-none-any.whl"


def offered(app):
    return [option.id for option in app.shown.query_one("OptionList").options]


def lines(app):
    return [option.prompt.plain for option in app.shown.query_one("OptionList").options]


async def test_the_starter_and_the_two_best_that_fit_are_offered(hub):
    app = host(WelcomeScreen, limit_gb=16)
    async with app.run_test():
        await until(lambda: len(offered(app)) == 4)
        starter, first, second, more = offered(app)
        assert (starter, more) == ("starter", "more")
        known = catalogue.entries()
        assert known[first].parameters >= known[second].parameters
        assert first.split("-")[0] != second.split("-")[0], "two families"
        assert all("● fits" in line for line in lines(app)[:3])
        assert "98.4 MB" in lines(app)[0] and "seconds" in lines(app)[0]


async def test_a_small_machine_gets_small_models(hub):
    sizes = {}
    for limit in (5, 16, 100):
        app = host(WelcomeScreen, limit_gb=limit)
        async with app.run_test():
            await until(lambda app=app: len(offered(app)) == 4)
            sizes[limit] = [catalogue.entries()[name].parameters for name in offered(app)[1:3]]
            assert all(catalogue.entries()[name].size_bytes < limit * 1e9 for name in offered(app)[1:3])
    assert max(sizes[5]) < max(sizes[16]) < max(sizes[100])


async def test_before_the_machine_is_known_small_ones_are_offered_without_a_claim(hub):
    app = host(WelcomeScreen, limit_gb=None)
    async with app.run_test():
        await until(lambda: len(offered(app)) == 4)
        assert all("…" in line and "fits" not in line for line in lines(app)[:3])
        before = offered(app)
        app.engine.machine = machine(100)
        await until(lambda: "fits" in lines(app)[1])
        assert offered(app) != before


@pytest.fixture
def pinned_to_nothing(monkeypatch):
    """The catalogue with the tests' files for its own: no hashes, no commits, the starter out of a tiny wheel."""
    known = {}
    for name, entry in catalogue.entries().items():
        source = PackageSource("tiny-model", "1.0", "tiny_model/w.gguf")
        if isinstance(entry.source, HubSource):
            source = HubSource(entry.source.repo)
        known[name] = replace(entry, source=source, sha256={})
    monkeypatch.setattr(catalogue, "entries", lambda: known)
    return known


async def test_enter_downloads_and_begins(hub, monkeypatch, pinned_to_nothing):
    server = Index()
    server.files[WHEEL] = make_wheel({"tiny_model/w.gguf": random.Random(3).randbytes(300_000)})
    server.start()
    monkeypatch.setenv("PIP_INDEX_URL", server.url)
    app = host(WelcomeScreen)
    try:
        async with app.run_test() as pilot:
            await until(lambda: len(offered(app)) == 4)
            await pilot.press("enter")
            await until(lambda: app.result != "not dismissed", app.downloads.all)
        assert app.result.name == "starter" and app.result.sampling == {"temperature": 0.2, "top_p": 0.9}
    finally:
        server.stop()


async def test_a_failure_is_said_and_another_can_be_chosen(hub):
    app = host(WelcomeScreen)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(lambda: len(offered(app)) == 4)
        await pilot.press("down", "enter")
        await until(lambda: "failed" in str(app.screen.query_one(DownloadLines).render()))
        await pilot.press("c")
        assert app.downloads.all == () and "cancelled" in text_of(app, "#said")
        assert app.result == "not dismissed"


async def test_pause_and_resume(hub, tmp_path, pinned_to_nothing):
    app = host(WelcomeScreen)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(lambda: len(offered(app)) == 4)
        source = offered(app)[1]
        hub.add(
            pinned_to_nothing[source].source.repo, {"config.json": b"{}", "model.safetensors": b"w" * 900_000}
        )
        go = threading.Event()
        hub.hold["model.safetensors"] = (500_000, go)
        await pilot.press("down", "enter")
        await until(lambda: sum(path.stat().st_size for path in tmp_path.rglob("*.partial")) == 500_000)
        await pilot.press("p")
        assert app.downloads.of(source).state == "paused"
        assert "paused" in str(app.screen.query_one(DownloadLines).render())
        hub.hold.clear()
        go.set()
        await pilot.press("p")
        await until(lambda: app.result != "not dismissed", app.downloads.all)
    assert app.result.name == source


async def test_more_models_leads_to_the_models_screen_and_back_with_a_model(hub):
    add_model(hub)
    app = host(WelcomeScreen)
    async with app.run_test() as pilot:
        await until(lambda: len(offered(app)) == 4)
        await pilot.press("end", "enter")
        await until(lambda: isinstance(app.screen, ModelsScreen))
        await until(lambda: app.screen.row is not None and app.screen.row.name == "starter")  # the catalogue
        await pilot.press("escape")
        await until(lambda: app.screen is app.shown)
        install(hub)
        await pilot.press("m")
        await until(lambda: isinstance(app.screen, ModelsScreen))
        await pilot.press("1")
        await until(lambda: app.screen.row is not None and app.screen.row.name == "Tiny-4bit")
        await pilot.press("enter")
        await until(lambda: app.result != "not dismissed")
    assert app.result.name == "Tiny-4bit"


async def test_escape_leaves_without_a_model(hub):
    app = host(WelcomeScreen)
    async with app.run_test() as pilot:
        await until(lambda: len(offered(app)) == 4)
        await pilot.press("escape")
    assert app.result is None


async def test_everything_is_seen_on_a_small_terminal(hub):
    app = host(WelcomeScreen)
    async with app.run_test(size=(60, 20)) as pilot:
        await until(lambda: len(offered(app)) == 4)
        await pilot.press("end")
        await pilot.pause()
        assert any(
            "More models" in "".join(part.text for part in strip)
            for strip in app.screen._compositor.render_strips()
        )
