"""The models screen: what it lists and says, and each of its keys."""

import asyncio
import random
import threading

import pytest
from model_host import MLX, add_model, host, install, machine, text_of, until

from macllm.engine.protocol import ModelRef
from macllm.hub import store
from macllm.hub.catalogue import entries
from macllm_tui.drawers.choices import Confirm
from macllm_tui.screens.explain import ExplainScreen
from macllm_tui.screens.models import ModelsScreen
from macllm_tui.screens.variants import VariantsScreen
from macllm_tui.widgets.download_lines import DownloadLines
from macllm_tui.widgets.model_list import ModelList, shortened

BIG = random.Random(5).randbytes(3_000_000)


def names(app):
    return [row.name for row in app.screen.query_one(ModelList).rows]


async def opened(app, pilot, *, rows=1):
    await until(lambda: len(app.screen.query(ModelList)) and len(names(app)) >= rows, "rows are listed")
    await pilot.pause()


async def search(app, pilot, words="tiny", rows=1):
    await pilot.press("3", *words, "enter")
    await opened(app, pilot, rows=rows)


def said(app):
    return text_of(app, "#said")


def held(hub, repo="org/Tiny-Big"):
    """A model whose download stops in the middle; the event lets it go on."""
    hub.add(repo, {"config.json": b"{}", "model.safetensors": BIG}, tags=MLX, downloads=9)
    event = threading.Event()
    hub.hold["model.safetensors"] = (1_000_000, event)
    return repo, event


async def test_installed_models_are_listed_and_enter_uses_one(hub):
    install(hub)
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await opened(app, pilot)
        assert names(app) == ["Tiny-4bit"]
        await pilot.press("enter")
        await until(lambda: app.result != "not dismissed")
    assert app.result == ModelRef("Tiny-4bit", str(store.resolve("Tiny-4bit").path))


async def test_escape_closes_and_changes_nothing(hub):
    install(hub)
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await opened(app, pilot)
        await pilot.press("escape")
        assert app.result is None
    assert store.resolve("Tiny-4bit") is not None


async def test_no_model_yet_says_what_to_do(hub):
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await until(lambda: "No model is on this machine yet. Press 2" in text_of(app, "#empty"))
        await pilot.press("enter", "d", "v", "x", "delete")  # nothing to act on
        assert app.screen is app.shown


async def test_the_catalogue_has_a_badge_for_each_and_the_facts_of_one(hub):
    app = host(ModelsScreen, limit_gb=10)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("2")
        await opened(app, pilot, rows=len(entries()))
        marks = {option.prompt.plain[0] for option in app.screen.query_one(ModelList).options}
        assert marks == {"●", "◐", "○"}
        app.screen.query_one(ModelList).highlighted = names(app).index("qwen3-8b")
        await pilot.pause()
        text = text_of(app, "#text")
        for fact in (
            "Qwen3 8B",
            "4.6 GB",
            "4 bit",
            "40,960",
            "Apache-2.0",
            "qwen3-0.6b",
            "free",
            "Thinks before",
        ):
            assert fact in text


async def test_until_the_machine_is_known_nothing_is_claimed(hub):
    app = host(ModelsScreen, limit_gb=None)
    async with app.run_test() as pilot:
        await pilot.press("2")
        await opened(app, pilot)
        options = app.screen.query_one(ModelList).options
        assert {option.prompt.plain[0] for option in options} == {"…"}
        app.engine.machine = machine(16)
        await until(lambda: app.screen.query_one(ModelList).options[0].prompt.plain[0] == "●")


async def test_the_config_makes_the_fit_exact(hub):
    add_model(hub)
    hub.repos["org/Tiny-4bit"].about["safetensors"] = {"parameters": {"BF16": 200_000}, "total": 200_000}
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await search(app, pilot)
        await until(lambda: "8,192 tokens" in text_of(app, "#text"), "the spec's context")
        assert "judged by its size alone" not in text_of(app, "#text")


