"""These tests compile Metal text with clang: without it they skip themselves, which fails the run where CI is set."""

import sys
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
        what = "clang" if sys.platform == "linux" else "Linux"
        skip = pytest.mark.skip(reason=f"needs {what}: {error}")
        for item in items:
            if item.path.is_relative_to(HERE):
                item.add_marker(skip)
