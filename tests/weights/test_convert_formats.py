"""Conversion of model folders: every packing, read back by macllm and by mlx-lm with the same logits."""

from pathlib import Path

import mlx.core as mx
import pytest
import tiny
from conversions import IDS, config, macllm_logits, mlx_lm_logits, same_tensors, sha256, tensors

from macllm.nn.stored import Packed
from macllm.quantization import AFFINE_BITS, AFFINE_GROUPS
from macllm.weights.convert import convert
from macllm.weights.model_files import open_model
from macllm.weights.plan import Target

AFFINE = [Target(bits=bits, group_size=group) for bits in AFFINE_BITS for group in AFFINE_GROUPS]
OTHERS = [Target(mode="mxfp4"), Target(mode="mxfp8"), Target(mode="nvfp4")]
# of gemma3 the variant whose every second layer is full: mlx-lm needs one full layer
FAMILIES = ["llama", "llama-biases", "qwen2-tied", "qwen3", "gemma3-pattern"]

# what mlx-lm's classes stumble with
CLASS_FAILS = (ArithmeticError, AttributeError, IndexError, SystemExit, TypeError, ValueError)


def named(target: Target) -> str:
    return f"{target.base}".replace(", groups of ", "-g").replace(" ", "-")


@pytest.fixture(scope="module")
def llama() -> Path:
    return tiny.reference("llama-tied", wide=True).folder


@pytest.mark.parametrize("target", [*AFFINE, *OTHERS], ids=named)
def test_mlx_lm_loads_every_packing_with_the_same_logits(target: Target, llama: Path, tmp_path: Path) -> None:
    done = convert(llama, tmp_path / "out", target)
    entry = config(done.path)["quantization"]
    assert entry == config(done.path)["quantization_config"]
    assert (entry["bits"], entry["group_size"], entry["mode"]) == (
        target.base.bits,
        target.base.group_size,
        target.base.mode,
    )
    theirs, ours = mlx_lm_logits(done.path), macllm_logits(done.path)
    assert tiny.difference(ours, theirs) < 1e-5
    assert tiny.difference(ours, macllm_logits(llama)) > 1e-4  # it is quantized


@pytest.mark.parametrize("variant", FAMILIES)
@pytest.mark.parametrize("target", [Target(), Target(bits=4), Target(bits=8, group_size=32)], ids=str)
def test_mlx_lm_loads_every_family(variant: str, target: Target, tmp_path: Path) -> None:
    done = convert(tiny.reference(variant, wide=True).folder, tmp_path / "out", target)
    assert tiny.difference(macllm_logits(done.path), mlx_lm_logits(done.path)) < 1e-5


@pytest.mark.parametrize("variant", ["llama3-rope", "qwen2", "gemma3-pattern", "llama-linear-rope"])
def test_configs_of_transformers_5_are_read_alike_by_mlx_lm(variant: str, tmp_path: Path) -> None:
    """Its ``rope_parameters`` are passed over by mlx-lm; what is written, it reads."""
    source = tiny.reference(variant, wide=True)
    done = convert(source.folder, tmp_path / "out")
    assert tiny.difference(mlx_lm_logits(done.path), source.logits([IDS])) < 1e-4
    assert tiny.difference(macllm_logits(done.path), source.logits([IDS])) < 1e-4


def test_two_ropes_of_transformers_5_become_the_older_keys(tmp_path: Path) -> None:
    source = tiny.reference("gemma3-linear-rope").folder
    assert "rope_parameters" in config(source)
    written = config(convert(source, tmp_path / "out").path)
    assert "rope_parameters" not in written
    assert written["rope_theta"] == 500000.0
    assert written["rope_local_base_freq"] == 10000.0
    assert written["rope_scaling"] == {"type": "linear", "rope_type": "linear", "factor": 8.0}
    assert written["sliding_window_pattern"] == 6


@pytest.mark.parametrize(
    "settings", [{"bits": 3, "group_size": 32}, {"bits": 8}, {"mode": "mxfp4"}, {"mode": "nvfp4"}]
)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_numbers_are_those_that_mlx_lm_writes(settings: dict, dtype: str, tmp_path: Path) -> None:
    tiny.write_with_mlx_lm("llama", tmp_path / "theirs", dtype=dtype, **settings)
    source = tiny.reference("llama", wide=True).folder
    ours = convert(source, tmp_path / "ours", Target(dtype=dtype, **settings)).path
    assert same_tensors(tensors(ours), tensors(tmp_path / "theirs"))


@pytest.mark.parametrize("settings", [{}, {"bits": 5, "group_size": 32}, {"mode": "mxfp8"}])
def test_what_mlx_lm_writes_is_taken_over_as_it_is(settings: dict, tmp_path: Path) -> None:
    model = tiny.write_with_mlx_lm("qwen3", tmp_path / "theirs", **settings)
    ours = convert(tmp_path / "theirs", tmp_path / "ours").path
    assert same_tensors(tensors(ours), tensors(tmp_path / "theirs"))
    expected = model(mx.array([IDS])).astype(mx.float32)
    assert tiny.difference(macllm_logits(ours), expected) < 1e-5
    assert tiny.difference(mlx_lm_logits(ours), expected) < 1e-5


