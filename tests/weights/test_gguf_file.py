"""Opening GGUF files: what the header says is what the library says, and damage is an error with a name."""

import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf_maker import make_gguf, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from macllm.errors import CheckpointError
from macllm.weights.gguf_file import GGUFFile

U8, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 6, 7, 8, 9, 10


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


@dataclass
class Info:
    """One tensor of a hand-made header."""

    name: str | bytes = "w"
    dims: tuple[int, ...] = (32, 2)
    type: int = 0
    offset: int = 0

    def bytes(self) -> bytes:
        dims = struct.pack(f"<I{len(self.dims)}Q", len(self.dims), *self.dims)
        return text(self.name) + dims + struct.pack("<IQ", self.type, self.offset)


@dataclass
class Hand:
    """A GGUF file written byte by byte, so that anything in it can be wrong."""

    keys: list[tuple[str, int, bytes]] = field(
        default_factory=lambda: [("general.architecture", STRING, text("llama"))]
    )
    tensors: list[Info] = field(default_factory=lambda: [Info()])
    data: int = 256
    magic: bytes = b"GGUF"
    version: int = 3
    key_count: int | None = None
    tensor_count: int | None = None
    alignment: int = 32

    def bytes(self) -> bytes:
        counts = (
            len(self.tensors) if self.tensor_count is None else self.tensor_count,
            len(self.keys) if self.key_count is None else self.key_count,
        )
        header = self.magic + struct.pack("<IQQ", self.version, *counts)
        for key, kind, value in self.keys:
            header += text(key) + struct.pack("<I", kind) + value
        header += b"".join(info.bytes() for info in self.tensors)
        return (
            header
            + bytes(-len(header) % self.alignment)
            + bytes(range(256)) * (self.data // 256)
            + bytes(self.data % 256)
        )


def opened(content: bytes, folder: Path, name: str = "model.gguf") -> GGUFFile:
    path = folder / name
    path.write_bytes(content)
    return GGUFFile.open(path)


def touch(file: GGUFFile) -> None:
    """Asks for everything an opened file offers."""
    for key in file.metadata:
        file.metadata[key]
    for tensor in file.tensors.values():
        assert tensor.data().nbytes == tensor.nbytes


def array(kind: int, count: int, payload: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + payload


# --- what is read


@pytest.mark.parametrize("version", [2, 3])
def test_every_kind_of_value(version: int, tmp_path: Path) -> None:
    nested = array(ARRAY, 2, array(U8, 3, b"\1\2\3") + array(STRING, 1, text("x")))
    keys = [
        ("u8", 0, b"\xff"),
        ("i8", 1, b"\xff"),
        ("u16", 2, struct.pack("<H", 65535)),
        ("i16", 3, struct.pack("<h", -2)),
        ("u32", 4, struct.pack("<I", 2**32 - 1)),
        ("i32", 5, struct.pack("<i", -3)),
        ("f32", 6, struct.pack("<f", 0.5)),
        ("yes", BOOL, b"\1"),
        ("no", BOOL, b"\0"),
        ("text", STRING, text("Grüße 🌍")),
        ("empty", STRING, text("")),
        ("u64", 10, struct.pack("<Q", 2**63)),
        ("i64", 11, struct.pack("<q", -(2**62))),
        ("f64", 12, struct.pack("<d", 1e300)),
        ("numbers", ARRAY, array(5, 3, struct.pack("<3i", 1, -2, 3))),
        ("flags", ARRAY, array(BOOL, 2, b"\1\0")),
        ("texts", ARRAY, array(STRING, 3, text("a") + text("") + text("日本"))),
        ("none", ARRAY, array(F32, 0, b"")),
        ("no texts", ARRAY, array(STRING, 0, b"")),
        ("nested", ARRAY, nested),
    ]
    metadata = opened(Hand(keys=keys, version=version).bytes(), tmp_path).metadata
    assert list(metadata) == [key for key, _, _ in keys]
    assert len(metadata) == len(keys)
    found = {key: value for key, value in metadata.items() if not isinstance(value, np.ndarray | list)}
    assert found == {
        "u8": 255,
        "i8": -1,
        "u16": 65535,
        "i16": -2,
        "u32": 2**32 - 1,
        "i32": -3,
        "f32": 0.5,
        "yes": True,
        "no": False,
        "text": "Grüße 🌍",
        "empty": "",
        "u64": 2**63,
        "i64": -(2**62),
        "f64": 1e300,
    }
    assert found["yes"] is True
    assert metadata["numbers"].tolist() == [1, -2, 3]
    assert metadata["flags"].tolist() == [True, False]
    assert metadata["texts"] == ["a", "", "日本"]
    assert metadata["none"].tolist() == []
    assert metadata["no texts"] == []
    assert metadata["nested"][0].tolist() == [1, 2, 3]


def test_shapes_are_row_major_and_bytes_are_the_tensor_s(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    file = GGUFFile.open(write_gguf(tmp_path / "x.gguf", {"a": values[0], "w": values}).path)
    tensor = file.tensors["w"]
    assert tensor.shape == (2, 3, 4)
    assert (tensor.rows, tensor.type_name, tensor.nbytes) == (6, "F32", 96)
    assert np.array_equal(tensor.data().view(np.float32).reshape(2, 3, 4), values)
    assert np.array_equal(tensor.data(2, 5).view(np.float32), values.reshape(6, 4)[2:5])


def test_data_starts_at_the_alignment_the_file_names(tmp_path: Path) -> None:
    keys = [("general.alignment", U32, struct.pack("<I", 4096))]
    file = opened(Hand(keys=keys, alignment=4096).bytes(), tmp_path)
    assert file.tensors["w"].offset == 4096
    assert file.tensors["w"].data().reshape(-1).tolist() == list(range(256))


def test_values_survive_release_of_their_pages(tmp_path: Path) -> None:
    values = np.arange(1 << 16, dtype=np.float32).reshape(64, -1)
    tensor = GGUFFile.open(write_gguf(tmp_path / "x.gguf", {"w": values}).path).tensors["w"]
    tensor.release()
    tensor.release(3, 5)
    assert np.array_equal(tensor.data().view(np.float32), values)


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def assert_like_the_library(path: Path, file: GGUFFile) -> None:
    reader = gguf.GGUFReader(path)
    fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert list(file.metadata) == list(fields)
    for key, entry in fields.items():
        assert plain(file.metadata[key]) == entry.contents(), key
    assert list(file.tensors) == [tensor.name for tensor in reader.tensors]
    for expected in reader.tensors:
        tensor = file.tensors[expected.name]
        assert tensor.shape == tuple(reversed(expected.shape.tolist()))
        assert tensor.type_name == expected.tensor_type.name
        assert (tensor.offset, tensor.nbytes) == (expected.data_offset, expected.n_bytes)


def test_a_made_model_reads_like_the_library_reads_it(tmp_path: Path) -> None:
    made = make_gguf(tmp_path / "x.gguf", "gemma3", {"*ffn*weight": "Q6_K", "token_embd.weight": "Q8_0"})
    assert_like_the_library(made.path, GGUFFile.open(made.path))


@pytest.mark.starter
def test_the_starter_reads_like_the_library_reads_it(starter_gguf: Path) -> None:
    file = GGUFFile.open(starter_gguf)
    assert len(file.tensors) == 272
    assert_like_the_library(starter_gguf, file)


# --- damage


def with_key(kind: int, value: bytes, key: str = "k") -> Hand:
    return Hand(keys=[(key, kind, value)])


TWO = [Info(), Info("v", offset=256)]
HUGE = struct.pack("<Q", 2**63 - 1)
DAMAGED: dict[str, tuple[Hand, str]] = {
    "magic": (Hand(magic=b"GGML"), "not a GGUF file, it starts with b'GGML'"),
    "version 1": (Hand(version=1), "GGUF version 1 is not supported"),
    "version 4": (Hand(version=4), "GGUF version 4 is not supported"),
    "big-endian": (Hand(version=3 << 24), "big-endian"),
    "tensor count": (Hand(tensor_count=2**40), "announces 1099511627776 tensors"),
    "key count": (Hand(key_count=2**63), "announces 9223372036854775808 metadata keys"),
    "one tensor too many": (Hand(tensor_count=2), "download it again"),
    "one tensor too few": (Hand(tensors=TWO, data=512, tensor_count=1), "follow the last of the 1"),
    "key type": (with_key(99, b""), "key 'k' has the unknown value type 99"),
    "key twice": (Hand(keys=[("k", U8, b"\0")] * 2), "metadata key 'k' appears twice"),
    "key text": (Hand(keys=[("k", STRING, text(b"\xff\xfe"))]), "key 'k' is not UTF-8"),
    "key name": (Hand(key_count=2, keys=[("k", U8, b"\0")]), "ends inside its header|damaged"),
    "long text": (with_key(STRING, HUGE + b"abc"), "ends inside its header, at key 'k'"),
    "long array": (with_key(ARRAY, array(U64, 2**60, b"")), "ends inside its header, at key 'k', an array of"),
    "long text array": (with_key(ARRAY, array(STRING, 2**60, b"")), "ends inside its header, at key 'k'"),
    "text array end": (with_key(ARRAY, array(STRING, 2, text("a") + HUGE)), "ends inside its header, at key 'k'"),
    "deep array": (with_key(ARRAY, array(ARRAY, 1, b"") * 20), "key 'k' has the unknown value type 9"),
    "alignment": (with_key(U32, struct.pack("<I", 48), "general.alignment"), "=48 is not a power of two"),
    "alignment 0": (with_key(U32, struct.pack("<I", 0), "general.alignment"), "general.alignment=0"),
    "alignment text": (with_key(STRING, text("32"), "general.alignment"), "general.alignment='32'"),
    "tensor type": (Hand(tensors=[Info(type=77)]), "tensor 'w' has the unknown type number 77"),
    "tensor twice": (Hand(tensors=[Info(), Info(offset=256)], data=512), "tensor 'w' appears twice"),
    "tensor name": (Hand(tensors=[Info(name=b"\xff")]), "name of tensor 1 of 1 is not UTF-8"),
    "dimensions": (Hand(tensors=[Info(dims=(1,) * 5)]), "tensor 'w' has 5 dimensions"),
    "empty tensor": (Hand(tensors=[Info(dims=(32, 0))]), "tensor 'w' has the impossible shape"),
    "row of no whole blocks": (Hand(tensors=[Info(dims=(48, 2), type=2)]), r"impossible shape \(2, 48\) for type Q4_0"),
    "huge tensor": (Hand(tensors=[Info(dims=(2**62, 2**62))]), "tensor 'w' should end at byte"),
    "tensor outside": (Hand(tensors=[Info(offset=2**63)]), "tensor 'w' should end at byte"),
    "tensor cut off": (Hand(data=255), "tensor 'w' should end at byte 384 but the file has 383 bytes"),
    "overlap": (Hand(tensors=[Info(), Info("v", offset=128)], data=384), "tensor 'v' lies on top of another"),
    "more data": (Hand(data=512), "256 bytes follow the last of the 1 tensors"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_named(name: str, tmp_path: Path) -> None:
    hand, message = DAMAGED[name]
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=message) as caught:
            opened(hand.bytes(), tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # a lying header allocates nothing
    finally:
        tracemalloc.stop()
    said = str(caught.value)
    assert said.startswith("model.gguf: ")
    assert "download" in said or "get " in said or "newer" in said


def test_an_undamaged_hand_made_file_opens(tmp_path: Path) -> None:
    """So that the damages above are what is refused."""
    touch(opened(Hand().bytes(), tmp_path))


def test_a_text_that_is_not_utf8_inside_an_array_is_named(tmp_path: Path) -> None:
    file = opened(with_key(ARRAY, array(STRING, 2, text("a") + text(b"\xff"))).bytes(), tmp_path)
    with pytest.raises(CheckpointError, match="entry 1 of key 'k' is not UTF-8"):
        file.metadata["k"]


@pytest.mark.parametrize("what", ["missing", "folder", "empty"])
def test_what_is_no_file_at_all(what: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    if what == "folder":
        path.mkdir()
    if what == "empty":
        path.touch()
    with pytest.raises(CheckpointError, match=r"x\.gguf"):
        GGUFFile.open(path)


class Whole:
    """An undamaged file: its bytes, which stay out of test reports, and where header and data end."""

    def __init__(self, path: Path) -> None:
        tensors = GGUFFile.open(path).tensors.values()
        self.header = min(tensor.offset for tensor in tensors)
        self.end = max(tensor.offset + tensor.nbytes for tensor in tensors)
        self.content = path.read_bytes()

    def __repr__(self) -> str:
        return f"Whole({len(self.content)} bytes)"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(make_gguf(tmp_path_factory.mktemp("small") / "x.gguf", "llama", "Q4_0", layers=1).path)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@settings(max_examples=150, deadline=timedelta(seconds=5))
@given(share=st.floats(0, 1, exclude_max=True), in_header=st.booleans())
def test_a_truncated_file_is_always_an_error(
    share: float, in_header: bool, whole: Whole, scratch: Path
) -> None:
    length = whole.header if in_header else whole.end
    with pytest.raises(CheckpointError, match="download"):
        opened(whole.content[: int(share * length)], scratch)


@settings(max_examples=150, deadline=timedelta(seconds=5))
@given(share=st.floats(0, 1, exclude_max=True), replacement=st.binary(min_size=1, max_size=12))
def test_a_damaged_header_opens_or_is_an_error(
    share: float, replacement: bytes, whole: Whole, scratch: Path
) -> None:
    content = bytearray(whole.content)
    at = int(share * whole.header)
    content[at : at + len(replacement)] = replacement
    try:
        touch(opened(bytes(content), scratch))
    except CheckpointError as error:
        assert str(error).startswith("model.gguf: ")


# --- files in parts


def parts(folder: Path) -> list[Path]:
    made = make_gguf(folder / "tiny.gguf", "llama", "Q8_0", split_max_tensors=8)
    found = sorted(folder.glob("tiny-*-of-*.gguf"))
    assert [path.name for path in found] == [f"tiny-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    assert not made.path.exists()
    return found


@pytest.mark.parametrize("part", [0, 1, 2])
def test_any_part_opens_the_whole(part: int, tmp_path: Path) -> None:
    whole = GGUFFile.open(make_gguf(tmp_path / "whole.gguf", "llama", "Q8_0").path)
    paths = parts(tmp_path)
    file = GGUFFile.open(paths[part])
    assert file.path == paths[0]
    assert file.metadata["general.architecture"] == "llama"
    assert list(file.tensors) == list(whole.tensors)
    for name, tensor in whole.tensors.items():
        assert file.tensors[name].shape == tensor.shape
        assert np.array_equal(file.tensors[name].data(), tensor.data())


def renamed(paths: list[Path]) -> Path:
    return paths[0].rename(paths[0].with_name("renamed.gguf"))


def missing(paths: list[Path]) -> Path:
    paths[1].unlink()
    return paths[0]


def swapped(paths: list[Path]) -> Path:
    first, second = paths[1].read_bytes(), paths[2].read_bytes()
    paths[1].write_bytes(second)
    paths[2].write_bytes(first)
    return paths[0]


def cut(paths: list[Path]) -> Path:
    paths[2].write_bytes(paths[2].read_bytes()[:-1000])
    return paths[0]


def miscounted(paths: list[Path]) -> Path:
    content = paths[0].read_bytes()
    key = b"split.tensors.count" + struct.pack("<I", 5)
    at = content.index(key) + len(key)
    paths[0].write_bytes(content[:at] + struct.pack("<i", 22) + content[at + 4 :])
    return paths[0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            renamed,
            r"renamed\.gguf: it is one of 3 parts, but its name does not end in '-00001-of-00003\.gguf'",
        ),
        (missing, r"tiny-00002-of-00003\.gguf: part 2 of 3 is missing"),
        (swapped, r"tiny-00002-of-00003\.gguf: it is not part 2 of 3"),
        (cut, r"tiny-00003-of-00003\.gguf: tensor '.*' should end at byte"),
        (miscounted, "the parts hold 21 tensors, not 22"),
    ],
)
def test_damaged_parts_are_named(damage: Callable[[list[Path]], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        GGUFFile.open(damage(parts(tmp_path)))


def test_a_tensor_in_two_parts_is_an_error(tmp_path: Path) -> None:
    for number in (0, 1):
        keys = [("split.no", 2, struct.pack("<H", number)), ("split.count", 2, struct.pack("<H", 2))]
        (tmp_path / f"x-0000{number + 1}-of-00002.gguf").write_bytes(Hand(keys=keys).bytes())
    with pytest.raises(CheckpointError, match="tensor 'w' is in an earlier part too"):
        GGUFFile.open(tmp_path / "x-00001-of-00002.gguf")
