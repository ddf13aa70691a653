"""Data sets by name: what the datasets library reads becomes files, and what it cannot find is told in a sentence."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Image
from templated import templated

from macllm.errors import InputError
from macllm.tune import hub_data
from macllm.tune.dataset import prepare
from macllm.tune.examples import ExampleSettings
from macllm.tune.hub_data import HubName, parse, written
from macllm.tune.rows import check, data_files

ROWS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": f"{n}?", "name": None},
            {"role": "assistant", "content": "ja", "name": None},
        ],
        "tools": None,
        "n": n,
    }
    for n in range(6)
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MACLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    return tmp_path / "cache" / "datasets"


def data_set(folder: Path, **splits: list[dict[str, Any]]) -> HubName:
    """One on this machine, which the library takes like one by name."""
    (folder / "data").mkdir(parents=True)
    for split, rows in splits.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data" / f"{split}-00000-of-00001.jsonl").write_text(text)
    return HubName(str(folder))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("org/name", HubName("org/name")),
        ("org/name:main", HubName("org/name", "main")),
        ("org/name:main:train[:10%]", HubName("org/name", "main", "train[:10%]")),
        ("org/name::train_sft", HubName("org/name", None, "train_sft")),
        ("name", None),
        ("./org/name", None),
        ("/org/name", None),
        ("org/name/more", None),
        ("org/name.jsonl", None),
        ("tests/nothing", None),  # of a folder that is there
    ],
)
def test_a_name_is_known_from_a_path(text: str, name: HubName | None) -> None:
    assert parse(text) == name
    if name is not None:
        assert str(name) == text


def test_splits_become_files_and_are_learned_from(tmp_path: Path, cache: Path) -> None:
    name = data_set(tmp_path / "set", train=ROWS[:3], validation=ROWS[3:5], test=ROWS[5:], other=ROWS)
    place = written(name)
    assert sorted(file.name for file in place.iterdir()) == ["test.jsonl", "train.jsonl", "valid.jsonl"]
    assert check(place).good and check(place).schema == "messages"
    # what a table has only for other rows is left out, what it has is not
    assert json.loads((place / "train.jsonl").read_text().splitlines()[1]) == {
        "messages": [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "ja"}],
        "n": 1,
    }
    data = prepare(place, templated("chatml"), ExampleSettings(64, "turns", "2026-01-31"))
    assert (len(data.train), len(data.valid), len(data.test)) == (3, 2, 1)
    (file,) = (place / "train.jsonl",)
    before = file.stat().st_mtime_ns
    assert written(name) == place and file.stat().st_mtime_ns == before  # not written again


def test_a_split_that_is_named_is_learned_alone(tmp_path: Path) -> None:
    name = data_set(tmp_path / "set", train_sft=ROWS[:4], test_sft=ROWS[4:])
    with pytest.raises(InputError, match=r"no split 'train' but .*name one, such as .*::t(est|rain)_sft"):
        written(name)
    place = written(HubName(name.path, None, "train_sft[:2]"))
    assert [file.name for file in place.iterdir()] == ["train.jsonl"]
    assert len((place / "train.jsonl").read_text().splitlines()) == 2
    with pytest.raises(InputError, match=r"cannot be read \(Unknown split"):
        written(HubName(name.path, None, "nope"))
    with pytest.raises(InputError, match=r"cannot be read \(BuilderConfig 'nope' not found"):
        written(HubName(name.path, "nope"))


def test_images_are_refused_by_column(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG")
    rows = Dataset.from_list([{"text": "a", "seen": str(picture)}]).cast_column("seen", Image(decode=False))
    rows = rows.map(lambda row: {"text": "a", "seen": {"path": None, "bytes": b"1"}})
    with pytest.raises(
        InputError, match=r"column 'seen' holds what is no text \(dict, row 0 of train.jsonl\)"
    ):
        hub_data._write(HubName("org/name"), {"train.jsonl": rows}, tmp_path / "cache" / "place")
    assert not list((tmp_path / "cache").iterdir())


def test_old_ones_go(tmp_path: Path, cache: Path) -> None:
    for number in range(hub_data.KEPT + 2):
        place = written(data_set(tmp_path / f"set{number}", train=ROWS[:2]))
    left = list(cache.iterdir())
    assert len(left) == hub_data.KEPT and place in left


def test_without_the_library_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError) as error:
        data_files(Path("nobody/nothing"))
    assert "nobody/nothing: there is no such file or folder" in str(error.value)
    assert "pip install 'macllm[datasets]'" in str(error.value)
    # without a name's shape nothing is looked up
    with pytest.raises(InputError, match=r"there is no such file or folder; name a .jsonl file"):
        data_files(Path("nothing.jsonl"))
