"""The picture of a run: well-formed, both curves, the best point, gaps where a loss was no number."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from macllm.errors import MacllmError
from macllm.tune.curve import read_losses, write_curve

SVG = "{http://www.w3.org/2000/svg}"


def row(step: int, loss: float | None, val_loss: float | None = None) -> dict[str, Any]:
    return {"step": step, "loss": loss, "val_loss": val_loss}


def metrics(folder: Path, *rows: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return folder


def drawn(folder: Path, **more: str) -> ElementTree.Element:
    return ElementTree.parse(write_curve(folder, **more)).getroot()


def texts(root: ElementTree.Element) -> str:
    return " | ".join(each.text or "" for each in root.iter(f"{SVG}text"))


def points(root: ElementTree.Element, kind: str) -> list[list[tuple[int, int]]]:
    lines = [each for each in root.iter(f"{SVG}polyline") if each.get("class") == kind]
    return [
        [tuple(map(int, point.split(","))) for point in (line.get("points") or "").split()] for line in lines
    ]


def test_both_curves_and_the_best_point(tmp_path: Path) -> None:
    looks = {0: 3.5, 2: 1.25, 4: 2.0}
    rows = [row(0, None, 3.5), *(row(step, 4.0 - 0.5 * step, looks.get(step)) for step in range(1, 5))]
    root = drawn(metrics(tmp_path / "a & b", *rows))
    (loss,), (valid,) = points(root, "loss"), points(root, "valid")
    assert len(set(loss)) == 4 and [x for x, _ in loss] == sorted(x for x, _ in loss)
    assert [y for _, y in loss] == sorted(y for _, y in loss)  # a loss that falls goes down the page
    lowest = max(valid, key=lambda point: point[1])
    stars = [each for each in root.iter(f"{SVG}text") if each.text == "★"]
    assert [int(star.get("x") or 0) for star in stars] == [lowest[0]]
    assert "a & b" in texts(root) and "★ best 1.25 at step 2" in texts(root) and "validation 2" in texts(root)
    assert "loss 2" in texts(root) and "step" in texts(root)
    under = {each.text for each in root.iter(f"{SVG}text") if each.get("y") == "368"}
    assert under == {"0", "1", "2", "3", "4"}  # whole steps


def test_a_long_noisy_curve_has_a_mean_and_few_points(tmp_path: Path) -> None:
    rows = [row(step, 2.0 + (step % 2)) for step in range(1, 6001)]
    folder = metrics(tmp_path, *rows)
    losses = read_losses(folder)
    assert losses.window == 150 and losses.mean.last == pytest.approx(2.5)
    root = drawn(folder)
    assert len(points(root, "loss")) == 2 and "mean of 150 steps 2.5" in texts(root)
    assert (folder / "loss.svg").stat().st_size < 120_000


def test_what_is_no_number_leaves_a_gap(tmp_path: Path) -> None:
    rows = [row(step, float("nan") if step == 3 else 1.0 * step) for step in range(1, 6)]
    root = drawn(metrics(tmp_path, *rows))
    assert len(points(root, "loss")) == 2 and "1 not a number" in texts(root)


def test_little_or_nothing_is_drawn_too(tmp_path: Path) -> None:
    assert "no step yet" in texts(drawn(metrics(tmp_path)))
    folder = metrics(tmp_path, row(1, 2.0))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')  # the run was killed while it wrote
    assert len(points(drawn(folder), "loss")) == 1


def test_it_can_be_read_on_light_and_dark(tmp_path: Path) -> None:
    text = write_curve(metrics(tmp_path, row(1, 2.0)), title="mine").read_text()
    assert "prefers-color-scheme: dark" in text and 'class="paper"' in text and ">mine<" in text


def test_a_picture_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    folder = metrics(tmp_path, row(1, 2.0))
    (folder / ".partial-loss.svg").mkdir()
    with pytest.raises(MacllmError, match=r"loss\.svg: it cannot be written"):
        write_curve(folder)
