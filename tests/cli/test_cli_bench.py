"""``macllm bench``: the figures it promises, their bookkeeping, bad input."""

import json
from pathlib import Path

import pytest
from tiny import config_of, write_model

from macllm.cli.main import main
from macllm.engine.benchmark import Benchmark, measure, random_prompt, summarize
from macllm.engine.loading import Loaded, load_model
from macllm.engine.metrics import Metrics

FIGURES = {
    "model", "prompt_tokens", "decode_tokens", "repeats", "load_s", "prefill_tps", "ttft_s", "decode_tps",
    "step_ms_p50", "step_ms_p99", "peak_memory_bytes", "kv_bytes", "dtype", "backend", "runs",
    "decode_bound_tps", "decode_of_bound", "bandwidth_gb_per_s", "bandwidth_from",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "tiny"
    write_model(config_of("llama"), folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load_model(folder)


def test_json_has_every_figure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "bench",
        str(folder),
        "--prompt-tokens",
        "24",
        "--decode-tokens",
        "5",
        "--repeats",
        "2",
        "--json",
    ]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == FIGURES
    assert (found["prompt_tokens"], found["decode_tokens"], found["repeats"]) == (24, 5, 2)
    assert len(found["runs"]) == 2
    for run in found["runs"]:
        assert (run["prompt_tokens"], run["decode_tokens"], run["reused_tokens"]) == (24, 5, 0)
    for name in FIGURES - {"model", "dtype", "backend", "runs", "bandwidth_from"}:
        assert found[name] > 0, name
    assert found["decode_of_bound"] == pytest.approx(found["decode_tps"] / found["decode_bound_tps"])
    assert (found["bandwidth_from"] == "measured here") == (found["backend"] != "metal")


def test_the_table_names_the_sizes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(folder), "--prompt-tokens", "7", "--decode-tokens", "3", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    for text in (
        "prefill, 7 tokens",
        "decode, 3 tokens",
        "tok/s",
        "step, 99th percentile",
        "memory, peak",
        "decode, at most",
    ):
        assert text in out


def test_figures_are_the_engines_own(loaded: Loaded) -> None:
    runs = list(measure(loaded, Benchmark(16, 4, 3)))
    assert all(isinstance(run, Metrics) and run.load_s == loaded.load_s for run in runs)
    summary = summarize(runs)
    assert summary.decode_tps == sorted(run.decode_tps for run in runs)[1]
    assert summary.peak_memory_bytes == max(run.peak_memory_bytes for run in runs)
    # 20 tokens, the last of them never computed: keys and values of 3 layers, 2 heads of 8, float32
    assert summary.kv_bytes == 19 * 3 * 2 * 2 * 8 * 4


def test_decoding_goes_on_past_stop_tokens(loaded: Loaded) -> None:
    from dataclasses import replace

    everything = replace(loaded, stop_ids=frozenset(range(loaded.vocab)))
    (run,) = measure(everything, Benchmark(4, 6, 1))
    assert run.decode_tokens == 6


def test_prompts_are_the_same_each_time_and_within_the_vocabulary() -> None:
    assert random_prompt(99, 50) == random_prompt(99, 50)
    assert random_prompt(99, 50) != random_prompt(99, 50, seed=1)
    assert set(random_prompt(3, 100)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--prompt-tokens", "510", "--decode-tokens", "3"], "513"),
        (["--repeats", "0"], "'0'"),
        (["--decode-tokens", "few"], "'few'"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], named: str
) -> None:
    assert main(["bench", str(folder), *words]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
