"""These tests compile Metal text with clang: without it they skip themselves, which fails the run where CI is set."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from macllm.errors import InputError
from macllm.kernels.harness.compile import find_clang

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    try:
        find_clang()
    except InputError as error:
        skip = pytest.mark.skip(reason=f"needs clang: {error}")
        for item in items:
            if item.path.is_relative_to(HERE):
                item.add_marker(skip)
