"""Quantities in words."""

import pytest

from macllm.units import count, duration, size


def test_sizes_count_as_disks_do() -> None:
    found = [size(bytes_) for bytes_ in (0, 999, 1000, 93_000_000, 99_949_999, 99_950_000, 4_400_000_000)]
    assert found == ["0 bytes", "999 bytes", "1.0 kB", "93.0 MB", "99.9 MB", "100 MB", "4.4 GB"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0 s"),
        (0, "0 s"),
        (41.6, "42 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (3900, "1 h 05 min"),
    ],
)
def test_a_duration_is_said_in_its_two_largest_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_parameters_are_counted_in_millions_and_billions() -> None:
    assert [count(number) for number in (1234, 134_515_008, 8_190_735_360)] == [
        "1,234",
        "134.5 million",
        "8.191 billion",
    ]
