"""The search: what macllm can load, told in full, and a sentence where the hub does not answer."""

import socket

import pytest

from macllm.errors import DownloadError, SourceError
from macllm.hub.search import Hit, Variant, search, variants
from macllm.hub.source import HubSource, parse

MLX = ["mlx", "safetensors", "text-generation", "license:apache-2.0"]
DAY = "2026-03-01T12:00:00.000Z"


def parameters(**counts):
    return {"parameters": counts, "total": sum(counts.values())}


@pytest.fixture
def filled(hub):
    """One model in three formats, and what a search must not show."""
    hub.add(
        "org/Tiny-4bit",
        {"config.json": b"{}", "model.safetensors": b"w" * 5_000},
        tags=MLX,
        downloads=50,
        lastModified=DAY,
        safetensors=parameters(U32=1_000, BF16=300),
    )
    hub.add(
        "org/Tiny-8bit",
        {"config.json": b"{}", "model.safetensors": b"w" * 9_000},
        tags=MLX,
        downloads=20,
        safetensors=parameters(U32=2_000, BF16=300),
    )
    hub.add(
        "org/Tiny",
        {"config.json": b"{}", "model.safetensors": b"w" * 16_000},
        tags=["safetensors", "text-generation", "license:mit"],
        downloads=90,
        safetensors=parameters(BF16=8_000),
    )
    hub.add(
        "org/Tiny-GGUF",
        {
            "Tiny-Q8_0.gguf": b"8" * 9_000,
            "Tiny-Q4_K_M.gguf": b"4" * 5_000,
            "mmproj-Tiny.gguf": b"v" * 3_000,
            "Tiny-BF16-00001-of-00002.gguf": b"a" * 8_000,
            "Tiny-BF16-00002-of-00002.gguf": b"b" * 8_000,
            "Tiny-F16-00001-of-00002.gguf": b"its other part is not there",
        },
        tags=["gguf"],
        downloads=70,
        gguf={"total": 8_000, "architecture": "llama", "context_length": 4096},
    )
    hub.add("org/Tiny-classifier", {}, tags=["safetensors", "text-classification"], downloads=1_000)
    hub.add("org/other", {}, tags=MLX, downloads=5)
    hub.repos["org/Tiny"].gated = True
    return hub


def test_every_format_is_found_and_nothing_else(filled):
    found = search("tiny")
    assert [hit.repo for hit in found] == ["org/Tiny", "org/Tiny-GGUF", "org/Tiny-4bit", "org/Tiny-8bit"]
    assert {hit.format for hit in found} == {"mlx", "gguf", "safetensors"}


def test_a_hit_tells_what_is_known(filled):
    hits = {hit.repo: hit for hit in search("tiny")}
    assert hits["org/Tiny-4bit"] == Hit(
        repo="org/Tiny-4bit",
        format="mlx",
        downloads=50,
        updated="2026-03-01",
        licence="apache-2.0",
        gated=False,
        size_bytes=1_000 * 4 + 300 * 2,
        parameters=None,
        context=None,
        quantization="4bit",
    )
    assert hits["org/Tiny"].gated and hits["org/Tiny"].parameters == 8_000
    assert hits["org/Tiny-GGUF"].context == 4096 and hits["org/Tiny-GGUF"].size_bytes is None


def test_the_limit_and_an_empty_text(filled):
    assert [hit.repo for hit in search("", limit=1)] == ["org/Tiny", "org/Tiny-GGUF", "org/Tiny-4bit"]
    assert search("no such model") == ()


def test_ggufs_are_offered_by_quantization_with_the_bytes_of_all_parts(filled):
    found = variants(HubSource("org/Tiny-GGUF"))
    assert [(variant.label, variant.size_bytes) for variant in found] == [
        ("Q4_K_M", 5_000),
        ("Q8_0", 9_000),
        ("BF16", 16_000),
    ]
    for variant in found:
        assert parse(str(variant.source), ()) == variant.source, "what is offered can be pulled"


def test_a_folder_is_offered_with_its_owners_other_quantizations(filled):
    assert variants(HubSource("org/Tiny-4bit", "main")) == (
        Variant("4bit", HubSource("org/Tiny-4bit", "main"), 5_002),
        Variant("8bit", HubSource("org/Tiny-8bit"), 2_000 * 4 + 300 * 2),
        Variant("as published", HubSource("org/Tiny"), 16_000),
    )


def test_a_size_of_a_type_nobody_knows_is_not_guessed(hub):
    hub.add("org/odd", {}, tags=MLX, safetensors=parameters(F8_E4M3=8, BF16=1))
    assert search("odd")[0].size_bytes == 10
    hub.add("org/odd", {}, safetensors=parameters(QUANTUM=8, BF16=1))
    assert search("odd")[0].size_bytes is None


def test_no_connection_is_a_sentence(monkeypatch):
    from huggingface_hub import constants

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(
        DownloadError, match=r"cannot be reached \(.+\); check the connection, or use an inst"
    ):
        search("tiny")
    with pytest.raises(DownloadError, match="cannot be reached"):
        variants(HubSource("org/Tiny"))


def test_offline_mode_is_a_sentence(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"HF_HUB_OFFLINE forbids asking .*; unset it to search"):
        search("tiny")


def test_an_answer_of_another_shape_is_a_sentence(filled):
    filled.repos["org/Tiny"].about["safetensors"] = {"no": "parameters"}
    with pytest.raises(DownloadError, match="does not answer as a Hugging Face hub does"):
        search("tiny")


def test_a_repository_that_is_not_there_is_a_sentence(hub):
    with pytest.raises(SourceError, match="org/none does not exist"):
        variants(HubSource("org/none"))


def test_an_overloaded_hub_is_a_sentence(filled):
    filled.status["/api/models"] = [429] * 20
    with pytest.raises(DownloadError, match="limits the rate"):
        search("tiny")
