"""Transfers: whatever the connection does, the target is whole and right or it is not there."""

import errno
import fcntl
import hashlib
import random
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macllm.errors import DownloadError
from macllm.hub.progress import Meter, Progress, ignore
from macllm.hub.transfer import Body, BrokenTransferError, Wanted, bytes_here, fetch, remove_stale_partials

CONTENT = random.Random(1).randbytes(10_000)
CUT = BrokenTransferError("cut")
SHA = hashlib.sha256(CONTENT).hexdigest()


def source(cuts=(), *, ranges=True, content=CONTENT, opened=None, error=CUT):
    """An Open whose first answers end after ``cuts`` bytes."""
    left = list(cuts)

    @contextmanager
    def open_at(offset):
        start = offset if ranges else 0
        if opened is not None:
            opened.append(offset)
        body = content[start:]
        cut = left.pop(0) if left else None

        def chunks():
            for at in range(0, len(body) if cut is None else min(cut, len(body)), 700):
                yield body[at : at + 700] if cut is None else body[at : min(at + 700, cut)]
            if cut is not None:
                raise error

        yield Body(start, chunks(), len(content))

    return open_at


def wanted(folder, size=10_000, sha=SHA):
    return Wanted("w", Path(folder) / "w.bin", size, sha)


def run(want, open_at, report=ignore):
    meter = Meter(report, want.size or 0, present=bytes_here(want), interval_s=0)
    return fetch(want, open_at, meter, pause=lambda seconds: None)


@given(
    cuts=st.lists(st.integers(0, 9_999), max_size=5),
    present=st.integers(0, 10_000),
    ranges=st.booleans(),
    known=st.booleans(),
)
def test_any_way_to_be_cut_ends_in_the_same_file(cuts, present, ranges, known):
    with tempfile.TemporaryDirectory() as folder:
        want = wanted(folder, len(CONTENT) if known else None, SHA if known else None)
        want.partial.write_bytes(CONTENT[:present])
        counts = []

        def report(event):
            if isinstance(event, Progress):
                counts.append(event.done)

        assert run(want, source(cuts, ranges=ranges), report) == SHA
        assert want.target.read_bytes() == CONTENT and not want.partial.exists()
        assert counts[-1] == len(CONTENT)


def test_bytes_that_are_here_are_not_asked_for(tmp_path):
    opened = []
    want = wanted(tmp_path)
    want.partial.write_bytes(CONTENT[:4_000])
    run(want, source([1_000], opened=opened))
    assert opened == [4_000, 5_000]


def test_a_whole_partial_needs_no_connection(tmp_path):
    opened = []
    want = wanted(tmp_path)
    want.partial.write_bytes(CONTENT)
    assert run(want, source(opened=opened)) == SHA
    assert opened == []


def test_giving_up_keeps_what_arrived(tmp_path):
    want = wanted(tmp_path)
    with pytest.raises(DownloadError, match=r"w: the transfer broke at byte 3000 of 10000 \(cut\).*resume"):
        run(want, source([3_000] + [0] * 6))
    assert want.partial.read_bytes() == CONTENT[:3_000] and not want.target.exists()


def test_an_interrupt_keeps_what_arrived(tmp_path):
    want = wanted(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(want, source([3_000], error=KeyboardInterrupt()))
    assert want.partial.read_bytes() == CONTENT[:3_000] and not want.target.exists()


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"!", CONTENT + b"!"])
def test_other_content_leaves_nothing(tmp_path, content):
    want = wanted(tmp_path)
    with pytest.raises(DownloadError, match="the download is damaged"):
        run(want, source(content=content))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_a_sentence(tmp_path):
    want = wanted(tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DownloadError, match=rf"w: the disk of {tmp_path} is full; free some space"):
        run(want, source([3_000], error=full))
    assert want.partial.stat().st_size == 3_000


def test_two_processes_do_not_write_one_file(tmp_path):
    want = wanted(tmp_path)
    with want.partial.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="w is being downloaded by another process"):
            run(want, source())
        remove_stale_partials(tmp_path)
        assert want.partial.exists(), "somebody works on it"
    remove_stale_partials(tmp_path)
    assert not want.partial.exists()


def test_events_are_few_and_tell_speed_and_time_left():
    now = [0.0]
    events = []
    meter = Meter(events.append, 1_000, clock=lambda: now[0])
    meter.start("f")
    for _ in range(100):
        now[0] += 0.01
        meter.add(5)
    assert 9 <= len(events) <= 12, "ten a second"
    assert events[0] == Progress("f", 0, 1_000, None, None)
    assert events[-1].speed_bps == pytest.approx(500) and events[-1].eta_s == pytest.approx(1.0, rel=0.1)


def test_the_speed_follows_the_network():
    now = [0.0]
    events = []
    meter = Meter(events.append, 10_000, present=4_000, clock=lambda: now[0])
    for speed in (1_000, 10):
        for _ in range(60 if speed == 10 else 3):
            now[0] += 1.0
            meter.add(speed)
    assert events[0].speed_bps == 1_000, "what was here before is not speed"
    assert events[-1].speed_bps == pytest.approx(10)
