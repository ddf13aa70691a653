"""A cache of the test's own: what the base says of answers is kept on disk."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MACLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "reference"
