"""``--kv-bits``, and ``kv_bits`` of the Python API: caches are packed, and every figure of them says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import config_of, write_original

import macllm
from macllm import sizes
from macllm.cli.main import main
from macllm.engine.protocol import ModelRef
from macllm.engine.resident import Resident
from macllm.errors import OptionError
from macllm.nn.quantized_kv_cache import QuantizedFullCache, QuantizedSlidingCache
from macllm.spec import ModelSpec

Run = Callable[..., dict[str, Any]]
TOKENS = 20  # of the prompt and the reply, of which the last is never computed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("gemma3-wide-heads")
    write_original({**config_of("gemma3"), "head_dim": 64}, found)
    return found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def told(*words: object) -> dict[str, Any]:
        assert main([*map(str, words), "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return told


def spec_of(folder: Path) -> ModelSpec:
    spec = macllm.load(folder).loaded.spec
    assert spec is not None
    return spec


@pytest.mark.parametrize("bits", [8, 4])
def test_commands_hold_keys_and_values_in_so_many_bits(
    bits: int, folder: Path, run: Run, tmp_path: Path
) -> None:
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps(list(range(1, 13))))
    spec, option = spec_of(folder), ("--kv-bits", bits)
    expected = sizes.kv_bytes(spec, TOKENS - 1, 4, bits)
    assert expected < sizes.kv_bytes(spec, TOKENS - 1, 4) / 3
    found = run("generate", folder, "--tokens-in", ids, "--max-tokens", 8, "--temp", 0, *option)
    assert found["metrics"]["kv_bytes"] == expected
    assert found["metrics"]["kv_by_kind"].keys() == {"full", "sliding"}
    lengths = ("--prompt-tokens", 12, "--decode-tokens", 8, "--repeats", 1)
    assert run("bench", folder, *lengths, *option)["kv_bytes"] == expected
    told = run("explain", folder, "--context", 19, *option)
    assert (told["kv_bits"], told["kv_bytes"]) == (bits, sizes.kv_bytes(spec, 19, 2, bits))
    assert told["kv_bytes_per_token"] == sizes.kv_bytes_per_token(spec, 2, bits)
    assert told["notes"] == []
    plain = run("explain", folder, "--context", 19)
    saved = sizes.held_bytes(spec, 19) - sizes.held_bytes(spec, 19, kv_bits=bits)
    for key, needed in plain["needed_bytes"].items():
        assert needed - told["needed_bytes"][key] == saved


def test_the_bounds_count_the_packed_bytes(folder: Path, run: Run) -> None:
    read = [
        run("explain", folder, "--roofline", "--context", 100, *option)["roofline"]["choices"][0][
            "cache_read_bytes"
        ]
        for option in ((), ("--kv-bits", 8), ("--kv-bits", 4))
    ]
    assert [each * 32 for each in read] == [read[0] * 32, read[0] * 17, read[0] * 9]


def test_the_help_says_what_it_is_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(folder), "--kv-bits", "8"]) == 0
    assert "of 8-bit KV cache a token" in capsys.readouterr().out


def test_what_stays_plain_is_said(run: Run, tmp_path: Path) -> None:
    for variant, words in (
        ("llama", "All caches of keys and values stay plain"),
        ("rwkv7", "keeps no keys and values"),
    ):
        (tmp_path / variant).mkdir()
        (tmp_path / variant / "config.json").write_text(json.dumps(config_of(variant)))
        (note,) = run("explain", tmp_path / variant, "--kv-bits", 8)["notes"]
        assert words in note


def test_a_model_is_held_anew_for_other_bits(folder: Path) -> None:
    resident = Resident()
    plain, packed = (ModelRef("tiny", str(folder), kv_bits=bits) for bits in (None, 8))
    resident.load(packed, lambda done, total: None)
    assert resident.holds(packed)
    assert not resident.holds(plain)
    caches = resident.lease("").session.caches
    assert {type(cache) for cache in caches} == {QuantizedFullCache, QuantizedSlidingCache}


def test_other_bits_are_refused(folder: Path) -> None:
    assert main(["generate", str(folder), "-p", "x", "--kv-bits", "5"]) == 2
    with pytest.raises(OptionError, match="kv_bits=5 is not supported \\(expected 8 or 4\\)"):
        macllm.load(folder, kv_bits=5)


def test_a_model_that_mlx_lm_runs_keeps_its_own_caches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**config_of("llama"), "model_type": "nobody-s"}))
    assert main(["explain", str(tmp_path), "--kv-bits", "8"]) == 2
    assert "leave kv_bits (--kv-bits) out" in capsys.readouterr().err
