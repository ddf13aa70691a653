"""The catalogue: strict files, and models for every size of Mac."""

import pytest

from macllm.errors import MacllmError
from macllm.hub import catalogue
from macllm.hub.source import HubSource, PackageSource

GOOD = """
name = "m"
title = "M"
source = "org/m"
licence = "MIT"
parameters = 1_000
size_bytes = 600
context = 2048
min_memory_gb = 8
description = "d"
verified = "v"
"""
ENTRIES = catalogue.entries()


def load(folder, text=GOOD, name="m"):
    (folder / f"{name}.toml").write_text(text)
    return catalogue.load(folder)


def test_there_are_models_for_every_mac():
    assert len(ENTRIES) >= 15
    for memory in (8, 16, 24, 32, 64, 96, 128):
        fitting = [entry for entry in ENTRIES.values() if entry.min_memory_gb == memory]
        assert fitting, f"nothing that makes use of {memory} GB"


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_plausible(name):
    entry = ENTRIES[name]
    bits = entry.size_bytes * 8 / entry.parameters
    assert 4 <= bits <= 9, "4 to 8 bits a weight, with scales and a tokenizer"
    # macOS gives the GPU two thirds of a small Mac's memory and three quarters of a large one's
    share = 2 / 3 if entry.min_memory_gb <= 36 else 3 / 4
    assert entry.size_bytes <= share * entry.min_memory_gb * 2**30
    assert entry.active_parameters is None or entry.active_parameters < entry.parameters
    assert entry.description.endswith(".") and len(entry.description) <= 90
    assert isinstance(entry.source, HubSource | PackageSource) and entry.verified
    if isinstance(entry.source, HubSource):
        assert entry.source.revision, "a branch or a commit is named"
        assert not entry.sha256 or len(entry.source.revision) == 40, "hashes need a pinned commit"


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.draft])
def test_a_draft_is_a_much_smaller_relative(name):
    entry = ENTRIES[name]
    draft = ENTRIES[entry.draft]
    assert draft.size_bytes * 2 < entry.size_bytes
    assert draft.name[:5] == entry.name[:5], "the same family has the same tokenizer"


def test_the_smallest_come_first():
    sizes = [entry.size_bytes for entry in ENTRIES.values()]
    assert sizes == sorted(sizes)


def test_a_file_is_read(tmp_path):
    text = (
        GOOD + 'revision = "v1"\n[sampling]\ntemperature = 1\ntop_k = 0\n[sha256]\n"a" = "' + "0" * 64 + '"\n'
    )
    entry = load(tmp_path, text)["m"]
    assert entry.source == HubSource("org/m", "v1")
    assert entry.sampling == catalogue.SamplingDefaults(temperature=1.0, top_k=0)
    assert entry.sha256 == {"a": "0" * 64}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title", "titel"), r"m.toml: the key 'titel' is not known"),
        (('licence = "MIT"\n', ""), r"m.toml: the key 'licence' is missing"),
        (("context = 2048", 'context = "2048"'), r"context='2048' is not of type int"),
        (("context = 2048", "context = true"), r"context=True is not of type int"),
        (("context = 2048", "context = -1"), r"context=-1 must be more than 0"),
        (('"org/m"', '"./m"'), "there is nothing at m"),
        (('name = "m"', 'name = "n"'), r"name='n' differs from the file's name"),
        (('verified = "v"', 'verified = "v"\ndraft = "x"'), r"draft='x' is not in the catalogue"),
        (('verified = "v"', 'verified = "v"\n[sampling]\ntemp = 1'), r"the key 'sampling.temp' is not known"),
        (('verified = "v"', 'verified = "v"\n[sha256]\n"a" = "xyz"'), r"sha256.a='xyz' is not 64"),
        (('verified = "v"', "verified = "), "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path, change, message):
    with pytest.raises(MacllmError, match=message) as caught:
        load(tmp_path, GOOD.replace(*change))
    assert "\n" not in str(caught.value)
