"""The curve of a run as a picture: ``loss.svg`` from the rows of ``metrics.jsonl``, readable on light and on dark."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path

from macllm.errors import MacllmError
from macllm.plotting.braille import Scale, label, ticks
from macllm.plotting.series import Series
from macllm.tune.metrics_file import read

CURVE = "loss.svg"
_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 64, 52  # margins around the axes
_SMOOTH_FROM, _WINDOWS = 50, 40  # points from which a mean is drawn too, over a 40th of them
_X_TICKS, _Y_TICKS = 8, 6
_STYLE = """
  .paper { fill: #ffffff } .ink { fill: #1f2328 } .soft { fill: #57606a } .grid { stroke: #d8dee4 }
  .axis { stroke: #57606a } .loss { stroke: #1f6feb } .valid { stroke: #bc4c00; fill: #bc4c00 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } .ink { fill: #e6edf3 } .soft { fill: #9198a1 } .grid { stroke: #262c36 }
    .axis { stroke: #9198a1 } .loss { stroke: #58a6ff } .valid { stroke: #f0883e; fill: #f0883e }
  }
  text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 13px }
  .title { font-size: 16px; font-weight: 600 }
"""


@dataclass(frozen=True)
class Losses:
    """The loss of each step and of each look at the validation rows, in the order of the steps."""

    train: Series
    valid: Series
    mean: Series  # of the last steps; empty where the curve is smooth enough as it is
    window: int = 1  # steps of that mean

    @property
    def best(self) -> tuple[float, float] | None:
        """Step and loss of the lowest validation."""
        found = min(self.valid, key=lambda bucket: bucket.low, default=None)
        return (found.x_last, found.low) if found is not None else None


def write_curve(folder: Path, title: str = "") -> Path:
    """Writes ``loss.svg`` beside the metrics in ``folder``, whole or not at all. Raises MacllmError where it cannot.

    ``title`` is by default the folder's name.
    """
    target = folder / CURVE
    partial = folder / f".partial-{CURVE}"
    try:
        partial.write_text(svg(read_losses(folder), title or folder.name), encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise MacllmError(f"{target}: it cannot be written ({error.strerror}); make room for it") from None
    return target


def read_losses(folder: Path) -> Losses:
    """The losses that the run in ``folder`` has written so far; none where there are no metrics yet."""
    train, valid = Series("loss"), Series("validation")
    values: list[tuple[float, float]] = []
    for row in sorted(read(folder), key=lambda row: int(row["step"])):
        if isinstance(loss := row.get("loss"), int | float):
            train.append(row["step"], loss)
            values.append((row["step"], loss))
        if isinstance(loss := row.get("val_loss"), int | float):
            valid.append(row["step"], loss)
    window = len(values) // _WINDOWS if len(values) >= _SMOOTH_FROM else 1
    return Losses(train, valid, _mean(values, window), window)


def svg(losses: Losses, title: str) -> str:
    """The picture, 720 x 400."""
    best = losses.best
    told = f", best validation {best[1]:.4g} at step {best[0]:g}" if best is not None else ""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}"'
        f' viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}: loss by step{told}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}"/>',
        f'<text class="ink title" x="{_LEFT}" y="28">{escape(_short(title))}</text>',
        *_legend(losses),
        *(_plot(losses) if losses.train.length or losses.valid.length else _nothing()),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _mean(values: Sequence[tuple[float, float]], window: int) -> Series:
    """The mean of the last ``window`` finite values."""
    found = Series("mean")
    if window < 2:
        return found
    last: list[float] = []
    for step, value in values:
        if math.isfinite(value):
            last = [*last[1 - window :], value]
            found.append(step, math.fsum(last) / len(last))
    return found


def _short(title: str) -> str:
    return title if len(title) <= 72 else f"{title[:71]}…"


def _nothing() -> list[str]:
    return [f'<text class="soft" x="{_LEFT}" y="{_HEIGHT // 2}">There is no step yet.</text>']


def _legend(losses: Losses) -> list[str]:
    """Under the title: what is drawn how, and the last value of each."""
    parts, x, y = [], _LEFT, 50
    train, valid = losses.train, losses.valid
    mean = f", mean of {losses.window} steps" if losses.mean.length else ""
    entries = [("loss", f"loss{mean}{_last(losses.mean if mean else train)}")]
    if train.lost:
        entries[0] = ("loss", f"{entries[0][1]} ({train.lost} not a number)")
    if valid.length:
        entries.append(("valid", f"validation{_last(valid)}"))
    for kind, text in entries:
        parts.append(
            f'<line class="{kind}" x1="{x}" x2="{x + 22}" y1="{y - 4}" y2="{y - 4}" stroke-width="2.5"/>'
        )
        parts.append(f'<text class="soft" x="{x + 28}" y="{y}">{escape(text)}</text>')
        x += 52 + 7 * len(text)
    if losses.best is not None:
        step, loss = losses.best
        parts.append(f'<text class="soft" x="{x}" y="{y}">★ best {loss:.4g} at step {step:g}</text>')
    return parts


def _last(series: Series) -> str:
    return f" {series.last:.4g}" if series.last is not None else ""


def _plot(losses: Losses) -> list[str]:
    shown = [each for each in (losses.train, losses.valid) if each.length]
    x_low, x_high = _span([each.x_range for each in shown])
    y_low, y_high = _span([each.y_range for each in shown])
    pad = 0.05 * (y_high - y_low) or 0.5
    y_low, y_high = y_low - pad, y_high + pad
    x_scale = _Axis(Scale(x_low, x_high, _WIDTH - _LEFT - _RIGHT + 1), _LEFT)
    y_scale = _Axis(Scale(y_low, y_high, _HEIGHT - _TOP - _BOTTOM + 1), _HEIGHT - _BOTTOM, upward=True)
    parts = _axes(x_scale, y_scale)
    faint = ' stroke-opacity="0.35"' if losses.mean.length else ""
    parts += _lines(losses.train, x_scale, y_scale, f'class="loss" stroke-width="1.5"{faint}')
    parts += _lines(losses.mean, x_scale, y_scale, 'class="loss" stroke-width="2.5"')
    parts += _lines(losses.valid, x_scale, y_scale, 'class="valid" stroke-width="2"')
    for bucket in losses.valid:
        x, y = x_scale(bucket.x_last), y_scale(bucket.last)
        parts.append(f'<circle class="valid" cx="{x}" cy="{y}" r="3"/>')
    if losses.best is not None:
        x, y = x_scale(losses.best[0]), y_scale(losses.best[1])
        parts.append(f'<text class="valid" x="{x}" y="{y - 7}" text-anchor="middle" stroke="none">★</text>')
    return parts


class _Axis:
    """Places of values on the picture; ``upward`` where larger values stand higher."""

    def __init__(self, scale: Scale, start: int, *, upward: bool = False) -> None:
        self.scale, self._start, self._sign = scale, start, -1 if upward else 1

    def __call__(self, value: float) -> int:
        return self._start + self._sign * self.scale(value)


def _axes(x_scale: _Axis, y_scale: _Axis) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for value in ticks(y_scale.scale.low, y_scale.scale.high, _Y_TICKS):
        y = y_scale(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(
            f'<text class="soft" x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{label(value)}</text>'
        )
    for value in ticks(x_scale.scale.low, x_scale.scale.high, _X_TICKS):
        if value != round(value):
            continue  # there is no half a step
        x = x_scale(value)
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(
            f'<text class="soft" x="{x}" y="{bottom + 20}" text-anchor="middle">{label(value)}</text>'
        )
    middle = (_LEFT + right) // 2
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text class="soft" x="{middle}" y="{bottom + 40}" text-anchor="middle">step</text>')
    x, y = 16, (_TOP + bottom) // 2
    parts.append(
        f'<text class="soft" x="{x}" y="{y}" text-anchor="middle" transform="rotate(-90 {x} {y})">loss</text>'
    )
    return parts


def _lines(series: Series, x_scale: _Axis, y_scale: _Axis, look: str) -> list[str]:
    """One line for each stretch between gaps; within a bucket it goes through all that the bucket spans."""
    found = []
    for part in series.parts:
        points: list[str] = []
        for bucket in part:
            x = x_scale((bucket.x_first + bucket.x_last) / 2)
            for value in dict.fromkeys((bucket.first, bucket.low, bucket.high, bucket.last)):
                points.append(f"{x},{y_scale(value)}")
        if len(points) == 1:
            points *= 2
        found.append(
            f'<polyline {look} fill="none" stroke-linejoin="round" stroke-linecap="round"'
            f' style="fill:none" points="{" ".join(points)}"/>'
        )
    return found


def _span(ranges: Sequence[tuple[float, float] | None]) -> tuple[float, float]:
    known = [each for each in ranges if each is not None]
    return min(low for low, _ in known), max(high for _, high in known)
