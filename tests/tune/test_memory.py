"""Memory of a run before it starts: what more takes more, what is measured, and a plan that fits or says what would."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from base_models import random_model

from macllm.adapters.method import Method
from macllm.adapters.targets import select
from macllm.errors import ConfigError, MemoryLimitError, OptionError
from macllm.families import spec_from_config
from macllm.families.tiny import base_config
from macllm.fit import bytes_by_precision
from macllm.nn.decoder import Decoder
from macllm.tune.ahead import allocating_within, keeping_to_plan
from macllm.tune.batches import Batch, Position
from macllm.tune.forward import learned_states
from macllm.tune.loss import row_losses
from macllm.tune.memory import Base, Beside, estimate, needed_bytes, parse_memory, read_base
from macllm.tune.methods import attach
from macllm.tune.objectives.divergence import FromTeacher, Measure
from macllm.tune.optimizers import Optimizer, OptimizerSpec
from macllm.tune.peak import CPU, METAL, Rows, Run, adapted, held_weights
from macllm.tune.planner import Plan, plan
from macllm.tune.rollout import roll_out
from macllm.tune.settings import DEFAULTS, Value, checked
from macllm.tune.sft import sft_loss
from macllm.tune.step import optimizer_step
from macllm.tune.trained import flat

CONFIGS = Path(__file__).parent.parent / "configs"
LIGHT = {**DEFAULTS, "batch_size": 1, "grad_checkpoint": True}
MAC_16_GB = int(16 * 2**30 * 2 / 3)


def base(name: str, precision: str = "4") -> Base:
    spec = spec_from_config(json.loads((CONFIGS / f"{name}.json").read_text()))
    return Base(bytes_by_precision(spec)[precision], spec)


def needed(model: Base, settings: dict[str, Value]) -> int:
    return needed_bytes(model, settings, device=METAL)


@pytest.mark.parametrize(
    "name", ["smollm2-135m", "qwen3-8b", "gemma-3-1b-it", "qwen3-30b-a3b", "mamba2-130m-hf"]
)
def test_more_of_anything_takes_more(name: str) -> None:
    model = base(name)
    least = needed(model, LIGHT)
    for change in ({"batch_size": 8}, {"rank": 64}, {"max_seq_length": 16_384}, {"grad_checkpoint": False}):
        assert needed(model, {**LIGHT, **change}) > least, change
    kept = {**LIGHT, "grad_checkpoint": False}
    assert needed(model, {**kept, "num_layers": 2}) < needed(model, kept)
    if name != "mamba2-130m-hf":  # whose mixer is known by its working values alone
        assert needed(model, {**kept, "targets": "attention"}) < needed(model, kept)
        assert needed(model, {**kept, "dropout": 0.1}) > needed(model, kept)


def test_full_training_takes_weights_and_averages_and_fewer_bits_less() -> None:
    model = base("qwen3-0.6b", "16")
    full = {**LIGHT, "method": "full", "max_seq_length": 64}
    found = needed(model, full)
    assert found > needed(model, {**LIGHT, "max_seq_length": 64}) + 3 * 4 * 590_000_000
    assert needed(model, {**full, "optimizer_bits": "8"}) < found
    assert needed(model, {**full, "optimizer": "lion"}) < found
    assert needed(model, {**full, "optimizer": "adafactor"}) < needed(model, {**full, "optimizer": "lion"})
    assert needed(model, {**full, "grad_accumulation_steps": 2}) > found


# -- held against what is measured -------------------------------------------------------------------------------

SHAPE = {
    **base_config(),
    "model_type": "llama",
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_hidden_layers": 5,
    "vocab_size": 2000,
    "tie_word_embeddings": True,
}
MEASURED: dict[str, tuple[dict[str, Value], Rows]] = {
    "kept": ({}, Rows(2, 256, 256)),
    "checkpointed": ({"grad_checkpoint": True}, Rows(2, 256, 256)),
    "long": ({"grad_checkpoint": True}, Rows(1, 640, 640)),
    "wide adapter, last layers": ({"rank": 64, "num_layers": 2}, Rows(2, 256, 256)),
    "packed": ({}, Rows(1, 512, 96)),
    "full": ({"method": "full"}, Rows(1, 128, 128)),
    "full in 8 bits": ({"method": "full", "optimizer_bits": "8"}, Rows(1, 64, 64)),
    "dora": ({"method": "dora"}, Rows(2, 256, 256)),
}
QUICK = ("kept", "checkpointed", "full", "dora")


def measured(model: Decoder, settings: dict[str, Value], rows: Rows, limit: int) -> int:
    """The peak of a whole step."""
    optimizer = Optimizer(OptimizerSpec("adamw", bits=int(settings["optimizer_bits"])), flat(model))
    mx.eval(model.parameters(), optimizer.state())
    ids = np.random.default_rng(0).integers(0, 2000, (rows.count, rows.length + 1)).astype(np.int32)
    segments = np.broadcast_to(1 + np.arange(rows.length + 1) // rows.document, ids.shape).astype(np.int32)
    learned = np.ones(ids.shape, np.bool_)
    checkpoint = bool(settings["grad_checkpoint"])
    with allocating_within(limit):
        mx.reset_peak_memory()
        optimizer_step(
            model,
            optimizer,
            [0],
            lambda _: sft_loss(model, ids, learned, segments, checkpoint=checkpoint),
            1e-5,
        )
        return mx.get_peak_memory()


def expected_and_measured(name: str) -> tuple[int, int]:
    """Bytes of one of ``MEASURED``."""
    changes, rows = MEASURED[name]
    settings = checked(changes)
    spec = spec_from_config(SHAPE)
    model = random_model(spec)
    method = Method(settings["method"], int(settings["rank"]), num_layers=int(settings["num_layers"]))
    attach(model, spec, method)
    expected = Run(spec, spec.parameters * 4, False, settings, CPU).peak(rows).total
    return expected, measured(model, settings, rows, expected)


def answers_expected_and_measured() -> tuple[int, int]:
    """Bytes of a model that writes four answers to each of three prompts."""
    settings = checked({"objective": "grpo", "reward": "exact"})
    spec = spec_from_config(SHAPE)
    model = random_model(spec)
    rows = Rows(12, 64 + 440, 64 + 440, 440)
    expected = Run(spec, spec.parameters * 4, False, settings, CPU).drawing(rows)
    mx.eval(model.parameters())
    prompts = [np.arange(64, dtype=np.int32)] * 3
    with allocating_within(spec.parameters * 4 + expected):
        mx.reset_peak_memory()
        roll_out(model, prompts, {-1}, rows.drawn, copies=4)
        return spec.parameters * 4 + expected, mx.get_peak_memory()


def taught_expected_and_measured() -> tuple[int, int]:
    """Bytes of a step that learns from a teacher that is twice as wide."""
    settings, rows = checked({"objective": "distill", "teacher": "other"}), Rows(2, 256, 256)
    spec, wider = spec_from_config(SHAPE), spec_from_config({**SHAPE, "head_dim": 64, "hidden_size": 384})
    model, teacher = random_model(spec), random_model(wider)
    attach(model, spec, Method("lora", 8))
    own, other = Base(spec.parameters * 4, spec), Base(wider.parameters * 4, wider)
    expected = needed_bytes(own, settings, device=CPU, rows=rows, beside=Beside(other, stays=True))
    rule = FromTeacher(Measure("forward_kl", 1.0, 0.5), teacher, spec.vocab)
    ids = np.random.default_rng(0).integers(0, 2000, (rows.count, rows.length + 1)).astype(np.int32)
    learned, segments = np.ones(ids.shape, np.bool_), np.ones(ids.shape, np.int32)
    batch = Batch(ids, learned, segments, segments, (0, 1), Position(0))

    def loss(_: int) -> tuple[mx.array, int]:
        states = learned_states(model, batch)[0]
        told = (mx.stop_gradient(learned_states(teacher, batch)[0]),)
        losses = row_losses(model, states, told, rule)
        return losses.sum(), losses.size

    optimizer = Optimizer(OptimizerSpec("adamw"), flat(model))
    mx.eval(model.parameters(), teacher.parameters(), optimizer.state())
    with allocating_within(expected):
        mx.reset_peak_memory()
        optimizer_step(model, optimizer, [0], loss, 1e-5)
        return expected, mx.get_peak_memory()


def ahead(limit: int) -> tuple[int, int]:
    """The peak of a chain of operations within ``limit``, and MLX's limit after it, which was a terabyte."""
    mx.set_memory_limit(10**12)
    with allocating_within(limit):
        x = mx.random.normal((500_000,))
        for _ in range(60):
            x = mx.sin(x)
        mx.eval(x)
    return mx.get_peak_memory(), mx.set_memory_limit(10**12)


