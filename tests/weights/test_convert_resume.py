"""A conversion that is interrupted, resumed, refused, split into shards; and how much memory it takes."""

import fcntl
import gc
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import tiny
from conversions import macllm_logits, mlx_lm_logits, same_tensors, sha256, tensors
from safetensors import safe_open
from safetensors.numpy import save_file

from macllm.errors import ConfigError, InputError, MacllmError, OptionError, SourceError
from macllm.weights.convert import Conversion, Converted, Event, Planned, convert
from macllm.weights.plan import Target
from macllm.weights.save import make_shards

ROOT = Path(__file__).parents[2]
FOUR = Target(bits=4)
SHARD = 100_000

# Runs a conversion that kills itself, as nothing can prepare for, when it has written enough tensors.
KILLED = """
import os, signal, sys
from pathlib import Path
import macllm
from macllm.weights.convert import Converted, convert
from macllm.weights.plan import Target

count = 0
def report(event):
    global count
    count += isinstance(event, Converted)
    if count == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

convert(Path(sys.argv[1]), Path(sys.argv[2]), Target(bits=4), report, shard_bytes=100_000, sync_bytes=1)
"""


@pytest.fixture(scope="module")
def source() -> Path:
    return tiny.reference("llama", wide=True).folder


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the files of a conversion that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return sha256(convert(source, out, FOUR, shard_bytes=SHARD).path)


def resumed(source: Path, out: Path) -> tuple[Conversion, int, list[Event]]:
    """Runs the same conversion (again); the bytes it found and the events of what it wrote."""
    events: list[Event] = []
    done = convert(source, out, FOUR, events.append, shard_bytes=SHARD, sync_bytes=1)
    planned = next(event for event in events if isinstance(event, Planned))
    return done, planned.present_bytes, [event for event in events if isinstance(event, Converted)]


def stop_after(count: int, error: type[BaseException]) -> Callable[[Event], None]:
    """A report that raises when ``count`` tensors are written."""
    seen = 0

    def report(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, Converted)
        if seen == count:
            raise error

    return report


