"""What a given-up download left: found, deleted, and nothing else with it."""

import pytest

from macllm.errors import Cancelled
from macllm.hub import store
from macllm.hub.progress import Progress
from macllm.hub.pull import pull
from macllm.hub.unfinished import discard, unfinished

REPO = "org/model"
TWO = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"1" * 300_000,
    "model-00002-of-00002.safetensors": b"2" * 300_000,
}


def stop_in_second(event):
    if isinstance(event, Progress) and event.file.startswith("model-00002") and event.done > 300_000:
        raise Cancelled("stopped")


@pytest.fixture
def half(hub):
    """The first shard is whole, the second broke off."""
    hub.add(REPO, TWO)
    hub.cut["model-00002-of-00002.safetensors"] = [100_000, 0]
    with pytest.raises(Cancelled):
        pull(REPO, report=stop_in_second)


def test_whole_and_broken_parts_are_found_and_deleted(half):
    assert sorted(path.suffix for path in unfinished(REPO, "model")) == ["", ".partial"]
    assert discard(REPO, "model") >= 300_000
    assert unfinished(REPO, "model") == []


def test_another_tools_work_is_left_alone(half, tmp_path):
    blobs = next(tmp_path.rglob("blobs"))
    (blobs / "abc.incomplete").write_bytes(b"x")
    assert [path.suffix for path in unfinished(REPO, "model")] == [".partial"]


def test_a_finished_model_has_nothing_unfinished(hub):
    hub.add(REPO, TWO)
    pull(REPO)
    assert unfinished(REPO, "model") == [] and discard(REPO, "model") == 0
    assert not store.resolve(REPO).missing


def test_nothing_was_ever_begun(hub):
    assert unfinished(REPO, "model") == []