def alone(call: str) -> tuple[int, int]:
    """What a function of this file gives in a process that nothing else has computed in."""
    tests = Path(__file__).parent.parent
    script = f"import sys; sys.path[:0] = {[str(tests.parent), str(tests), str(tests / 'tune')]}\n"
    script += f"import macllm, test_memory\nprint(*test_memory.{call})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    one, other = map(int, done.stdout.split())
    return one, other


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MEASURED]
)
def test_what_is_measured_is_within_15_percent(name: str) -> None:
    expected, found = alone(f"expected_and_measured({name!r})")
    assert 0.85 * found < expected < 1.15 * found


@pytest.mark.parametrize("which", ["answers", "taught"])
def test_answers_of_its_own_and_a_teacher_are_in_the_plan(which: str) -> None:
    expected, found = alone(f"{which}_expected_and_measured()")
    assert 0.85 * found < expected < 1.15 * found


def test_nothing_is_allocated_ahead_beyond_the_limit_and_the_limit_is_put_back() -> None:
    peak, limit = alone("ahead(0)")
    assert peak < 12_000_000 and limit == 10**12


@pytest.mark.parametrize(("planned", "limit"), [(5, 3 * 10**8 + 7), (3 * 10**9, 3 * 10**9 + 7)])
def test_a_run_is_kept_to_its_plan_beside_what_the_process_had_before(planned: int, limit: int) -> None:
    with keeping_to_plan(planned, 7):
        assert mx.set_memory_limit(limit) == limit