@pytest.mark.parametrize("variant", tiny.variants_by_pace())
def test_nothing_asked_changes_no_number(variant: str, tmp_path: Path) -> None:
    """The same tensors, or where MLX's tools lay them out otherwise, the same model."""
    source = tiny.reference(variant).folder
    done = convert(source, tmp_path / "out")
    here, there = open_model(source), open_model(done.path)
    if list(here.naming.relations()) == list(there.naming.relations()):
        assert same_tensors(tensors(done.path), tensors(source))
    assert tiny.difference(macllm_logits(done.path), macllm_logits(source)) < 1e-6
    again = convert(done.path, tmp_path / "again")
    assert same_tensors(tensors(again.path), tensors(done.path))


@pytest.mark.parametrize("variant", tiny.variants_by_pace())
def test_mlx_lm_reads_what_is_converted(variant: str, tmp_path: Path) -> None:
    """With the original's logits; where its class cannot, that is shown, so that nobody relies on it."""
    source = tiny.reference(variant)
    done = convert(source.folder, tmp_path / "out")
    try:
        found = mlx_lm_logits(done.path)
    except CLASS_FAILS as error:
        assert variant in tiny.BEYOND_MLX_LM, error
        return
    difference = tiny.difference(found, source.logits([IDS]))
    assert (difference < 1e-4) == (variant not in tiny.BEYOND_MLX_LM), difference


@pytest.mark.parametrize("variant", tiny.first_variants())
def test_what_mlx_lm_keeps_is_read(variant: str, tmp_path: Path) -> None:
    """A folder that mlx-lm loaded and saved: the original, or where its class knows no names but its own, ours.

    What its class drops is gone: then it means what it means to mlx-lm.
    """
    from mlx_lm.utils import load_model, save_config, save_model

    source = tiny.reference(variant)
    done = convert(source.folder, tmp_path / "out")
    values, model = config(done.path), None
    for folder in (source.folder, done.path):
        try:
            model, _ = load_model(folder, model_config=values)
            break
        except CLASS_FAILS as error:
            failure = error
    if model is None:
        assert variant in tiny.BEYOND_MLX_LM, failure
        return
    save_model(tmp_path, model)
    save_config(values, tmp_path / "config.json")
    found = macllm_logits(tmp_path)
    if tiny.difference(found, source.logits([IDS])) >= 1e-4:
        assert variant in tiny.BEYOND_MLX_LM
        assert tiny.difference(found, mlx_lm_logits(tmp_path)) < 1e-4


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_plain_tensor_comes_in_the_type_asked_for(dtype: str, tmp_path: Path) -> None:
    done = convert(tiny.reference("llama", wide=True).folder, tmp_path / "out", Target(dtype=dtype))
    source = tensors(tiny.reference("llama", wide=True).folder)
    kind = getattr(mx, dtype)
    for name, array in tensors(done.path).items():
        assert array.dtype == kind
        assert mx.array_equal(array, source[name].astype(kind))
    assert config(done.path)["torch_dtype"] == dtype
    assert "dtype" not in config(done.path)


@pytest.mark.parametrize(
    ("variant", "ending"),
    [("deepseek-v3", "correction_bias"), ("lfm2-moe", "expert_bias"), ("qwen3-5", "A_log")],
)
def test_what_must_be_precise_keeps_its_type(variant: str, ending: str, tmp_path: Path) -> None:
    """Sixteen bits would choose other experts, and let states last otherwise."""
    source = tiny.reference(variant).folder
    written = tensors(convert(source, tmp_path / "out", Target(dtype="bfloat16")).path)
    kept = {name: array for name, array in written.items() if array.dtype == mx.float32}
    assert kept
    assert all(name.endswith(ending) for name in kept)
    original = tensors(source)
    assert all(mx.array_equal(array, original[name]) for name, array in kept.items())


@pytest.mark.parametrize(
    ("variant", "settings", "expected"),
    [
        ("llama", {"bits": 4}, mx.float16),
        ("gemma3", {"bits": 4}, mx.bfloat16),  # its activations overflow float16
        ("llama", {"mode": "mxfp4"}, mx.bfloat16),  # what MLX expands it to
        ("llama", {"bits": 4, "dtype": "bfloat16"}, mx.bfloat16),
    ],
)
def test_a_quantized_model_has_one_type(
    variant: str, settings: dict, expected: mx.Dtype, tmp_path: Path
) -> None:
    """Two would be promoted to float32 by readers that compute in the file's types."""
    done = convert(tiny.reference(variant, wide=True).folder, tmp_path / "out", Target(**settings))
    found = {array.dtype for array in tensors(done.path).values()} - {mx.uint32, mx.uint8}
    assert found == {expected}


