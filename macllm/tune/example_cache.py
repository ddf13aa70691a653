"""Examples on disk, so that rows are tokenized once: one file for what was read, under a name of its content."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from macllm import paths
from macllm.tokenizer import Tokenizer
from macllm.tune import array_cache
from macllm.tune.examples import Example, ExampleSettings
from macllm.tune.schema import Schema

FORMAT = 3  # to be raised whenever the same rows become other examples
KEPT = 16  # files; the oldest go
_LABELS = (None, False, True)


@dataclass(frozen=True)
class Made:
    """The examples of each file by its name, and the schema of the rows that they were made of."""

    schema: Schema
    examples: Mapping[str, tuple[Example, ...]]


def folder() -> Path:
    """Examples can be made again, so they lie where the system may clear them away."""
    return paths.cache_dir() / "examples"


def key(files: Sequence[Path], tokenizer: Tokenizer, settings: ExampleSettings) -> str:
    """A digest of all that the examples follow from: the files' content, the tokenizer, how rows are rendered."""
    told = asdict(settings)
    if not any("strftime_now" in source for source in tokenizer.profile.templates.values()):
        del told["date"]  # it is written nowhere
    digest = hashlib.sha256(f"{FORMAT} {tokenizer.fingerprint} {json.dumps(told, sort_keys=True)}".encode())
    for file in files:
        with file.open("rb") as content:
            digest.update(f" {file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}".encode())
    return digest.hexdigest()


def load(name: str) -> Made | None:
    """What was made, under a key; None where it has to be made."""
    return array_cache.load(folder() / f"{name}.npz", _read)


def save(name: str, made: Made) -> None:
    """Keeps it under a key. Where the disk takes no more, it is made again next time."""
    arrays: dict[str, NDArray[Any]] = {
        "format": np.array(FORMAT),
        "schema": np.array(made.schema),
        "files": np.array(list(made.examples)),
    }
    for index, examples in enumerate(made.examples.values()):
        arrays |= _packed(examples, index)
    array_cache.save(folder() / f"{name}.npz", arrays, KEPT)


def _read(arrays: "np.lib.npyio.NpzFile") -> Made | None:
    if int(arrays["format"]) != FORMAT:
        return None
    files = [str(file) for file in arrays["files"]]
    schema: Schema = next(one for one in get_args(Schema) if one == str(arrays["schema"]))
    return Made(schema, {file: _unpacked(arrays, index) for index, file in enumerate(files)})


def _packed(examples: Sequence[Example], index: int) -> dict[str, NDArray[Any]]:
    ids = [example.ids for example in examples]
    learned = [example.learned for example in examples]
    raw = [example.raw.encode() for example in examples]
    return {
        f"{index}.lengths": np.array([len(example) for example in examples], dtype=np.int32),
        f"{index}.ids": np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32),
        f"{index}.learned": np.packbits(np.concatenate(learned) if learned else np.zeros(0, dtype=np.bool_)),
        f"{index}.truncated": np.array([example.truncated for example in examples], dtype=np.bool_),
        f"{index}.places": np.array([example.place for example in examples], dtype=np.str_),
        f"{index}.labels": np.array([_LABELS.index(example.label) for example in examples], dtype=np.int8),
        f"{index}.raw": np.frombuffer(b"".join(raw), np.uint8),
        f"{index}.raw_lengths": np.array([len(one) for one in raw], dtype=np.int32),
    }


def _unpacked(arrays: "np.lib.npyio.NpzFile", index: int) -> tuple[Example, ...]:
    names = ("lengths", "ids", "learned", "truncated", "places", "labels", "raw", "raw_lengths")
    lengths, ids, bits, truncated, places, labels, raw, raw_lengths = (
        arrays[f"{index}.{part}"] for part in names
    )
    if int(lengths.sum()) != len(ids):
        raise ValueError("lengths and ids do not go together")
    learned = np.unpackbits(bits, count=len(ids)).astype(np.bool_)
    ends = np.cumsum(lengths)[:-1]
    rows = [one.tobytes().decode() for one in np.split(raw, np.cumsum(raw_lengths)[:-1])]
    parts = zip(np.split(ids, ends), np.split(learned, ends), places, truncated, labels, rows, strict=True)
    if not len(lengths):
        return ()
    return tuple(
        Example(own, mask, str(place), bool(cut), _LABELS[label], row)
        for own, mask, place, cut, label, row in parts
    )
