"""``python -m bench``: rows, targets, table and JSON; the workers run on tiny models."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import chatty
import pytest

from bench import finetune_speed
from bench.__main__ import main, show, write
from bench.families import deepened
from bench.models import write_mlx_folder, write_tiny_model
from bench.processes import import_seconds, modules_after, seconds
from bench.rows import HEADERS, Report, Row, Target
from bench.settings import Settings
from bench.speed import measure
from bench.suite import report
from bench.worker import Worker, WorkerError
from macllm.families import spec_from_config
from macllm.families.tiny import tiny_config
from macllm.nn.stored import Dense

FOUR_TIMES = Target("ratio", at_least=4)


def quiet(_: str) -> None:
    """Progress that nobody reads."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A tiny model of both programs' own format in place of the starter."""
    folder = tmp_path_factory.mktemp("bench")
    write_tiny_model(folder / "tiny", layers=2, width=16)
    return Settings(
        folder / "tiny", 256, folder / "results", quick=True, prompt_tokens=8, decode_tokens=3, repeats=2,
        process_repeats=1, host_steps=3, tiny_layers=2,
    )  # fmt: skip


# rows


@pytest.mark.parametrize(
    ("ours", "theirs", "met"), [((40.0,), (10.0,), True), ((39.0,), (10.0,), False), ((40.0,), (), None)]
)
def test_a_ratio_is_held_against_its_target(
    ours: tuple[float, ...], theirs: tuple[float, ...], met: bool | None
) -> None:
    assert Row("key", "figure", "tok/s", ours, "peer", theirs, FOUR_TIMES).met is met


def test_a_value_is_held_against_its_target() -> None:
    target = Target("value", at_most=0.2)
    assert Row("key", "figure", "s", (0.1, 0.3, 0.2), target=target).met is True
    assert Row("key", "figure", "s", (0.1, 0.3, 0.3), target=target).met is False
    assert Row("key", "figure", "s", (0.1,)).met is None


def test_ratios_are_taken_pair_by_pair() -> None:
    """Both programs half as fast in the second turn: the ratio is that of each turn."""
    row = Row("key", "figure", "tok/s", (40.0, 20.0, 40.0), "peer", (10.0, 5.0, 10.0))
    assert row.ratio == 4
    assert replace(row, theirs=(10.0, 5.0)).ratio == pytest.approx(40 / 7.5)


def test_a_table_shows_values_targets_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Row("a", "prefill", "tok/s", (420.4,), "mlx-lm", (14.0,), Target("ratio", at_least=20)),
        Row("b", "decode", "tok/s", (20.0,), "llama.cpp", (), Target("ratio", at_least=2), "not installed"),
        Row("c", "decode", "tok/s", (20.0,), "mlx-lm", (40.0,)),
        Row("d", "macllm --help", "s", (0.25,), target=Target("value", at_most=0.2)),
    ]
    show(Report({"cores": 2}, {}, rows))
    header, *lines, _, machine = capsys.readouterr().out.splitlines()
    assert [name for name in HEADERS if name not in header] == []
    assert [line.rpartition("  ")[2].strip() for line in lines] == [
        "met",
        "not measured",
        "information",
        "not met",
    ]
    assert "420 tok/s" in lines[0]
    assert "30.03 x" in lines[0]
    assert ">= 20 x" in lines[0]
    assert "not installed" in lines[1]
    assert machine == "cores 2"


def test_json_keeps_all_samples_and_verdicts(tmp_path: Path) -> None:
    row = Row("a", "prefill", "tok/s", (40.0, 44.0, 60.0), "mlx-lm", (10.0, 10.0, 10.0), FOUR_TIMES)
    write(Report({"cores": 2}, {"repeats": 3}, [row]), tmp_path / "new" / "report.json")
    found = json.loads((tmp_path / "new" / "report.json").read_text())
    (kept,) = found["rows"]
    assert kept["ours"] == [40.0, 44.0, 60.0]
    assert (kept["value"], kept["peer_value"], kept["ratio"], kept["met"]) == (44.0, 10.0, 4.4, True)
    assert found["settings"] == {"repeats": 3}


# measuring


def test_generation_is_measured_in_turns_and_peers_may_be_missing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = settings.mlx_folder("float32")  # the tiny model is in mlx-lm's format already
    same.parent.mkdir(parents=True)
    same.symlink_to(settings.model)
    monkeypatch.setattr(
        "bench.speed.importlib.util.find_spec", lambda name: None if name == "llama_cpp" else 1
    )
    rows = {(row.key, row.peer): row for row in measure(settings, quiet)}
    assert len(rows) == 6
    row = rows["decode", "mlx-lm, float32 4-bit"]
    assert len(row.ours) == len(row.theirs) == 2
    assert row.met is not None
    missing = rows["prefill", "llama.cpp"]
    assert (missing.theirs, missing.why, missing.met) == ((), "not installed", None)
    assert len(missing.ours) == 2


def test_the_other_rows(settings: Settings) -> None:
    only = ("host", "help", "import", "load", "finetune")
    done = report(replace(settings, only=only), quiet)
    assert [row.key for row in done.rows] == ["host", "help", "import", "load", "load", "finetune"]
    assert all(row.ours for row in done.rows), [row.why for row in done.rows]
    assert done.rows[-1].met  # at most 4.13 bits a weight
    host = done.rows[0]
    assert len(host.ours) == len(host.theirs) == 2
    assert {"system", "cores", "macllm", "mlx", "mlx-lm"} <= set(done.machine)