# -- against a limit ---------------------------------------------------------------------------------------------


def planned(
    model: Base,
    limit: int,
    given: tuple[str, ...] = (),
    lengths: Any = (),
    packs: bool = True,
    **changes: Value,
) -> Plan:
    return plan(model, checked(changes), limit, given=given, lengths=lengths, packs=packs, device=METAL)


@pytest.mark.parametrize("name", ["qwen3-8b", "llama-3.1-8b"])
def test_an_8b_qlora_is_planned_to_fit_a_mac_of_16_gb_and_says_so(name: str) -> None:
    model = base(name)
    found = planned(model, MAC_16_GB)
    assert found.settings["grad_checkpoint"] and found.needed_bytes <= MAC_16_GB
    assert int(found.settings["batch_size"]) * int(found.settings["grad_accumulation_steps"]) == 4
    assert found.notes[0].startswith(
        "activations are computed twice (grad_checkpoint): kept, a step would take "
    )
    assert found.notes[-1].endswith("of the 11.5 GB that may be taken")
    assert needed(model, dict(found.settings)) == found.needed_bytes
    assert planned(model, 10**12).settings == DEFAULTS  # nothing is chosen where there is room


def test_what_costs_least_is_chosen_first_and_the_step_stays_the_same() -> None:
    model, long = base("qwen3-0.6b"), 8192
    light = {**LIGHT, "max_seq_length": long, "grad_accumulation_steps": 2}
    limits = [needed(model, {**light, "batch_size": rows}) + 1000 for rows in (6, 3, 2, 1)]
    asked = {"batch_size": 6, "grad_accumulation_steps": 2, "max_seq_length": long}
    chosen = [planned(model, limit, **asked).settings for limit in limits]
    sizes = [(one["batch_size"], one["grad_accumulation_steps"]) for one in chosen]
    assert sizes == [(6, 2), (3, 4), (2, 6), (1, 12)]
    assert all(one["grad_checkpoint"] and one["optimizer_bits"] == "32" for one in chosen)
    full = {**LIGHT, "method": "full", "max_seq_length": 32}
    whole, packed = (needed(model, {**full, "optimizer_bits": bits}) for bits in ("32", "8"))
    assert packed < whole
    found = planned(model, (packed + whole) // 2, method="full", max_seq_length=32, batch_size=1)
    assert found.settings["optimizer_bits"] == "8" and "8 bits (optimizer_bits)" in found.notes[-2]


def test_what_the_user_set_stays() -> None:
    model, limit = base("qwen3-8b"), 30 * 10**9
    found = planned(model, limit, ("grad_checkpoint",))
    assert not found.settings["grad_checkpoint"] and found.settings["batch_size"] == 1
    with pytest.raises(MemoryLimitError):
        planned(model, 6 * 10**9, ("grad_checkpoint",))


def test_a_refusal_names_the_longest_rows_that_fit() -> None:
    model = base("qwen3-8b")
    with pytest.raises(MemoryLimitError, match="max_seq_length=") as refused:
        planned(model, 7 * 10**9, max_seq_length=32_768)
    longest = int(str(refused.value).rsplit("max_seq_length=")[-1].split()[0])
    assert 256 < longest < 32_768
    assert planned(model, 7 * 10**9, max_seq_length=longest).needed_bytes <= 7 * 10**9
    with pytest.raises(MemoryLimitError):
        planned(model, 7 * 10**9, max_seq_length=longest + 32)
    with pytest.raises(MemoryLimitError, match="choose a smaller base"):
        planned(model, 4 * 10**9)


def test_answers_that_the_model_writes_itself_count_however_short_the_prompts_are() -> None:
    model, lengths = base("qwen3-8b"), [40] * 100
    grpo = {
        "objective": "grpo",
        "reward": "exact",
        "max_completion_length": 512,
        "max_seq_length": 256,
        "num_generations": 4,
        "packs": False,
    }
    told = planned(model, 0, lengths=lengths, **grpo).needed_bytes
    assert told > planned(model, 0, lengths=[552] * 100, max_seq_length=552, batch_size=4).needed_bytes
    for more in ({"num_generations": 16}, {"max_completion_length": 1024}):
        assert planned(model, 0, lengths=lengths, **{**grpo, **more}).needed_bytes > told
    split = planned(model, MAC_16_GB, lengths=lengths, **grpo)
    assert split.needed_bytes <= MAC_16_GB < told
    rows = int(split.settings["batch_size"]) * int(split.settings["grad_accumulation_steps"])
    assert rows == DEFAULTS["batch_size"] and split.settings["num_generations"] == 4
    with pytest.raises(
        MemoryLimitError, match=r"max_completion_length=512, .* max_completion_length=\d+ would"
    ) as refused:
        planned(model, 6 * 10**9, lengths=lengths, **grpo)
    fits = int(str(refused.value).rsplit("max_completion_length=")[-1].split()[0])
    assert planned(model, 6 * 10**9, lengths=lengths, **{**grpo, "max_completion_length": fits})


def test_a_teacher_stands_beside_what_learns_or_is_asked_before() -> None:
    model, large = base("qwen3-0.6b"), base("qwen3-8b")
    settings = checked({"objective": "distill", "teacher": "qwen3-8b"})
    alone = needed(model, settings)
    beside = needed_bytes(model, settings, device=METAL, beside=Beside(large, stays=True))
    before = needed_bytes(model, settings, device=METAL, beside=Beside(large, stays=False))
    assert beside > alone + large.weight_bytes
    assert model.weight_bytes + large.weight_bytes < before < beside


def test_rows_that_are_short_take_less() -> None:
    model = base("qwen3-8b")
    whole = planned(model, 10**12, pack="no")
    short = plan(model, DEFAULTS, 10**12, lengths=[100, 90, 300], packs=False, device=METAL)
    packed = plan(model, DEFAULTS, 10**12, lengths=[100, 90, 300], packs=True, device=METAL)
    assert packed.needed_bytes < short.needed_bytes < whole.needed_bytes  # no padding


def test_preference_rows_are_two() -> None:
    model = base("qwen3-0.6b")
    pairs = needed(model, {**LIGHT, "objective": "dpo"})
    assert pairs == needed(model, {**LIGHT, "batch_size": 2})


def test_memory_is_an_amount_and_bounds_what_the_machine_allows() -> None:
    assert parse_memory("12GB") == 12 * 10**9 and parse_memory(" 800 mb ") == 800 * 10**6
    assert parse_memory("1,5g") == 1_500_000_000 and parse_memory("1.5GiB") == 3 * 2**29
    for wrong in ("", "12", "0GB", "-1GB", "much", "GB", "1e9"):
        with pytest.raises(OptionError, match="expected an amount such as 12GB or 800MB"):
            parse_memory(wrong)
    model = base("qwen3-0.6b")
    assert planned(model, 10**12, memory="3GB").limit_bytes == 3 * 10**9
    assert planned(model, 2 * 10**9, memory="3GB").limit_bytes == 2 * 10**9
    assert planned(model, 0, memory="3GB").settings["grad_checkpoint"]
    assert "may take 3.0 GB by memory" in estimate(model, checked({"memory": "3GB"}), 10**11, METAL).sentence


def test_a_form_says_what_would_make_it_fit() -> None:
    model = base("qwen3-8b")
    found = estimate(model, DEFAULTS, MAC_16_GB, METAL)
    assert found.verdict == "too big" and "It would fit with grad_checkpoint on" in found.sentence
    changed = {**DEFAULTS, **found.remedy}
    assert estimate(model, changed, MAC_16_GB, METAL).verdict in ("fits", "tight")
    assert estimate(model, LIGHT, MAC_16_GB, METAL).verdict == "fits"
    short = estimate(model, DEFAULTS, MAC_16_GB, METAL, longest=100)
    assert short.needed_bytes < found.needed_bytes / 4
    assert (
        estimate(model, {**DEFAULTS, "pack": "yes"}, 0, METAL, longest=100).needed_bytes == found.needed_bytes
    )
    drawn = {**DEFAULTS, "objective": "grpo", "max_completion_length": 2048}
    found = estimate(model, drawn, int(6.5 * 10**9), METAL, longest=40)
    assert found.verdict == "too big" and 32 <= found.remedy["max_completion_length"] < 2048
    found = estimate(base("qwen3-8b", "16"), DEFAULTS, 8 * 10**9, METAL)
    assert found.verdict == "too big" and not found.remedy and "Choose a smaller base" in found.sentence


def test_without_a_machine_or_a_spec_it_says_what_it_knows() -> None:
    known = base("qwen3-0.6b")
    guessed = Base(known.weight_bytes, None, "a GGUF file, by its size")
    assert estimate(known, LIGHT, 0, METAL).verdict == "unknown"
    assert 0.4 < needed(guessed, LIGHT) / needed(known, LIGHT) < 2.5
    assert "about" in estimate(guessed, LIGHT, 10**11).sentence


def test_packed_weights_are_expanded_on_a_cpu_that_has_room() -> None:
    model = base("qwen3-0.6b")
    assert model.spec is not None
    plain = model.spec.parameters * 4
    assert held_weights(model.spec, model.weight_bytes, 2 * plain, CPU) == (plain, False)
    assert held_weights(model.spec, model.weight_bytes, 2 * plain - 2, CPU) == (model.weight_bytes, True)
    assert held_weights(model.spec, model.weight_bytes, 10**12, METAL) == (model.weight_bytes, True)


def test_a_base_is_read_from_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no weights in this folder"):
        read_base(tmp_path)
    with (tmp_path / "model.safetensors").open("wb") as file:
        os.truncate(file.fileno(), 5000)
    config = tmp_path / "config.json"
    config.write_text((CONFIGS / "qwen3-0.6b.json").read_text())
    found = read_base(tmp_path)
    assert found.weight_bytes == 5000 and found.spec is not None and found.spec.family == "qwen3"
    config.write_text('{"model_type": "mamba"}')
    assert read_base(tmp_path).spec is None
    config.write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        read_base(tmp_path)
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"GGUF")
    assert read_base(gguf).weight_bytes == 4


@pytest.mark.parametrize("name", ["qwen3-8b", "qwen3-30b-a3b", "smollm2-135m"])
@pytest.mark.parametrize(
    "targets", ["all", "attention", "mlp", "q_proj,v_proj", "mixer.o", "layers.0.mixer.*"]
)
def test_what_has_an_adapter_is_what_is_selected(name: str, targets: str) -> None:
    spec = base(name).spec
    assert spec is not None
    assert adapted(spec, targets, -1) == select(spec, (targets,), -1)
    assert adapted(spec, "all", 3) == select(spec, ("all",), 3)
