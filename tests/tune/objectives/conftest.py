"""A cache of the test's own: what the base says of answers is kept on disk."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # what its tests share


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MACLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "reference"