async def test_without_a_config_the_size_is_judged_and_the_reason_said(hub):
    hub.add(
        "org/Tiny-bare",
        {"model.safetensors": BIG},
        tags=MLX,
        safetensors={"parameters": {"U8": 9}, "total": 9},
    )
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await search(app, pilot)
        await until(lambda: "has no config.json" in text_of(app, "#text"))
        assert "judged by its size alone" in text_of(app, "#text")


@pytest.mark.parametrize("key", ["slash"])
async def test_slash_filters_and_escape_shows_all(hub, key):
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await pilot.press("2")
        await opened(app, pilot)
        await pilot.press(key, *"gemma-3", "enter")
        await pilot.pause()
        assert names(app) and all("gemma-3" in name for name in names(app))
        assert app.focused is app.screen.query_one(ModelList)
        await pilot.press(key, "escape")
        await pilot.pause()
        assert len(names(app)) == len(entries()) and app.result == "not dismissed"
        await pilot.press(key, *"zzz")
        await pilot.pause()
        assert names(app) == [] and "No model of the catalogue" in text_of(app, "#empty")


async def test_down_goes_from_the_words_to_the_list(hub):
    add_model(hub)
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await search(app, pilot)
        await pilot.press("slash")
        assert app.focused.id == "words"
        await pilot.press("down")
        assert app.focused is app.screen.query_one(ModelList)


async def test_a_search_shows_what_the_hub_has_and_marks_what_is_gated(hub):
    add_model(hub, license="mit")
    add_model(hub, "org/Tiny-locked", downloads=5)
    hub.repos["org/Tiny-locked"].gated = True
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await search(app, pilot, rows=2)
        assert names(app) == ["org/Tiny-4bit", "org/Tiny-locked"]
        lines = [option.prompt.plain for option in app.screen.query_one(ModelList).options]
        assert "gated" in lines[1] and "gated" not in lines[0]
        await pilot.press("down")
        await until(lambda: "accept its terms" in text_of(app, "#text"))


