"""The plan of a conversion, and the layout of the files, as pure functions of sizes and names."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import tiny
from safetensors import safe_open

from macllm.families import spec_from_config
from macllm.quantization import Quantization, QuantizationPlan
from macllm.spec import ModelSpec
from macllm.weights.names import hugging_face
from macllm.weights.plan import Held, Target, decide, plan_for, recipe
from macllm.weights.save import Entry, PartialFolder, Unit, index_of, make_shards

FOUR, EIGHT = Quantization(4, 64), Quantization(8, 64)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return spec_from_config(tiny.config_of("llama", wide=True) | {"num_hidden_layers": 24})


def test_every_matrix_and_nothing_else_is_planned(spec: ModelSpec) -> None:
    plan = plan_for(spec, FOUR)
    assert set(plan) == {tensor.name for tensor in spec.tensors() if len(tensor.shape) == 2}
    assert set(plan.values()) == {FOUR}
    assert set(plan_for(spec, None).values()) == {None}


def test_a_predicate_chooses_for_each_matrix(spec: ModelSpec) -> None:
    plan = plan_for(spec, FOUR, lambda tensor: EIGHT if tensor.name == "head.weight" else FOUR)
    assert [name for name, q in plan.items() if q == EIGHT] == ["head.weight"]


def test_recipes_give_more_bits_to_the_ends_and_every_third_layer(spec: ModelSpec) -> None:
    plan = plan_for(spec, FOUR, recipe("mixed_3_6", spec, 64))
    more = {int(name.split(".")[1]) for name, q in plan.items() if "channel.down" in name and q.bits == 6}
    assert more == {0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23}
    assert {name for name, q in plan.items() if "mixer.v" in name and q.bits == 6} == {
        f"layers.{index}.mixer.v.weight" for index in more
    }
    assert plan["head.weight"].bits == 6
    assert plan["embed.weight"].bits == 3
    assert plan["layers.0.mixer.q.weight"].bits == 3


def test_the_config_names_the_exceptions_from_the_most_common(spec: ModelSpec) -> None:
    held = {name: Held() for name in plan_for(spec, None)}
    plan = decide(spec, Target(recipe="mixed_4_6"), held, "here").to_config(hugging_face(spec))
    assert plan.default == FOUR
    assert plan.exceptions["lm_head"] == Quantization(6, 64)
    assert "model.layers.0.self_attn.q_proj" not in plan.exceptions
    assert QuantizationPlan.from_config({"quantization": plan.to_config()}) == plan


def test_a_quantized_source_is_kept_where_most_of_it_is_what_was_asked_for(spec: ModelSpec) -> None:
    held = {name: Held(True, EIGHT if name == "embed.weight" else FOUR) for name in plan_for(spec, None)}
    plan = decide(spec, Target(bits=4), held, "here")
    assert plan.formats == {name: each.packing for name, each in held.items()}
    assert plan.unlike == ("embed.weight",)
    again = decide(spec, Target(bits=4, requantize=True), held, "here")
    assert again.requantized == ("embed.weight",)
    assert set(again.formats.values()) == {FOUR}


def unit(*entries: tuple[str, mx.Dtype, tuple[int, ...]]) -> Unit:
    return Unit(tuple(Entry(*entry) for entry in entries))


UNITS = [
    unit(
        ("a.weight", mx.uint32, (3, 5)), ("a.scales", mx.uint8, (3, 1))
    ),  # 3 bytes: nothing after is aligned
    unit(("b", mx.float16, (7,))),
    unit(("c", mx.float32, (2, 2))),
    unit(("d", mx.bfloat16, (1, 3))),
]


@pytest.mark.parametrize("limit", [1, 40, 90, 10_000])
def test_shards_hold_every_array_once_aligned_and_without_gaps(limit: int) -> None:
    shards = make_shards(UNITS, limit)
    entries = [entry for shard in shards for entry in shard.entries]
    assert sorted(entry.name for entry in entries) == ["a.scales", "a.weight", "b", "c", "d"]
    for shard in shards:
        at = len(shard.header)
        assert at % 8 == 0
        for entry in shard.entries:
            assert shard.offsets[entry.name] == at
            assert at % entry.dtype.size == 0
            at += entry.nbytes
        assert at == shard.nbytes
        of_units = [unit for unit in UNITS if unit.entries[0] in shard.entries]
        assert sum(unit.nbytes for unit in of_units) <= limit or len(of_units) == 1
    index = index_of(shards, 5)
    assert list(index["weight_map"]) == sorted(entry.name for entry in entries)
    assert index["metadata"] == {"total_size": sum(unit.nbytes for unit in UNITS), "total_parameters": 5}


@pytest.mark.parametrize("limit", [40, 10_000])
def test_other_readers_find_what_was_written_row_by_row(limit: int, tmp_path: Path) -> None:
    shards = make_shards(UNITS, limit)
    made = {
        entry.name: mx.random.randint(0, 200, entry.shape).astype(entry.dtype)
        for each in UNITS
        for entry in each.entries
    }
    with PartialFolder(tmp_path / "out", {"made": "here"}, UNITS, shards) as folder:
        for each in UNITS:
            rows = each.entries[0].shape[0]
            for start in range(0, rows, 2):
                folder.write_rows(
                    start, rows, {e.name: made[e.name][start : start + 2] for e in each.entries}
                )
            folder.finish_unit()
        folder.publish()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(s.name for s in shards)
    for shard in shards:
        loaded = mx.load(str(tmp_path / "out" / shard.name))
        for entry in shard.entries:
            assert loaded[entry.name].dtype == entry.dtype
            assert mx.array_equal(loaded[entry.name], made[entry.name])
        with safe_open(tmp_path / "out" / shard.name, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # it is no mapping
                values = opened.get_tensor(name).double().numpy()
                assert np.array_equal(values, np.array(made[name].astype(mx.float32)))


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    with PartialFolder(tmp_path / "out", {}, UNITS, make_shards(UNITS)):
        pass
    state = tmp_path / "out.partial" / "conversion.json"
    assert json.loads(state.read_text())["done"] == 0
    state.write_text("{")
    with pytest.raises(Exception, match=r"conversion.json: this state cannot be read; delete the folder"):
        PartialFolder(tmp_path / "out", {}, UNITS, make_shards(UNITS)).left_bytes()
