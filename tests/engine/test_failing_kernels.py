"""A kernel that fails while a model runs is switched off, in one sentence, and the reply is what it would have been."""

from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx
import pytest
import tiny
from stand_ins import noting, right

from macllm.engine import placement
from macllm.engine.events import Done, Event, Notice, Prefill, Token
from macllm.engine.generate import Options, generate
from macllm.engine.loading import Loaded, load_model
from macllm.engine.request import Limits, Sampling
from macllm.engine.session import Session
from macllm.kernels import dispatch, permission
from macllm.kernels.kernel import Launch, Runner
from macllm.kernels.switch import SWITCH
from macllm.weights.convert import convert
from macllm.weights.plan import Target

PROMPT = tiny.tokens(21, seed=3)
COUNT = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(
        tiny.reference("qwen3", wide=True).folder, tmp_path_factory.mktemp("nf4") / "out", Target(mode="nf4")
    ).path


@pytest.fixture
def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loaded]:
    """A model whose matrices stay packed, and kernels that stand-ins understand."""
    monkeypatch.setenv("MACLLM_KERNELS", "on")
    monkeypatch.setattr(placement, "EXPAND_SHARE", 0)
    monkeypatch.setattr(dispatch, "KERNELS", {k: noting(v) for k, v in dispatch.KERNELS.items()})
    SWITCH.reset()
    permission.changed()
    yield load_model(folder, dtype="float32")
    SWITCH.reset()
    permission.changed()


class Failing:
    """Right, until a launch of kernels whose name begins so is asked for the ``after``-th time."""

    def __init__(self, begins: str, after: int, fail: Callable[[Launch], list[mx.array]]) -> None:
        self.begins, self.left, self.fail = begins, after, fail
        self.calls = 0

    def __call__(self, launch: Launch) -> list[mx.array]:
        self.calls += 1
        if launch.body.name.startswith(self.begins):
            self.left -= 1
            if self.left < 0:
                return self.fail(launch)
        return right(launch)


def names_itself(launch: Launch) -> list[mx.array]:
    raise RuntimeError(
        f"[metal::Device] Unable to load kernel custom_kernel_{launch.body.name}_float_64_float\n"
    )


def names_nothing(launch: Launch) -> list[mx.array]:
    raise RuntimeError(
        "[metal::Device] Unable to build metal library from source\nprogram_source:1:1: error: no"
    )


def refused(launch: Launch) -> list[mx.array]:
    raise ValueError("[metal_kernel] threadgroup is too large")


def when_computed(launch: Launch) -> list[mx.array]:
    none = mx.linalg.inv(mx.zeros((2, 2)), stream=mx.cpu)[0, 0]
    return [array + none for array in right(launch)]


def run(loaded: Loaded, runner: Runner, session: Session | None = None, **options: object) -> list[Event]:
    given = Options(limits=Limits(max_tokens=COUNT, ignore_eos=True), **options)  # type: ignore[arg-type]
    with permission.running_on(runner):
        return list(generate(loaded, session or Session(loaded.model), PROMPT, given))


def ids(events: list[Event]) -> list[int]:
    return [event.id for event in events if isinstance(event, Token)]


@pytest.mark.parametrize("fail", [names_itself, names_nothing, refused, when_computed])
@pytest.mark.parametrize("after", [0, 30])
def test_the_reply_is_what_it_would_have_been(
    loaded: Loaded, fail: Callable[[Launch], list[mx.array]], after: int
) -> None:
    expected = ids(run(loaded, right))
    events = run(loaded, Failing("nf4_matvec", after, fail))
    assert ids(events) == expected
    assert len(expected) == COUNT
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert len(notices) == 1
    assert "nf4_matvec" in notices[0]
    assert "plain MLX carries on" in notices[0]
    assert "\n" not in notices[0]
    done = events[-1]
    assert isinstance(done, Done)
    assert done.metrics.decode_tokens == COUNT
    first = next(i for i, event in enumerate(events) if isinstance(event, Token))
    assert not any(isinstance(event, Prefill) for event in events[first:])


def test_only_what_is_named_is_switched_off(loaded: Loaded) -> None:
    run(loaded, Failing("nf4_matvec", 0, names_itself))
    assert set(SWITCH.off) == {"nf4_matvec"}


def test_what_names_nothing_switches_off_all_in_use(loaded: Loaded) -> None:
    failing = Failing("nf4_matvec", 0, names_nothing)
    run(loaded, failing)
    assert {"nf4_matvec", "nf4_dequantize"} <= set(SWITCH.off)
    calls = failing.calls
    assert not any(isinstance(event, Notice) for event in run(loaded, failing))
    assert failing.calls == calls  # from then on they are not asked


def test_a_failure_in_the_prompt_begins_the_prompt_anew(loaded: Loaded) -> None:
    events = run(loaded, Failing("nf4_dequantize", 0, names_itself))
    assert ids(events) == ids(run(loaded, right))
    assert [event.message.split()[2] for event in events if isinstance(event, Notice)] == ["nf4_dequantize"]
    assert [event.done for event in events if isinstance(event, Prefill)][-1] == len(PROMPT)


def test_a_session_goes_on_after_it(loaded: Loaded) -> None:
    session = Session(loaded.model)
    run(loaded, Failing("nf4_matvec", 5, when_computed), session)
    assert session.tokens[: len(PROMPT)] == list(PROMPT)
    fresh = Session(loaded.model)
    assert ids(run(loaded, right, session)) == ids(run(loaded, right, fresh))


def test_penalties_see_what_was_written_before(loaded: Loaded) -> None:
    sampling = Sampling(repetition_penalty=1.3, presence_penalty=0.5)
    expected = ids(run(loaded, right, sampling=sampling))
    assert ids(run(loaded, Failing("nf4_matvec", 30, names_itself), sampling=sampling)) == expected


def test_an_error_that_is_no_kernels_is_raised(loaded: Loaded) -> None:
    class Cancel:
        def is_set(self) -> bool:
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        run(loaded, right, cancel=Cancel())


def test_memory_that_runs_out_is_no_kernels_fault(loaded: Loaded) -> None:
    def fail(launch: Launch) -> list[mx.array]:
        raise RuntimeError("[malloc] Unable to allocate 9 bytes.")

    with pytest.raises(Exception, match="memory ran out"):
        run(loaded, Failing("nf4_matvec", 0, fail))
    assert not SWITCH.off