@pytest.mark.parametrize("count", [1, 8, 21])
def test_killed_and_run_again_it_ends_in_the_same_bytes(
    count: int, source: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(source), str(out), str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    assert (tmp_path / "out.partial").is_dir()
    done, present, written = resumed(source, out)
    assert (present > 0) == (count > 1)  # what was being written when it died is written again
    assert len(written) == 21 - (count - 1)
    assert sha256(done.path) == whole
    assert list(tmp_path.iterdir()) == [out]


def test_interrupted_it_keeps_every_finished_tensor(
    source: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    """Also those since the last state: Ctrl-C leaves time to write one."""
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        convert(source, out, FOUR, stop_after(10, KeyboardInterrupt), shard_bytes=SHARD)
    assert not out.exists()
    done, present, written = resumed(source, out)
    assert present > 0
    assert len(written) == 21 - 9
    assert sha256(done.path) == whole


def test_a_lost_shard_is_written_again(source: Path, whole: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        convert(source, out, FOUR, stop_after(15, KeyboardInterrupt), shard_bytes=SHARD)
    next((tmp_path / "out.partial").glob("model-00001-*")).unlink()
    done, present, _ = resumed(source, out)
    assert present == 0
    assert sha256(done.path) == whole


@contextmanager
def files_of_at_most(count: int) -> Iterator[None]:
    """Within, no file of this process can grow beyond ``count`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_leaves_nothing_at_the_destination(
    source: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(OSError, match="File too large"), files_of_at_most(50_000):
        convert(source, out, FOUR, shard_bytes=SHARD)
    assert not out.exists()
    assert sha256(resumed(source, out)[0].path) == whole


def test_too_small_a_disk_is_found_out_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    with pytest.raises(MacllmError, match=r"\d+ MB are needed and 1.0 MB are free .* another disk") as error:
        convert(source, tmp_path / "out", disk_free=lambda _: 1_000_000)
    assert error.value.exit_code == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("other", [Target(bits=8), Target(bits=4, dtype="bfloat16"), Target()], ids=str)
def test_another_conversions_rest_is_not_built_on(other: Target, source: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", FOUR, stop_after(5, KeyboardInterrupt))
    before = sha256(tmp_path)
    with pytest.raises(InputError, match=r"out.partial holds an unfinished conversion .* delete the folder"):
        convert(source, tmp_path / "out", other)
    assert sha256(tmp_path) == before


def test_another_source_is_another_conversion(source: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", FOUR, stop_after(5, KeyboardInterrupt))
    with pytest.raises(InputError, match="another source"):
        convert(tiny.reference("llama-tied", wide=True).folder, tmp_path / "out", FOUR)


def test_a_folder_of_the_users_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "novel.txt").write_text("x")
    with pytest.raises(InputError, match="in the way"):
        convert(source, tmp_path / "out", FOUR)
    assert [path.name for path in (tmp_path / "out.partial").iterdir()] == ["novel.txt"]


def test_two_at_once_do_not_mix(source: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", FOUR, stop_after(5, KeyboardInterrupt))
    with (tmp_path / "out.partial" / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another macllm"):
            convert(source, tmp_path / "out", FOUR)
    assert convert(source, tmp_path / "out", FOUR).path.is_dir()


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_is_at_the_destination_stays(kind: str, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
    elif kind == "file":
        out.write_text("x")
    else:
        out.symlink_to("nowhere")
    with pytest.raises(InputError, match="exists already"):
        convert(source, out, FOUR)


def test_bad_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    folder = tmp_path / "gptq"
    folder.mkdir()
    values = tiny.config_of("llama") | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (folder / "config.json").write_text(json.dumps(values))
    save_file({"x": np.zeros(1, np.float32)}, folder / "model.safetensors")
    with pytest.raises(ConfigError, match="gptq"):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bits": 7}, "bits=7 is not supported .*2, 3, 4, 5, 6, 8"),
        ({"bits": 0}, "bits=0 is not supported"),
        ({"group_size": 16}, "group_size=16 is not supported .*32, 64, 128"),
        ({"mode": "mxfp4", "group_size": 64}, "'mxfp4' has 4 bits and groups of 32"),
        ({"mode": "nf3"}, "mode='nf3' is not supported"),
        ({"recipe": "mixed_1_2"}, "recipe='mixed_1_2' does not exist"),
        ({"recipe": "mixed_3_6", "bits": 4}, "sets the bits itself"),
        ({"recipe": "mixed_3_6", "mode": "nvfp4"}, "mixes affine bits"),
        ({"quantize": True, "dequantize": True}, "contradict"),
        ({"requantize": True}, "does nothing without quantize"),
    ],
)
def test_impossible_targets_are_refused(settings: dict, words: str) -> None:
    with pytest.raises((OptionError, ConfigError), match=words):
        Target(**settings)


def test_shards_are_as_large_as_allowed_and_every_reader_finds_the_tensors(
    source: Path, tmp_path: Path
) -> None:
    one = convert(source, tmp_path / "one", FOUR)
    many = convert(source, tmp_path / "many", FOUR, shard_bytes=SHARD)
    files = sorted(many.path.glob("*.safetensors"))
    assert [file.name for file in files] == [
        f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)
    ]
    assert len(files) > 3
    assert same_tensors(tensors(many.path), tensors(one.path))
    index = json.loads((many.path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == many.size_bytes
    found = {}
    for file in files:
        with safe_open(file, "numpy") as opened:
            assert opened.metadata() == {"format": "mlx"}
            found |= dict.fromkeys(opened.keys(), file.name)
    assert found == index["weight_map"]
    sizes = [sum(array.nbytes for array in mx.load(str(file)).values()) for file in files]
    assert sum(sizes) == many.size_bytes
    assert max(sizes) <= SHARD
    assert (one.path / "model.safetensors.index.json").exists()  # as mlx-lm writes it, also for one file
    assert tiny.difference(macllm_logits(many.path), mlx_lm_logits(many.path)) < 1e-5


def test_no_shard_is_larger_than_mlx_lms(source: Path) -> None:
    from mlx_lm.utils import MAX_FILE_SIZE_GB

    assert make_shards.__defaults__ == (5_000_000_000,)
    assert make_shards.__defaults__[0] <= MAX_FILE_SIZE_GB << 30


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 134 MB of which no matrix has more than 6."""
    folder = tmp_path_factory.mktemp("large")
    values = tiny.config_of("llama") | {
        "vocab_size": 3000,
        "hidden_size": 1024,
        "intermediate_size": 2048,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    }
    (folder / "config.json").write_text(json.dumps(values))
    from macllm.weights.model_files import open_model

    files = open_model(folder)
    values = np.random.default_rng(0).normal(0, 0.02, 3000 * 1024).astype(np.float16)
    arrays = {files.naming.stored(t.name)[0]: np.resize(values, t.shape) for t in files.spec.tensors()}
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def held_by_others() -> int:
    """Bytes of the models that other tests of this process keep: they are in every peak."""
    gc.collect()
    return mx.get_active_memory()


@pytest.mark.parametrize(
    "target", [Target(bits=4), Target(), Target(bits=8, dtype="float32"), Target(mode="mxfp8")], ids=str
)
def test_memory_stays_near_the_largest_matrix(target: Target, large: Path, tmp_path: Path) -> None:
    largest = 3000 * 1024 * 2  # float16
    held = held_by_others()
    done = convert(large, tmp_path / "out", target)
    assert (large / "model.safetensors").stat().st_size > 18 * largest
    # the matrix as it is stored, and a million weights at a time in other forms
    assert done.peak_memory_bytes - held < largest + 1024 * 1024 * 12


def test_memory_of_expanding_stays_near_the_largest_matrix(large: Path, tmp_path: Path) -> None:
    packed = convert(large, tmp_path / "packed", Target(bits=4)).path
    held = held_by_others()
    done = convert(packed, tmp_path / "plain", Target(dequantize=True))
    assert done.peak_memory_bytes - held < 3000 * 1024 * 0.6 + 1024 * 1024 * 20
