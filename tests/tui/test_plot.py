"""Curves for a terminal: every peak stays visible, however many points; NaN leaves a gap; no size breaks it."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult

from macllm.plotting.braille import BEST, Canvas, Curve, Scale, label, log_ticks, ticks
from macllm.plotting.series import BUCKETS, Series
from macllm_tui.widgets.plot import Plot

FINITE = st.floats(-1e6, 1e6)


def series(values: Sequence[float], name: str = "loss") -> Series:
    made = Series(name)
    for x, y in enumerate(values):
        made.append(x, y)
    return made


class Host(App[None]):
    def __init__(self, *curves: Curve) -> None:
        super().__init__()
        self._curves = curves

    def compose(self) -> ComposeResult:
        yield Plot(self._curves, empty="Nothing yet.")

    @property
    def plot(self) -> Plot:
        return self.query_one(Plot)


async def drawn(*curves: Curve, size: tuple[int, int] = (80, 24), logarithmic: bool = False) -> list[str]:
    app = Host(*curves)
    async with app.run_test(size=size) as pilot:
        app.plot.styles.height = size[1]
        app.plot.logarithmic = logarithmic
        await pilot.pause()
        return app.plot.text.splitlines()


@given(st.lists(FINITE, min_size=1, max_size=200))
def test_a_series_knows_its_range(values: list[float]) -> None:
    made = series(values)
    assert made.y_range == (min(values), max(values)) and made.x_range == (0, len(values) - 1)
    assert made.length == len(values) and made.last == values[-1]


def test_memory_is_bounded_and_no_peak_is_lost() -> None:
    made = Series("loss")
    for x in range(100_000):
        made.append(x, 50.0 if x == 33_333 else -50.0 if x == 77_777 else math.sin(x))
    buckets = list(made)
    assert len(buckets) <= BUCKETS and made.y_range == (-50.0, 50.0) and made.length == 100_000
    peak = max(buckets, key=lambda bucket: bucket.high)
    assert peak.x_first <= 33_333 <= peak.x_last
    assert all(one.x_last < two.x_first for one, two in pairwise(buckets))


def test_many_gaps_do_not_grow_without_bound() -> None:
    made = series([math.nan if x % 2 else float(x) for x in range(20_000)])
    assert sum(1 for _ in made) <= BUCKETS and made.lost == 10_000 and made.y_range == (0.0, 19_998.0)


def test_a_resumed_run_forgets_what_lies_beyond() -> None:
    made = series([float(x) for x in range(10)])
    made.cut(4)
    assert made.x_range == (0, 4) and made.length == 5 and made.last == 4.0
    made.append(5, 1.0)
    assert made.x_range == (0, 5)
    made.cut(-1)
    assert made.x_range is None and made.y_range is None and made.last is None


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9), st.integers(2, 12))
def test_ticks_are_round_few_and_inside(low: float, width: float, most: int) -> None:
    high = low + width
    found = ticks(low, high, most)
    assert 1 <= len(found) <= most
    slack = max(abs(low), abs(high)) * 1e-9
    assert all(low - slack <= value <= high + slack for value in found)


def test_ticks_are_those_a_person_would_choose() -> None:
    assert ticks(0, 60, 7) == [0, 10, 20, 30, 40, 50, 60] and ticks(0, 60, 6) == [0, 20, 40, 60]
    assert ticks(1.13, 3.4, 5) == pytest.approx([1.5, 2.0, 2.5, 3.0])
    assert log_ticks(0.01, 100, 5) == [0.01, 0.1, 1, 10, 100]
    assert [label(value) for value in (0.5, 12_000, 2_500_000, 1234)] == ["0.5", "12k", "2.5M", "1234"]


@given(st.lists(FINITE, min_size=2, max_size=2, unique=True), st.integers(2, 200), FINITE)
def test_a_scale_stays_on_the_canvas_and_keeps_order(ends: list[float], dots: int, value: float) -> None:
    scale = Scale(min(ends), max(ends), dots)
    assert 0 <= scale(value) < dots and scale(min(ends)) == 0 and scale(max(ends)) == dots - 1
    assert scale(value) <= scale(value + 1)


def test_a_canvas_sets_the_dot_it_is_told() -> None:
    canvas = Canvas(1, 1)
    canvas.dot(0, 0, 2)  # bottom left
    canvas.dot(1, 3, 2)  # top right
    assert list(canvas.cells(0)) == [(chr(0x2800 + 0x40 + 0x08), 2)]


async def test_the_curve_falls_from_left_to_right() -> None:
    lines = await drawn(Curve(series([float(100 - x) for x in range(100)])))
    body = [line.split("│")[-1].split("┤")[-1] for line in lines[1:-2]]
    first = [len(row) - len(row.lstrip()) for row in body if row.strip()]
    assert len(body) == len(first) and first == sorted(first)


async def test_series_are_told_apart_without_colour_and_the_best_is_marked() -> None:
    loss, valid = series([3.0, 2.0, 1.0, 1.5]), series([3.0, 2.5, 1.2, 1.9], "validation")
    lines = await drawn(Curve(loss), Curve(valid, "◆", best=True))
    assert "⠤⠒⠤ loss 1.5" in lines[0] and "◆ validation 1.9" in lines[0] and f"{BEST} best 1.2" in lines[0]
    body = "\n".join(lines[1:])
    assert body.count("◆") == 3 and body.count(BEST) == 1
    assert any(0x2800 < ord(character) < 0x2900 for character in body)


async def test_axes_have_ticks_and_names() -> None:
    lines = await drawn(Curve(series([float(x) for x in range(101)])))
    assert lines[-1].split() == ["0", "20", "40", "60", "80", "100"] or lines[-1].split()[-1] == "step"
    assert lines[-2].count("┴") >= 5
    left = [line.split("┤")[0].strip() for line in lines if "┤" in line]
    assert left[0] == "100" and left[-1] == "0"


async def test_what_is_not_a_number_leaves_a_gap_and_is_told() -> None:
    values = [1.0] * 40 + [math.nan, math.inf] + [1.0] * 40
    lines = await drawn(Curve(series(values)))
    assert "loss 1 (2 not a number)" in lines[0]
    row = next(line for line in lines[1:-2] if any(0x2800 < ord(c) < 0x2900 for c in line))
    drawn_part = row.split("│")[-1].split("┤")[-1].strip()
    assert " " in drawn_part  # the gap


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [0.0, 0.0], [-1.0, -5.0], [1e-12, 1e12], [math.nan]])
@pytest.mark.parametrize("logarithmic", [False, True])
async def test_no_values_break_it(values: list[float], logarithmic: bool) -> None:
    lines = await drawn(Curve(series(values)), logarithmic=logarithmic)
    assert "loss" in lines[0]


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (20, 5), (21, 6), (60, 20), (200, 50)])
async def test_no_size_breaks_it(size: tuple[int, int]) -> None:
    lines = await drawn(Curve(series([3.0, 1.0, 2.0])), size=size)
    assert all(len(line) <= size[0] for line in lines)


async def test_without_points_it_says_so() -> None:
    assert (await drawn(Curve(Series("loss"))))[1] == "Nothing yet."


async def test_it_follows_its_size_and_its_points() -> None:
    grown = series([1.0, 2.0])
    app = Host(Curve(grown))
    async with app.run_test(size=(60, 20)) as pilot:
        before = app.plot.text
        await pilot.resize_terminal(100, 30)
        await pilot.pause()
        assert len(app.plot.text.splitlines()[-2]) > len(before.splitlines()[-2])
        wide = app.plot.text
        grown.append(2, 9.0)
        app.plot.draw()
        assert app.plot.text != wide and "loss 9" in app.plot.text


async def test_a_logarithmic_scale_gives_small_values_room() -> None:
    values = [10.0 ** (-x / 20) for x in range(100)]
    plain, log = await drawn(Curve(series(values))), await drawn(Curve(series(values)), logarithmic=True)

    def lowest(lines: list[str]) -> int:
        return sum(bool(line.split("│")[-1].split("┤")[-1].strip()) for line in lines[1:-2])

    labels = {line.split("┤")[0].strip() for line in log if "┤" in line}
    assert {"0.01", "0.1", "1"} <= labels and lowest(plain) > 0


async def test_a_hundred_thousand_points_are_drawn_from_few_buckets() -> None:
    """What a draw costs follows the buckets, not the points: it counts them instead of a clock."""
    many = series([math.sin(x / 500) for x in range(100_000)])
    assert sum(1 for _ in many) <= BUCKETS
    lines = await drawn(Curve(many))
    assert "80k" in lines[-1]
