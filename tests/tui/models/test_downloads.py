"""Downloads of the app: queue, pause, resume, cancel and delete, against a real hub client and real servers."""

import asyncio
import random
import socket
import threading

import pytest
from index_server import Index, make_wheel
from model_host import MLX, add_model, until

from macllm.hub import store
from macllm.hub.unfinished import unfinished
from macllm_tui.downloads import Downloads

REPO = "org/Big"
BIG = random.Random(5).randbytes(3_000_000)


def add_big(hub, repo=REPO, *, held=1_000_000):
    """A model whose weights stop in the middle until the event is set."""
    hub.add(repo, {"config.json": b"{}", "model.safetensors": BIG}, tags=MLX)
    event = threading.Event()
    if held:
        hub.hold["model.safetensors"] = (held, event)
    return event


def arrived(tmp_path):
    return sum(path.stat().st_size for path in tmp_path.rglob("*.partial"))


def bodies(hub):
    return [request for request in hub.bodies() if request.path.endswith("model.safetensors")]


async def test_a_download_tells_how_far_it_is_and_ends_installed(hub):
    add_big(hub, held=0)
    downloads, seen = Downloads(), []
    downloads.listen(seen.append)
    downloads.add(REPO)
    await until(lambda: downloads.of(REPO).state == "done", downloads.of(REPO))
    assert store.resolve("Big") is not None and downloads.of(REPO).name == "Big"
    states = [each.state for each in seen]
    assert states[0] == "waiting" and states[-1] == "done" and "running" in states
    last = seen[-1]
    assert last.done == last.total == len(BIG) + 2 and not last.open
    counts = [each.done for each in seen]
    assert counts == sorted(counts)


async def test_pause_stops_the_transfer_and_resume_goes_on_at_the_byte(hub, tmp_path):
    add_big(hub, held=0)
    hub.trickle.add("model.safetensors")
    downloads = Downloads()
    downloads.add(REPO)
    await until(lambda: arrived(tmp_path) >= 200_000)
    downloads.pause(REPO)
    assert downloads.of(REPO).state == "paused", "at once, whatever the server does"
    await until(lambda: not downloads._jobs[REPO].busy)
    kept = arrived(tmp_path)
    assert 200_000 <= kept < len(BIG) and store.resolve("Big") is None
    downloads.resume(REPO)
    await until(lambda: downloads.of(REPO).state == "done", downloads.of(REPO))
    assert bodies(hub)[-1].range == f"bytes={kept}-"
    assert (store.resolve("Big").path / "model.safetensors").read_bytes() == BIG


async def test_resumed_before_the_server_let_go_it_waits_for_it(hub, tmp_path):
    go = add_big(hub)
    downloads = Downloads()
    downloads.add(REPO)
    await until(lambda: arrived(tmp_path) == 1_000_000)
    downloads.pause(REPO)
    downloads.resume(REPO)
    assert downloads.of(REPO).state == "waiting", "two threads must not write one file"
    hub.hold.clear()
    go.set()
    await until(lambda: downloads.of(REPO).state == "done", downloads.of(REPO))
    assert (store.resolve("Big").path / "model.safetensors").read_bytes() == BIG


async def test_several_come_one_after_the_other(hub, tmp_path):
    go = add_big(hub)
    add_model(hub, "org/Small")
    downloads = Downloads()
    downloads.add(REPO)
    downloads.add("org/Small")
    await until(lambda: arrived(tmp_path) == 1_000_000)
    assert [each.state for each in downloads.all] == ["running", "waiting"]
    assert not any("Small" in request.path for request in hub.requests)
    hub.hold.clear()
    go.set()
    await until(lambda: all(each.state == "done" for each in downloads.all), downloads.all)


async def test_a_paused_one_lets_the_next_go(hub, tmp_path):
    add_big(hub)
    hub.add("org/Ggufs", {"a-Q4_0.gguf": b"g" * 5_000})
    downloads = Downloads()
    downloads.add(REPO)
    downloads.add("org/Ggufs/a-Q4_0.gguf")
    await until(lambda: arrived(tmp_path) == 1_000_000)
    downloads.pause(REPO)
    await until(lambda: downloads.of("org/Ggufs/a-Q4_0.gguf").state == "done", downloads.all)
    assert downloads.of(REPO).state == "paused"


