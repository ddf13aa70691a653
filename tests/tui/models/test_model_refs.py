"""Names to models on this machine: without any network, and with the nearest names where there is none."""

import pytest
from model_host import CONFIG, install

from macllm.engine.protocol import ModelRef
from macllm.errors import InputError
from macllm.hub import catalogue, store
from macllm_tui.model_refs import resolve


@pytest.fixture
def starter(home):
    """The starter's record, as a download leaves it."""
    folder = store.folder_of("starter")
    folder.mkdir(parents=True)
    (folder / "w.gguf").write_bytes(b"GGUF")
    files = (store.StoredFile("w.gguf", 4),)
    source = str(catalogue.entries()["starter"].source)
    store.save(store.Installed("starter", source, folder / "w.gguf", files=files, owned=True))
    return folder / "w.gguf"


def test_a_name_a_source_and_a_path_are_found(hub):
    path = str(install(hub).path)
    for text in ("Tiny-4bit", "tiny-4BIT", " Tiny-4bit ", "org/Tiny-4bit"):
        assert resolve(text) == ModelRef("Tiny-4bit", path)
    requests = len(hub.requests)
    assert resolve(path).path == path
    assert len(hub.requests) == requests, "no network"


def test_the_catalogues_sampling_goes_with_its_model(starter):
    assert resolve("starter") == ModelRef(
        "starter", str(starter), sampling={"temperature": 0.2, "top_p": 0.9}
    )


def test_a_catalogue_name_means_the_model_whatever_it_is_called_here(starter):
    (starter.parent).rename(starter.parent.parent / "mine")
    assert resolve("starter").name == "mine"


def test_a_folder_that_was_never_pulled(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    assert resolve(str(folder)) == ModelRef("mine", str(folder))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no model; name a folder with a config.json"):
        resolve(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Tiny-4bt", r"no model 'Tiny-4bt' here \(did you mean tiny-4bit\?\); /model"),
        ("xyz", r"no model 'xyz' here \(installed: Tiny-4bit\)"),
        ("qwen3-8b", r"qwen3-8b is not on this machine yet; /model downloads it"),
        ("", "no model is named"),
    ],
)
def test_what_is_not_here_is_a_sentence(hub, name, message):
    install(hub)
    with pytest.raises(InputError, match=message):
        resolve(name)


def test_with_nothing_installed_it_says_so(home):
    with pytest.raises(InputError, match="there is no model 'x' here, and no other"):
        resolve("x")


def test_files_that_are_gone_are_said_to_be(hub):
    (install(hub).path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="the files of Tiny-4bit are gone"):
        resolve("Tiny-4bit")
