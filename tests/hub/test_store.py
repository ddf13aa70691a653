"""Installed models: records that survive, names that resolve, uses that are remembered."""

import errno
import json
import os
from pathlib import Path

import pytest

from macllm.errors import ConfigError, OptionError, SourceError
from macllm.hub import store
from macllm.hub.pull import find, pull
from macllm.hub.store import Installed, StoredFile


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "My Model (v1)"
    path.mkdir()
    (path / "config.json").write_text('{"quantization": {"mode": "mxfp4", "bits": 4, "group_size": 32}}')
    (path / "model.safetensors").write_bytes(b"w" * 50)
    return path


def test_nothing_is_installed_at_first():
    assert store.installed() == [] and store.resolve("x") is None and store.last_used() is None
    with pytest.raises(SourceError, match="'x' is not installed, and nothing else is"):
        store.remove("x")


def test_a_local_folder_is_used_where_it_is(folder):
    model = pull(str(folder))
    assert model.name == "My-Model-v1" and model.path == folder and not model.owned
    assert model.quantization == "mxfp4" and model.size_bytes > 50
    assert store.installed() == [model] and find(model.name).path == folder
    removed = store.remove(model.name)
    assert removed.kept == folder and (folder / "model.safetensors").exists() and store.installed() == []


def test_a_path_needs_no_record(folder):
    assert find(str(folder)).path == folder and find(str(folder)).name == "My Model (v1)"
    assert store.resolve(str(folder)).path == folder
    assert store.installed() == []


def test_what_is_no_model_is_not_registered(tmp_path, folder):
    (folder / "config.json").unlink()
    with pytest.raises(SourceError, match=r"has no config\.json"):
        pull(str(folder))
    text = tmp_path / "notes.txt"
    text.write_text("hi")
    with pytest.raises(SourceError, match=r"neither a model's folder nor a \.gguf"):
        pull(str(text))
    with pytest.raises(OptionError, match="only repositories have revisions"):
        pull(str(folder), revision="main")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("a-q4_k_m.gguf", "Q4_K_M"),
        ("a-IQ4_NL.gguf", "IQ4_NL"),
        ("a-bf16.gguf", "BF16"),
        ("a-Q8_0-00001-of-00002.gguf", "Q8_0"),
        ("a.gguf", ""),
    ],
)
def test_the_quantization_of_a_gguf(tmp_path, name, expected):
    assert Installed("a", "s", tmp_path / name).quantization == expected


def test_missing_files_are_noticed(folder):
    model = pull(str(folder))
    (folder / "model.safetensors").unlink()
    assert store.named(model.name).missing and store.resolve(model.name) is None


def test_a_damaged_record_is_named_and_can_be_removed(folder):
    good = pull(str(folder), name="good")
    pull(str(folder), name="bad")
    record = store.folder_of("bad") / store.RECORD
    record.write_text('{"format": 1, "sou')
    with pytest.raises(ConfigError, match=r"bad/macllm.json is damaged .* run `macllm rm bad`"):
        store.installed()
    with pytest.raises(ConfigError):
        store.resolve("bad")
    assert store.resolve("good") == good, "one bad record hides no other model"
    store.remove("bad")
    assert store.installed() == [good]


def test_a_record_of_a_later_version_is_not_guessed_at(folder):
    pull(str(folder), name="m")
    record = store.folder_of("m") / store.RECORD
    record.write_text(json.dumps({**json.loads(record.read_text()), "format": 2}))
    with pytest.raises(ConfigError, match="format 2 where 1 is known"):
        store.resolve("m")


def test_the_last_used_model_is_remembered_while_it_is_there(folder, tmp_path):
    pull(str(folder), name="a")
    pull(str(folder), name="b")
    store.mark_used("a")
    store.mark_used("b")
    assert store.last_used() == "b" and store.used_at("a") < store.used_at("b")
    store.remove("b")
    assert store.last_used() == "a" and store.used_at("b") is None
    store.mark_used(str(folder))
    assert store.last_used() == str(folder)
    (tmp_path / "home" / "models" / "last_used.json").write_text("[]")
    assert store.last_used() is None


def test_a_record_that_cannot_be_written_leaves_the_old_one(folder, home):
    before = pull(str(folder), name="m")
    with pytest.raises(TypeError):
        store.save(Installed("m", "s", folder, files=(StoredFile("f", object()),)))  # no JSON
    assert store.named("m") == before and not list(home.rglob("*.partial"))


def test_a_misspelt_name_names_the_nearest(folder):
    pull(str(folder), name="qwen")
    with pytest.raises(SourceError, match=r"no installed model is called 'qwem' \(did you mean qwen\?\)"):
        store.remove("qwem")


def test_a_full_disk_is_named_and_leaves_no_folder(folder, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*macllm\.json'"):
        pull(str(folder), name="mine")
    assert not store.folder_of("mine").exists()
    store.mark_used("mine")  # only a convenience
    assert store.last_used() is None