@pytest.mark.parametrize(
    "target", [Target(bits=4), Target(mode="nvfp4"), Target(recipe="mixed_3_6"), Target()], ids=str
)
def test_converting_again_gives_the_same_bytes(target: Target, tmp_path: Path) -> None:
    once = convert(tiny.reference("qwen2", wide=True).folder, tmp_path / "once", target).path
    for number, again in enumerate((target, Target(), Target(dtype=target.dtype, quantize=target.quantize))):
        twice = convert(once, tmp_path / f"twice{number}", again).path
        assert sha256(twice) == sha256(once)


@pytest.mark.parametrize("settings", [{"bits": 4}, {"bits": 8, "group_size": 32}, {"mode": "mxfp8"}])
def test_dequantize_writes_the_values_that_the_codes_stand_for(settings: dict, tmp_path: Path) -> None:
    packed = convert(tiny.reference("llama", wide=True).folder, tmp_path / "packed", Target(**settings)).path
    plain = convert(packed, tmp_path / "plain", Target(dequantize=True, dtype="float32"))
    assert "quantization" not in config(plain.path)
    assert "quantization_config" not in config(plain.path)
    assert plain.quantization.default is None
    assert tiny.difference(macllm_logits(plain.path), macllm_logits(packed)) < 1e-5
    assert tiny.difference(mlx_lm_logits(plain.path), macllm_logits(packed)) < 1e-5
    half = convert(packed, tmp_path / "half", Target(dequantize=True)).path
    assert {array.dtype for array in tensors(half).values()} == {
        mx.float16 if "bits" in settings else mx.bfloat16
    }


def test_a_width_that_is_no_multiple_of_the_group_stays_plain_and_is_named(tmp_path: Path) -> None:
    done = convert(tiny.reference("llama").folder, tmp_path / "out", Target(mode="nvfp4"))  # 48 and 80 wide
    assert not done.quantized
    assert not done.quantization.to_config()
    done = convert(tiny.reference("llama-head-dim").folder, tmp_path / "other", Target(bits=8, group_size=32))
    assert len(done.quantized) == 3  # o reads 6 heads of 16
    assert all(name.endswith("o_proj.weight") for name in done.quantized)
    assert "not quantized" in done.notices[0]
    assert "model.embed_tokens" in done.notices[0]
    entry = config(done.path)["quantization"]
    assert entry["model.embed_tokens"] is False
    assert tiny.difference(macllm_logits(done.path), mlx_lm_logits(done.path)) < 1e-5


@pytest.mark.parametrize("name", ["mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"])
def test_recipes_choose_as_mlx_lm_does(name: str, tmp_path: Path) -> None:
    from mlx_lm.convert import mixed_quant_predicate_builder
    from mlx_lm.utils import load_model

    source = tiny.reference("gemma3-pattern", wide=True).folder
    done = convert(source, tmp_path / "out", Target(recipe=name))
    theirs, _ = load_model(done.path)
    predicate = mixed_quant_predicate_builder(name, theirs, 64)
    files = open_model(done.path)
    checkpoint = files.checkpoint(mx.float32)
    found = set()
    for stored in checkpoint.names():
        tensor = checkpoint.read(stored)
        if isinstance(tensor, Packed):
            expected = predicate(stored.removesuffix(".weight"), None)
            assert tensor.quantization.bits == expected["bits"]
            assert tensor.quantization.group_size == expected["group_size"]
            found.add(tensor.quantization.bits)
    assert len(found) == 2
    assert tiny.difference(macllm_logits(done.path), mlx_lm_logits(done.path)) < 1e-5


def test_exceptions_of_a_quantized_folder_stay_as_they_are(tmp_path: Path) -> None:
    """Per-layer bits, and a matrix that was left plain, which -q quantizes."""

    def predicate(path: str, module: object) -> bool | dict:
        if path.endswith("v_proj"):
            return {"bits": 8, "group_size": 32}
        return not path.endswith("layers.1.mlp.up_proj")

    tiny.write_with_mlx_lm("llama", tmp_path / "theirs", bits=4, dtype="float16", predicate=predicate)
    same = convert(tmp_path / "theirs", tmp_path / "same")
    assert same_tensors(tensors(same.path), tensors(tmp_path / "theirs"))
    assert tiny.difference(macllm_logits(same.path), macllm_logits(tmp_path / "theirs")) == 0
    more = convert(tmp_path / "theirs", tmp_path / "more", Target(bits=4))
    assert more.quantized == ("model.layers.1.mlp.up_proj.weight",)
    assert "v_proj" in more.notices[0]
    before, after = tensors(tmp_path / "theirs"), tensors(more.path)
    changed = {"model.layers.1.mlp.up_proj.weight"}
    assert all(mx.array_equal(array, after[name]) for name, array in before.items() if name not in changed)
    assert tiny.difference(macllm_logits(more.path), mlx_lm_logits(more.path)) < 1e-5
