"""The table of chips: found by the names that Metal gives, and true to itself."""

import pytest

from macllm.kernels.chips import CHIPS, find


@pytest.mark.parametrize(
    ("device", "cores", "bandwidth"),
    [
        ("Apple M1", None, 68.3),
        ("Apple M2 Ultra", None, 800),
        ("Apple M3 Max", 30, 300),
        ("Apple M3 Max", 40, 400),
        ("Apple M4 Pro", 16, 273),
        ("Apple M4 Max", 32, 410),
        ("Apple M4 Max", None, 546),  # not known which: what follows is a bound
        ("Apple M5 Max", 99, 614),
    ],
)
def test_a_chip_is_found_by_its_name_and_cores(device: str, cores: int | None, bandwidth: float) -> None:
    chip = find(device, cores)
    assert chip is not None
    assert chip.bandwidth_gb_s == bandwidth
    assert device == f"Apple {chip.name}"


@pytest.mark.parametrize("device", ["", "x86_64", "NVIDIA H100", "Apple M99", "Apple A17 Pro", "AMD M2000"])
def test_other_machines_are_not_mistaken_for_one(device: str) -> None:
    assert find(device) is None


def test_fewer_cores_compute_less() -> None:
    whole, part = find("Apple M1 Max", 32), find("Apple M1 Max", 24)
    assert whole is not None
    assert part is not None
    assert (whole.tflops, part.tflops) == (10.4, pytest.approx(7.8))
    assert part.gpu_cores == 24


def test_every_chip_has_a_source_and_more_is_faster() -> None:
    assert len({(chip.name, chip.gpu_cores) for chip in CHIPS}) == len(CHIPS)
    assert all(chip.source for chip in CHIPS)
    for generation in "12345":
        family = [chip for chip in CHIPS if chip.name[1] == generation]
        assert [chip.name.partition(" ")[0] for chip in family] == [f"M{generation}"] * len(family)
        assert sorted(family, key=lambda chip: chip.bandwidth_gb_s) == family
        assert sorted(family, key=lambda chip: chip.gpu_cores) == family