def test_the_rows_of_families_say_what_mlx_lm_cannot_load(settings: Settings) -> None:
    """One has a class, one has none, and one class ends the process that asks for it."""
    some = replace(settings, only=("families",), families=("llama", "arcee", "olmo"), family_layers=4)
    arcee, llama, olmo, largest = report(some, quiet).rows
    assert len(llama.ours) == len(llama.theirs) == 2
    assert llama.met is not None
    assert (arcee.theirs, arcee.met, len(arcee.ours)) == ((), None, 2)
    assert "arcee not supported" in arcee.why
    assert (olmo.theirs, "SystemExit" in olmo.why) == ((), True)
    assert largest == replace(llama, figure=largest.figure)
    assert largest.figure == "largest of 1: host time a step, llama"


@pytest.mark.parametrize("name", ["llama", "exaone4", "gemma3n_text", "jamba", "lfm2", "nemotron_h", "phi"])
def test_deep_models_repeat_the_layers_of_shallow_ones(name: str) -> None:
    """Layers of the same kinds, in the same order, however a config says what they are."""
    shallow, deep = (
        spec_from_config(config) for config in (tiny_config(name), deepened(tiny_config(name), 24))
    )
    assert 24 <= len(deep.layers) < 24 + len(shallow.layers)
    assert {type(layer.mixer) for layer in deep.layers} == {type(layer.mixer) for layer in shallow.layers}
    assert {type(layer.channel) for layer in deep.layers} == {type(layer.channel) for layer in shallow.layers}


def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    with Worker("worker_macllm") as worker:
        with pytest.raises(WorkerError, match="nothing"):
            worker.ask("run", path=str(tmp_path / "nothing"), ids=[1], decode_tokens=1)
        with pytest.raises(WorkerError, match="died with exit code"):
            worker.ask("no such request")
        assert not worker.alive


def test_processes_are_timed_to_their_end() -> None:
    import sys

    assert seconds([sys.executable, "-c", "import time; time.sleep(0.1)"]) >= 0.1
    assert import_seconds("import time as t; t.sleep(0.05)") >= 0.05
    assert "json" in modules_after("import json")
    with pytest.raises(WorkerError, match=r"exit code 1: .*ValueError"):
        seconds([sys.executable, "-c", "raise ValueError"])


def test_the_same_weights_are_written_exactly(starter_gguf: Path, tmp_path: Path) -> None:
    """Dequantized, the folder's matrices are the GGUF's; mlx-lm's command gets its tokenizer."""
    import mlx.core as mx

    from macllm.weights.model_files import open_model

    write_mlx_folder(starter_gguf, tmp_path / "same", "float32")
    here, there = open_model(starter_gguf), open_model(tmp_path / "same")
    for name in ("embed.weight", "layers.3.mixer.q.weight", "layers.29.channel.down.weight"):
        ours = here.checkpoint(mx.float32).read_dense(here.naming.stored(name)[0], mx.float32)
        theirs = there.checkpoint(mx.float32).read_dense(there.naming.stored(name)[0], mx.float32)
        (loaded,) = here.naming.relation(name).load([Dense(ours)])
        assert mx.array_equal(loaded.array, theirs), name
    assert there.plan.of("model.embed_tokens").bits == 8
    assert there.plan.of("model.layers.0.mlp.up_proj").bits == 4
    text = "The capital of France is"
    assert there.tokenizer().encode(text) == here.tokenizer().encode(text)


def test_the_command_writes_its_report_and_judges_nothing(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    assert main(["--model", str(settings.model), "--only", "help", "--quick", "--json", str(file)]) == 0
    assert "macllm --help" in capsys.readouterr().out
    assert [row["key"] for row in json.loads(file.read_text())["rows"]] == ["help"]


# fine-tuning


@pytest.mark.slow
def test_both_programs_learn_the_same_rows(tmp_path: Path) -> None:
    model, data = tmp_path / "model", tmp_path / "data"
    shutil.copytree(chatty.folder("endless"), model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps({**config, "tie_word_embeddings": False})
    )  # not mlx-lm's default
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (model / "tokenizer_config.json").write_text(json.dumps(special))
    data.mkdir()
    rows = [json.dumps({"text": f"{number} and " * (number % 5 + 2)}) + "\n" for number in range(12)]
    for name in ("train", "valid"):
        (data / f"{name}.jsonl").write_text("".join(rows))
    shared = {**finetune_speed.SHARED, "max_seq_length": 64, "learning_rate": 1e-2}
    own = {**shared, "learn": "all", "pack": "no"}
    asked = {"path": str(model), "data": str(data)}
    with Worker("worker_tune") as worker:
        speed = worker.ask("speed", **asked, settings=own, tokens=300)
        assert speed["tokens"] >= 300 and speed["tokens_per_s"] > 0
        found = worker.ask("held_out", **asked, settings=own, tokens=600)
        assert found["loss"] < found["before"]
    with Worker("worker_tune_mlx_lm") as worker:
        out = str(tmp_path / "x.safetensors")
        assert worker.ask("speed", **asked, settings=shared, iters=2, out=out)["tokens_per_s"] > 0
        learned = worker.ask("learn", **asked, settings=shared, tokens=600, folder=str(tmp_path / "theirs"))
        assert learned["tokens"] >= 600
    with Worker("worker_tune") as worker:
        theirs = worker.ask("held_out_of", **asked, settings=own, adapter=str(tmp_path / "theirs"))
    assert theirs["loss"] == pytest.approx(found["loss"], rel=0.2)
