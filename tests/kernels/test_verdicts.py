"""Verdicts are kept by machine and kernel text, found by what is nearest, and never trusted when damaged."""

import json
import math
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest

from macllm.kernels.registry import KERNELS
from macllm.kernels.verdicts import Machine, Verdict, Verdicts, here

KERNEL = KERNELS["nf4_matvec"]
MACHINE = Machine("Apple M3 Max", "macOS 15.1", "0.32.4", "0.1.0")


def verdict(rows: int, kernel_s: float, rival_s: float, shape: tuple[int, ...] = (64, 64)) -> Verdict:
    status = "faster" if rival_s / kernel_s >= 1.02 else "slower"
    return Verdict(
        KERNEL.name, "float16", status, error=1e-4, shape=shape, rows=rows, kernel_s=kernel_s, rival_s=rival_s
    )


def saved(*verdicts: Verdict) -> Path:
    known = Verdicts.load(MACHINE)
    known.record(KERNEL, verdicts)
    known.save()
    return next(file for file in (Path(known._file).parent).iterdir())


def test_what_is_saved_is_found_again(macllm_home: Path) -> None:
    broken = Verdict(KERNEL.name, "float32", "wrong", "is off by inf", error=math.inf)
    file = saved(verdict(1, 1e-3, 2e-3), broken)
    assert file == macllm_home / "kernels" / "apple-m3-max.json"
    assert [path.name for path in file.parent.iterdir()] == [file.name]  # nothing beside it
    again = Verdicts.load(MACHINE)
    assert again.all_of(KERNEL, mx.float16) == (verdict(1, 1e-3, 2e-3),)
    assert again.all_of(KERNEL, mx.float32) == (broken,)
    assert again.of(KERNEL, mx.bfloat16).status == "untried"


@pytest.mark.parametrize(
    "other",
    [
        replace(MACHINE, chip="Apple M1"),
        replace(MACHINE, system="macOS 26.0"),
        replace(MACHINE, mlx="0.33.0"),
        replace(MACHINE, macllm="0.2.0"),
    ],
)
def test_another_machine_knows_nothing_of_it(other: Machine) -> None:
    saved(verdict(1, 1e-3, 2e-3))
    assert Verdicts.load(other).of(KERNEL, mx.float16).status == "untried"
    assert Verdicts.load(MACHINE).of(KERNEL, mx.float16).status == "faster"


def test_another_text_of_the_kernel_is_untried() -> None:
    file = saved(verdict(1, 1e-3, 2e-3))
    content = json.loads(file.read_text())
    content["kernels"][KERNEL.name]["digest"] = "0" * 16
    file.write_text(json.dumps(content))
    known = Verdicts.load(MACHINE)
    assert known.of(KERNEL, mx.float16).status == "untried"
    known.record(KERNEL, [verdict(1, 2e-3, 1e-3)])
    assert [each.status for each in known] == ["slower"]  # what was said of the old text is gone


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "null",
        lambda text: text.replace("faster", "splendid"),
        lambda text: text.replace('"rows": 1', '"rows": "many"'),
        lambda text: text.replace('"rows": 1,', ""),
        lambda text: text.replace('"kernel_s"', '"kernel_ms"'),
        lambda text: text.replace('"verdicts": [', '"verdicts": [7, '),
        lambda text: "\x00" * len(text),
    ],
)
def test_a_damaged_file_is_as_good_as_none_and_is_rewritten(damage) -> None:
    file = saved(verdict(1, 1e-3, 2e-3))
    file.write_text(damage(file.read_text()))
    known = Verdicts.load(MACHINE)
    assert list(known) == []
    known.record(KERNEL, [verdict(1, 2e-3, 1e-3)])
    known.save()
    assert Verdicts.load(MACHINE).of(KERNEL, mx.float16).status == "slower"


def test_a_call_goes_by_the_nearest_number_of_rows() -> None:
    known = Verdicts.load(MACHINE)
    known.record(KERNEL, [verdict(1, 2e-3, 1e-3), verdict(8, 1e-3, 3e-3)])
    assert known.of(KERNEL, mx.float16, rows=1).status == "slower"
    assert known.of(KERNEL, mx.float16, rows=2).status == "slower"
    assert known.of(KERNEL, mx.float16, rows=7).ratio == pytest.approx(3)


def test_shapes_count_by_the_time_that_they_take() -> None:
    known = Verdicts.load(MACHINE)
    small, large = verdict(1, 1e-4, 4e-4, (64, 64)), verdict(1, 4e-3, 2e-3, (4096, 4096))
    known.record(KERNEL, [small, large])
    whole = known.of(KERNEL, mx.float16)
    assert whole.status == "slower"
    assert whole.kernel_s == pytest.approx(4.1e-3)
    assert known.of(KERNEL, mx.float16, shape=(128, 64)) == small
    assert known.of(KERNEL, mx.float16, shape=(4096, 14336)) == large


def test_one_wrong_shape_condemns_the_type_and_no_other() -> None:
    known = Verdicts.load(MACHINE)
    bad = Verdict(KERNEL.name, "float32", "wrong", "is off")
    known.record(KERNEL, [verdict(1, 1e-3, 2e-3), bad])
    assert known.of(KERNEL, mx.float32, rows=8, shape=(1, 1)) == bad
    assert known.of(KERNEL, mx.float16).status == "faster"


def test_a_new_trial_replaces_the_verdicts_of_its_types_only() -> None:
    known = Verdicts.load(MACHINE)
    wide = replace(verdict(1, 1e-3, 2e-3), dtype="float32")
    known.record(KERNEL, [verdict(1, 1e-3, 2e-3), wide])
    known.record(KERNEL, [verdict(1, 2e-3, 1e-3)])
    assert known.of(KERNEL, mx.float16).status == "slower"
    assert known.of(KERNEL, mx.float32).status == "faster"


def test_this_machine_is_named_by_chip_system_and_versions() -> None:
    machine = here()
    assert machine.chip
    assert machine.mlx[0].isdigit()
    assert len(machine.system.split()) >= 2
