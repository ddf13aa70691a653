"""Fixtures of everything that speaks with a hub: nothing of the user's, and a local hub for the real client."""

import random

import pytest
from hub_server import Hub


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Nothing of the user's: own models, own hub cache, no token, no package index settings."""
    from huggingface_hub import constants

    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MACLLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return tmp_path / "home"


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants

    server = Hub()
    server.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield server
    server.stop()


@pytest.fixture
def model_files():
    """A small model: one LFS weight file, its companions, and what must not be fetched."""
    noise = random.Random(7)
    return {
        "config.json": b'{"model_type": "llama", "quantization": {"group_size": 64, "bits": 4}}',
        "tokenizer.json": noise.randbytes(5_000),
        "model.safetensors": noise.randbytes(400_000),
        "README.md": b"read me",
        "modeling.py": b"import os",
        "pytorch_model.bin": noise.randbytes(3_000),
    }