async def test_a_search_that_finds_nothing_or_fails_is_a_sentence(hub, monkeypatch):
    from huggingface_hub import constants

    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await pilot.press("3", *"none", "enter")
        await until(lambda: "no model to run under 'none'" in text_of(app, "#empty"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        await pilot.press("slash", "enter")
        await until(lambda: "HF_HUB_OFFLINE forbids" in text_of(app, "#empty"))


@pytest.mark.parametrize("key", ["d", "space"])
async def test_download_brings_the_model_and_stays(hub, key):
    add_model(hub)
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await search(app, pilot)
        await pilot.press(key)
        await until(lambda: "Tiny-4bit is here" in said(app))
        await until(lambda: app.screen.row is not None and app.screen.row.here)
        await pilot.press(key)
        await until(lambda: "on this machine already" in said(app))
        assert app.result == "not dismissed"
        await pilot.press("1")
        await until(lambda: names(app) == ["Tiny-4bit"])


async def test_enter_on_a_missing_model_downloads_it_and_goes_on(hub):
    add_model(hub)
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await search(app, pilot)
        await pilot.press("enter")
        await until(lambda: app.result != "not dismissed")
        assert app.result.name == "Tiny-4bit"


async def test_what_is_too_big_is_asked_about_first(hub):
    add_model(hub)
    hub.repos["org/Tiny-4bit"].about["safetensors"] = {"parameters": {"BF16": 9 * 10**9}, "total": 1}
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await search(app, pilot)
        await pilot.press("d")
        await until(lambda: isinstance(app.screen, Confirm))
        await pilot.press("escape")
        await pilot.pause()
        assert app.downloads.all == ()
        await pilot.press("d")
        await until(lambda: isinstance(app.screen, Confirm))
        await pilot.press("enter")
        await until(lambda: app.downloads.of("org/Tiny-4bit") is not None)


async def test_pause_resume_and_cancel(hub):
    repo, go = held(hub)
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await search(app, pilot)
        assert "pause" not in footer(app), "nothing to pause"
        await pilot.press("d")
        await until(lambda: app.downloads.of(repo) is not None and app.downloads.of(repo).total)
        await pilot.pause()
        assert {"pause", "cancel"} <= footer(app)
        await pilot.press("p")
        assert app.downloads.of(repo).state == "paused"
        assert "paused" in app.screen.query_one(ModelList).options[0].prompt.plain
        assert "paused" in str(app.screen.query_one(DownloadLines).render())
        await pilot.press("p")
        assert app.downloads.of(repo).state in ("waiting", "running")
        await pilot.press("c")
        assert app.downloads.all == () and "was cancelled" in said(app)
        assert not app.screen.query_one(DownloadLines).has_class("shown")
        go.set()


def footer(app):
    return {binding.description for _, binding, enabled, _ in app.screen.active_bindings.values() if enabled}


async def test_a_cancelled_model_is_not_used_when_it_comes_later(hub):
    repo, go = held(hub)
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await search(app, pilot)
        await pilot.press("enter")
        await until(lambda: app.downloads.of(repo) is not None)
        await pilot.press("c", "d")
        hub.hold.clear()
        go.set()
        await until(lambda: "Tiny-Big is here" in said(app))
        assert app.result == "not dismissed"


async def test_a_download_survives_the_screen(hub):
    repo, go = held(hub)
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await search(app, pilot)
        await pilot.press("enter")
        await until(lambda: app.downloads.of(repo) is not None)
        await pilot.press("escape")
        assert app.result is None
        hub.hold.clear()
        go.set()
        await until(lambda: app.downloads.of(repo).state == "done", app.downloads.all)
        app.push_screen(ModelsScreen(app.engine, app.downloads))
        await until(lambda: app.screen.query(ModelList) and names(app) == ["Tiny-Big"])


async def test_a_failure_stays_on_the_screen_with_its_key(hub):
    app = host(ModelsScreen)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("2")
        await opened(app, pilot)
        app.screen.query_one(ModelList).highlighted = names(app).index("qwen3-0.6b")
        await pilot.press("d")
        await until(lambda: "failed" in str(app.screen.query_one(DownloadLines).render()))
        assert "does not exist" in str(app.screen.query_one(DownloadLines).render())


@pytest.mark.parametrize("key", ["delete", "backspace"])
async def test_delete_asks_says_what_it_frees_and_does_it(hub, key):
    install(hub)
    app = host(ModelsScreen, current="Tiny-4bit")
    async with app.run_test() as pilot:
        await opened(app, pilot)
        await pilot.press(key)
        await until(lambda: isinstance(app.screen, Confirm))
        question = text_of(app, "#question")
        assert "Tiny-4bit" in question and "It is in use now" in question and "kB are freed" in question
        await pilot.press("escape")
        assert store.resolve("Tiny-4bit") is not None
        await pilot.press(key)
        await until(lambda: isinstance(app.screen, Confirm))
        await pilot.press("enter")
        await until(lambda: "is deleted" in said(app) and names(app) == [])
    assert store.resolve("Tiny-4bit") is None


async def test_files_that_macllm_did_not_fetch_are_kept_and_that_is_said(hub, tmp_path):
    from macllm.hub.pull import pull

    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    pull(str(folder), name="mine")
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await opened(app, pilot)
        await pilot.press("delete")
        await until(lambda: isinstance(app.screen, Confirm))
        assert f"Its files stay at {folder}" in text_of(app, "#question")
        await pilot.press("enter")
        await until(lambda: "its files stay" in said(app))
    assert (folder / "config.json").exists() and store.installed() == []


async def test_delete_removes_what_a_cancelled_download_left(hub, tmp_path):
    _, go = held(hub)
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await search(app, pilot)
        await pilot.press("delete")
        await until(lambda: "nothing to delete" in said(app))
        await pilot.press("d")
        await until(lambda: sum(path.stat().st_size for path in tmp_path.rglob("*.partial")) == 1_000_000)
        await pilot.press("c")
        await pilot.press("delete")
        await until(lambda: isinstance(app.screen, Confirm))
        assert "1.0 MB" in text_of(app, "#question")
        go.set()
        await asyncio.to_thread(until_ended, tmp_path)
        await pilot.press("enter")
        await until(lambda: "freed" in said(app))
    assert not list(tmp_path.rglob("*.partial"))


def until_ended(tmp_path):
    """Waits until no thread holds the file."""
    import fcntl
    import time

    for path in tmp_path.rglob("*.partial"):
        for _ in range(1_000):
            try:
                with path.open("r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
            except (BlockingIOError, FileNotFoundError):
                time.sleep(0.01)


async def test_the_quantization_of_a_gguf_is_chosen_before_it_is_downloaded(hub):
    files = {"Tiny-Q4_K_M.gguf": b"4" * 5_000, "Tiny-Q8_0.gguf": b"8" * 9_000}
    hub.add("org/Tiny-GGUF", files, tags=["gguf"], downloads=7)
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await search(app, pilot)
        assert "Choose a quantization with v" in text_of(app, "#text")
        await pilot.press("d")
        await until(lambda: isinstance(app.screen, VariantsScreen) and app.screen._choices)
        lines = [option.prompt.plain.split() for option in app.screen.query_one("OptionList").options]
        assert [line[:3] for line in lines] == [["Q4_K_M", "5.0", "kB"], ["Q8_0", "9.0", "kB"]]
        assert all(line[-1] == "fits" for line in lines)
        await pilot.press("up", "home", "enter")
        await until(lambda: "Tiny-Q4_K_M is here" in said(app), app.downloads.all)
    assert store.resolve("Tiny-Q4_K_M").size_bytes == 5_000


async def test_v_puts_another_quantization_in_the_models_place(hub):
    add_model(hub)
    add_model(hub, "org/Tiny-8bit", safetensors={"parameters": {"U32": 100}, "total": 100}, downloads=1)
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await search(app, pilot, rows=2)
        await pilot.press("v")
        await until(lambda: isinstance(app.screen, VariantsScreen) and app.screen._choices)
        await pilot.press("escape")
        await until(lambda: isinstance(app.screen, ModelsScreen))
        assert names(app) == ["org/Tiny-4bit", "org/Tiny-8bit"]
        await pilot.press("v")
        await until(lambda: isinstance(app.screen, VariantsScreen) and app.screen._choices)
        await pilot.press("home", "enter")
        await until(lambda: isinstance(app.screen, ModelsScreen) and app.screen.row.source == "org/Tiny-8bit")


async def test_v_where_there_is_no_choice_says_so(hub):
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await pilot.press("2")
        await opened(app, pilot)
        await pilot.press("v")
        await until(lambda: "only one form" in said(app))


async def test_x_explains(hub):
    install(hub)
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await opened(app, pilot)
        await pilot.press("x")
        await until(lambda: isinstance(app.screen, ExplainScreen))
        await pilot.press("escape")
        await until(lambda: isinstance(app.screen, ModelsScreen))


async def test_a_model_whose_files_are_gone_can_be_fetched_again(hub):
    model = install(hub)
    (model.path / "model.safetensors").unlink()
    app = host(ModelsScreen)
    async with app.run_test() as pilot:
        await opened(app, pilot)
        assert "gone" in app.screen.query_one(ModelList).options[0].prompt.plain
        await pilot.press("d")
        await until(lambda: "is here" in said(app))
    assert not store.resolve("Tiny-4bit").missing


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
async def test_list_and_details_are_both_seen_at_every_size(hub, size):
    app = host(ModelsScreen)
    async with app.run_test(size=size) as pilot:
        await pilot.press("2")
        await opened(app, pilot)
        left, right = app.screen.query_one(ModelList).region, app.screen.query_one("#details").region
        assert left.height >= 5 and right.height >= 5 and left.width >= 40 and right.width >= 40
        assert (left.y == right.y) == (size[0] >= 100), "side by side from 100 columns on"
        await pilot.press("tab")
        assert app.focused.id == "details", "what does not fit is scrolled to"


def test_a_long_name_keeps_its_ends():
    name = "mlx-community/DeepSeek-R1-Distill-Qwen-32B-abliterated-4bit"
    for room in range(10, 70):
        short = shortened(name, room)
        assert len(short) == min(room, len(name))
        assert short.endswith("4bit") and short.startswith("mlx")
