"""Learning rates against NumPy, and what every schedule promises."""

import numpy as np
import pytest

from macllm.errors import OptionError
from macllm.tune.schedules import SHAPES, Schedule, learning_rate

PEAK = 3e-4


def rates(schedule: Schedule, steps: int | None = None) -> np.ndarray:
    return np.array([learning_rate(schedule, PEAK, step) for step in range(steps or schedule.steps)])


def test_constant_after_a_warmup() -> None:
    expected = np.concatenate([PEAK * np.arange(1, 11) / 10, np.full(90, PEAK)])
    assert np.allclose(rates(Schedule("constant", 100, warmup=10)), expected, rtol=1e-12)


def test_linear_is_a_line_from_the_peak_to_the_final_share() -> None:
    expected = np.interp(np.arange(10, 100), [10, 100], [PEAK, 0.1 * PEAK])
    assert np.allclose(rates(Schedule("linear", 100, warmup=10, final=0.1))[10:], expected, rtol=1e-12)


def test_cosine_is_half_a_wave() -> None:
    expected = PEAK * (0.2 + 0.8 * (1 + np.cos(np.pi * np.arange(80) / 80)) / 2)
    assert np.allclose(rates(Schedule("cosine", 100, warmup=20, final=0.2))[20:], expected, rtol=1e-12)


def test_wsd_is_stable_and_then_falls() -> None:
    found = rates(Schedule("wsd", 100, warmup=10, decay=0.3))
    assert np.allclose(found[10:71], PEAK, rtol=1e-12)
    assert np.allclose(found[70:], np.interp(np.arange(70, 100), [70, 100], [PEAK, 0]), rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize("final", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0])
def test_every_step_of_every_schedule_moves_and_none_goes_beyond_the_peak(
    shape: str, steps: int, warmup: int, final: float, decay: float
) -> None:
    if warmup > steps:
        return
    schedule = Schedule(shape, steps, warmup, final, decay)
    found = rates(schedule)
    assert (found > 0).all() and found.max() == pytest.approx(PEAK)
    assert (np.diff(found[warmup:]) <= 1e-18).all()
    beyond = rates(schedule, steps + 5)[steps:]  # a run that is prolonged stays at the end
    assert (beyond >= 0).all() and np.allclose(beyond, beyond[0])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"shape": "exponential"}, "exponential"),
        ({"steps": 0}, "0 steps"),
        ({"warmup": 11, "steps": 10}, "warmup 11"),
        ({"final": 1.5}, "1.5"),
        ({"decay": -0.1}, "-0.1"),
    ],
)
def test_what_makes_no_schedule_is_refused_by_name_and_value(changes: dict, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        Schedule(**changes)