async def test_cancel_keeps_what_arrived_and_a_later_one_goes_on(hub, tmp_path):
    add_big(hub, held=0)
    hub.trickle.add("model.safetensors")
    downloads = Downloads()
    downloads.add(REPO)
    await until(lambda: arrived(tmp_path) >= 200_000)
    downloads.cancel(REPO)
    assert downloads.all == () and downloads.of(REPO) is None
    downloads.add(REPO)
    assert downloads.of(REPO).state == "waiting", "the cancelled one still holds the file"
    await until(lambda: downloads.of(REPO).state == "done", downloads.of(REPO))
    assert bodies(hub)[-1].range is not None


async def test_delete_throws_away_what_arrived(hub, tmp_path):
    go = add_big(hub)
    downloads = Downloads()
    downloads.add(REPO)
    await until(lambda: arrived(tmp_path) == 1_000_000)
    deleting = asyncio.ensure_future(downloads.delete(REPO))
    await asyncio.sleep(0)
    go.set()
    assert await deleting >= 1_000_000
    assert arrived(tmp_path) == 0 and unfinished(REPO, "Big") == []


async def test_delete_leaves_what_a_finished_model_shows(hub, tmp_path):
    add_model(hub, "org/Small")
    downloads = Downloads()
    downloads.add("org/Small")
    await until(lambda: downloads.of("org/Small").state == "done", downloads.all)
    assert await downloads.delete("org/Small") == 0
    assert not store.resolve("Small").missing


async def test_a_failure_is_a_sentence_with_a_way_on(hub, monkeypatch):
    downloads = Downloads()
    downloads.add("org/none")
    await until(lambda: downloads.of("org/none").state == "failed", downloads.all)
    assert "org/none does not exist" in downloads.of("org/none").note
    add_model(hub, "org/none")
    downloads.resume("org/none")
    await until(lambda: downloads.of("org/none").state == "done", downloads.all)


async def test_without_a_connection_the_sentence_names_the_key(hub, monkeypatch):
    from huggingface_hub import constants

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    downloads = Downloads()
    downloads.add("org/model")
    await until(lambda: downloads.of("org/model").state == "failed", downloads.all)
    note = downloads.of("org/model").note
    assert "cannot be reached" in note and note.endswith("press p to go on") and "command" not in note


async def test_a_broken_connection_is_said_while_it_is_made_again(hub):
    add_big(hub, held=0)
    hub.cut["model.safetensors"] = [400_000, 0]
    downloads, notes = Downloads(), []
    downloads.listen(lambda download: notes.append(download.note))
    downloads.add(REPO)
    await until(lambda: downloads.of(REPO).state == "done", downloads.all)
    assert any("trying again in" in note for note in notes)


async def test_a_name_that_is_taken_gets_its_owners(hub):
    add_model(hub, "one/Same")
    add_model(hub, "two/Same")
    downloads = Downloads()
    downloads.add("one/Same")
    downloads.add("two/Same")
    await until(lambda: all(not each.open for each in downloads.all), downloads.all)
    assert [each.name for each in downloads.all] == ["Same", "two-Same"]


async def test_a_package_stopped_while_it_is_unpacked_keeps_its_wheel(hub, monkeypatch):
    from macllm.errors import Cancelled
    from macllm.hub.progress import Checking
    from macllm.hub.pull import pull

    server = Index()
    server.style = "json"  # which states the size
    wheel = "tiny_model-1.0-py3-none-any.whl"
    server.files[wheel] = make_wheel({"tiny_model/w.gguf": BIG})
    server.start()
    monkeypatch.setenv("PIP_INDEX_URL", server.url)

    def stop(event):
        if isinstance(event, Checking):
            raise Cancelled("stopped")

    source = "pypi:tiny-model==1.0/tiny_model/w.gguf"
    try:
        with pytest.raises(Cancelled):
            pull(source, report=stop)
        left = unfinished(source, "w")
        assert [path.name for path in left] == [f"{wheel}.partial"]
        before = [path for path, *_ in server.requests].count(f"/files/{wheel}")
        assert pull(source).path.read_bytes() == BIG
        assert [path for path, *_ in server.requests].count(f"/files/{wheel}") == before, "only unpacked"
    finally:
        server.stop()


async def test_listeners_can_leave(hub):
    add_model(hub)
    downloads, seen = Downloads(), []
    leave = downloads.listen(seen.append)
    leave()
    downloads.add("org/Tiny-4bit")
    await until(lambda: downloads.of("org/Tiny-4bit").state == "done", downloads.all)
    assert seen == []
