"""Data sets: every bad row is named at once, what was made is kept on disk, and nothing of it can go stale."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from templated import templated

from macllm.errors import Cancelled, InputError, OptionError
from macllm.tune import dataset, example_cache
from macllm.tune.dataset import DataSet, prepare, statistics
from macllm.tune.examples import Example, ExampleSettings

SETTINGS = ExampleSettings(64, "turns", "2026-01-31")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MACLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "examples"


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write(path: Path, *rows: Any) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


ROWS = [chat(f"{number}+1", f"{number + 1}") for number in range(40)]


def content(data: DataSet) -> list[list[Any]]:
    def plain(example: Example) -> tuple[Any, ...]:
        return example.ids.tolist(), example.learned.tolist(), example.place, example.truncated, example.label

    return [[plain(example) for example in part] for part in (data.train, data.valid, data.test)]


def test_a_file_is_split_into_rows_to_learn_and_to_validate_with(tmp_path: Path) -> None:
    path = write(tmp_path / "valid.jsonl", *ROWS)  # whatever it is called
    data = prepare(path, templated("chatml"), SETTINGS, seed=1)
    assert (len(data.train), len(data.valid), data.test, data.set_aside, data.good) == (38, 2, (), True, True)
    places = {example.place for example in (*data.train, *data.valid)}
    assert places == {f"valid.jsonl:{number}" for number in range(1, 41)}
    assert content(data) == content(prepare(path, templated("chatml"), SETTINGS, seed=1))
    other = prepare(path, templated("chatml"), SETTINGS, seed=2)
    assert content(data)[1] != content(other)[1]


def test_a_folder_keeps_its_own_split(tmp_path: Path) -> None:
    for name, rows in (("train", ROWS[:3]), ("valid", ROWS[3:4]), ("test", ROWS[4:6])):
        write(tmp_path / f"{name}.jsonl", *rows)
    data = prepare(tmp_path, templated("chatml"), SETTINGS)
    assert (len(data.train), len(data.valid), len(data.test), data.set_aside) == (3, 1, 2, False)
    assert data.test[1].place == "test.jsonl:2"


def test_the_only_row_cannot_validate_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 row without two different ones"):
        prepare(write(tmp_path / "a.jsonl", ROWS[0]), templated("chatml"), SETTINGS)


def test_every_bad_row_is_named_in_one_run(tmp_path: Path) -> None:
    write(
        tmp_path / "train.jsonl",
        ROWS[0],
        '{"text": ',
        "",
        chat("word " * 200, "too late"),
        {"text": "another kind"},
        {"messages": [{"role": "user", "content": "no answer"}]},
        {"messages": [*ROWS[0]["messages"], {"role": "assistant", "content": "twice"}]},
    )
    write(tmp_path / "valid.jsonl", "")
    data = prepare(tmp_path, templated("gemma"), SETTINGS)
    assert not data.good and not data.train
    found = [str(problem) for problem in data.problems]
    assert [line.rsplit(": ", 1)[0].split(": ")[0] for line in found] == [
        "train.jsonl:2",
        "train.jsonl:4",
        "train.jsonl:5",
        "train.jsonl:6",
        "train.jsonl:7",
        "valid.jsonl:1",
    ]
    words = [
        "not valid JSON",
        "raise max_seq_length",
        "'text' where",
        "nothing to learn",
        "alternate",
        "no row",
    ]
    assert all(word in line for word, line in zip(words, found, strict=True)), found


def test_statistics_are_those_of_the_tokens(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *ROWS, chat("long", "word " * 100))
    data = prepare(path, templated("chatml"), SETTINGS)
    figures = statistics([*data.train, *data.valid])
    everything = [*data.train, *data.valid]
    assert figures.rows == 41 and figures.truncated == 1
    assert (figures.longest, figures.longest_at) == (64, "a.jsonl:41")
    assert figures.tokens == sum(map(len, everything))
    assert figures.supervised == sum(int(each.learned.sum()) for each in everything)
    assert 0 < figures.supervised_share == figures.supervised / figures.tokens < 1
    assert statistics([]).supervised_share == 0


def test_preferences_come_in_pairs(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}+1?", "chosen": f"{n + 1}", "rejected": "no"} for n in range(10)]
    data = prepare(write(tmp_path / "a.jsonl", *rows), templated("chatml"), SETTINGS)
    assert data.pairs and (len(data.train), len(data.valid)) == (18, 2)
    for one, other in zip(data.train[::2], data.train[1::2], strict=True):
        assert one.place == other.place and one.prompt == other.prompt
        assert (one.label, other.label) == (True, False)


def test_labels_are_the_rows_and_are_kept(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}+1?", "completion": f"{n}", "label": n % 3 == 0} for n in range(10)]
    path = write(tmp_path / "a.jsonl", *rows)
    first, again = (prepare(path, templated("chatml"), SETTINGS) for _ in range(2))
    assert first.schema == again.schema == "labelled" and content(first) == content(again)
    by_line = {int(each.place.split(":")[1]): each.label for each in (*again.train, *again.valid)}
    assert by_line == {n + 1: n % 3 == 0 for n in range(10)}
    plain = prepare(write(tmp_path / "b.jsonl", *ROWS), templated("chatml"), SETTINGS)
    assert plain.schema == "messages" and {each.label for each in plain.train} == {None}


class Counting:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        made = dataset.examples_of

        def counted(*arguments: Any) -> Any:
            self.count += 1
            return made(*arguments)

        monkeypatch.setattr(dataset, "examples_of", counted)


def test_rows_are_tokenized_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(monkeypatch)
    path = write(tmp_path / "a.jsonl", *ROWS)
    first = prepare(path, templated("chatml"), SETTINGS)
    assert counting.count == 40 and len(list(cache.iterdir())) == 1
    second = prepare(path, templated("chatml"), SETTINGS)
    assert counting.count == 40 and content(second) == content(first) and second.key == first.key
    # another order of the pass is no other content
    prepare(path, templated("chatml"), SETTINGS, seed=5)
    # nor is the date, where the template does not write it
    prepare(path, templated("chatml"), ExampleSettings(64, "turns", "2026-02-01"))
    assert counting.count == 40


def test_whatever_changes_examples_makes_them_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(monkeypatch)
    path = write(tmp_path / "a.jsonl", *ROWS)
    keys = {
        prepare(path, templated("chatml"), SETTINGS).key,
        prepare(path, templated("chatml"), ExampleSettings(63, "turns", "2026-01-31")).key,
        prepare(path, templated("chatml"), ExampleSettings(64, "all", "2026-01-31")).key,
        prepare(path, templated("qwen3"), SETTINGS).key,
        prepare(path, templated("llama3"), SETTINGS).key,
        prepare(path, templated("llama3"), ExampleSettings(64, "turns", "2026-02-01")).key,
    }
    write(path, *ROWS[:-1], ROWS[0])
    keys.add(prepare(path, templated("chatml"), SETTINGS).key)
    monkeypatch.setattr(example_cache, "FORMAT", example_cache.FORMAT + 1)
    keys.add(prepare(path, templated("chatml"), SETTINGS).key)
    assert len(keys) == 8 and counting.count == 40 * 8


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "other"])
def test_a_damaged_file_is_made_anew(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    path = write(tmp_path / "a.jsonl", *ROWS)
    first = prepare(path, templated("chatml"), SETTINGS)
    (file,) = cache.iterdir()
    data = file.read_bytes()
    middle = data.index(b"0.ids.npy") + 200
    damaged = {
        "cut": data[: len(data) // 2],
        "bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "empty": b"",
        "other": b"PK\x03\x04" + data,
    }[damage]
    file.write_bytes(damaged)
    counting = Counting(monkeypatch)
    assert content(prepare(path, templated("chatml"), SETTINGS)) == content(first)
    if damage != "other":  # a zip file may have something before it
        assert counting.count == 40
    assert prepare(path, templated("chatml"), SETTINGS).good
    assert [each.suffix for each in cache.iterdir()] == [".npz"]


def test_bad_data_is_not_kept_and_old_files_go(tmp_path: Path, cache: Path) -> None:
    assert not prepare(write(tmp_path / "bad.jsonl", *ROWS, "{"), templated("chatml"), SETTINGS).good
    assert not cache.exists()
    for number in range(example_cache.KEPT + 3):
        prepare(write(tmp_path / "a.jsonl", *ROWS[: number + 2]), templated("chatml"), SETTINGS)
    assert len(list(cache.iterdir())) == example_cache.KEPT


def test_a_disk_that_takes_nothing_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MACLLM_CACHE", str(tmp_path / "file"))
    data = prepare(write(tmp_path / "a.jsonl", *ROWS), templated("chatml"), SETTINGS)
    assert data.good and len(data.train) == 38


def test_it_tells_how_far_it_is_and_stops_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *ROWS)
    told: list[tuple[int, int]] = []
    prepare(path, templated("chatml"), SETTINGS, progress=lambda done, total: told.append((done, total)))
    size = path.stat().st_size
    assert told[0] == (0, size) and told[-1] == (size, size)
    with pytest.raises(Cancelled):
        prepare(path, templated("qwen3"), SETTINGS, cancelled=lambda: True)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(OptionError, match="max_seq_length=1 "):
        ExampleSettings(1, "turns", "2026-01-31")
    with pytest.raises(OptionError, match="learn='some'"):
        ExampleSettings(64, "some", "2026-01-31")  # type: ignore[arg-type]


def test_examples_are_plain_arrays(tmp_path: Path) -> None:
    data = prepare(write(tmp_path / "a.jsonl", *ROWS), templated("chatml"), SETTINGS)
    again = prepare(tmp_path / "a.jsonl", templated("chatml"), SETTINGS)
    for example in (*data.train, *again.train):
        assert example.ids.dtype == np.int32 and example.learned.dtype == np.bool_
        assert example.ids.shape == example.learned.shape
