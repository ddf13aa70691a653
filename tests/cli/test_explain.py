"""``macllm explain``: the promised facts against files and caches, the diagram, the table, bad input."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from tiny import config_of, decoder, reference, tokens, variants, write_with_mlx_lm

sys.path.insert(0, str(Path(__file__).parent.parent / "hub"))
sys.path.insert(0, str(Path(__file__).parent.parent / "weights"))

from gguf_maker import make_gguf
from hub_server import Hub

from macllm import sizes
from macllm.cli.explain import diagram
from macllm.cli.main import main
from macllm.describe import block_name, block_words
from macllm.explain import MACS_GB, explain, usable_bytes
from macllm.families import spec_from_config
from macllm.tune.memory import least_bytes
from macllm.weights.model_files import open_model

CONFIGS = Path(__file__).parent.parent / "configs"
PROMISED = [
    "family",
    "native",
    "layers",
    "parameters",
    "weight_bytes",
    "kv_bytes_per_token",
    "max_context",
    "rewindable",
    "trainable_memory",
]
Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command and gives what it prints; ``code`` is the exit code it must have."""

    def explain_command(*words: str | Path, code: int = 0) -> str:
        capsys.readouterr()  # what preparations wrote
        assert main(["explain", *map(str, words)]) == code
        out, err = capsys.readouterr()
        assert (out == "") == (code != 0)
        assert len(err.splitlines()) == (1 if code else 0)
        return err if code else out

    return explain_command


def folder_of(path: Path, **config: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    return path


def real(path: Path, name: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    shutil.copy(CONFIGS / f"{name}.json", path / "config.json")
    return path


def facts(run: Run, *words: str | Path) -> dict[str, Any]:
    return json.loads(run(*words, "--json"))


# -- facts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama-3.1-8b", ("llama", True, 32, 8_030_261_248, 16_060_522_496, 131_072, 131_072, True)),
        ("qwen3-0.6b", ("qwen3", True, 28, 596_049_920, 1_192_099_840, 114_688, 40_960, True)),
        ("gemma-3-1b-it", ("gemma3_text", True, 26, 999_885_952, 1_999_771_904, 26_624, 32_768, True)),
    ],
)
def test_a_config_alone_is_enough(name: str, expected: tuple, tmp_path: Path, run: Run) -> None:
    found = facts(run, real(tmp_path / "model", name))
    assert list(found)[: len(PROMISED)] == PROMISED
    assert tuple(found[key] for key in PROMISED[:-1]) == expected
    spec = spec_from_config(json.loads((CONFIGS / f"{name}.json").read_text()))
    assert found["trainable_memory"] == least_bytes(spec, found["weight_bytes"])


@pytest.mark.parametrize("variant", ["llama", "gemma3", "qwen2-window"])
def test_kv_bytes_are_those_of_built_caches(variant: str, run: Run) -> None:
    folder = reference(variant).folder
    model = decoder(folder)
    for count in (1, 20):
        caches = model.make_caches()
        model(mx.array([tokens(count)]), caches)
        found = facts(run, folder, "--context", count)
        assert found["kv_bytes"] == sum(cache.nbytes for cache in caches) // 2  # float32 there, 16 bits here
        assert found["context"] == count
    assert found["kv_bytes_per_token"] == sizes.kv_bytes_per_token(model.spec)


@pytest.mark.parametrize(
    "quantization",
    [{}, {"bits": 4}, {"bits": 6, "group_size": 32}, {"mode": "mxfp4"}, {"mode": "nvfp4"}],
    ids=str,
)
@pytest.mark.parametrize("variant", ["llama-biases", "qwen2-tied"])
def test_weight_bytes_are_those_of_the_files(
    variant: str, quantization: dict[str, Any], tmp_path: Path, run: Run
) -> None:
    """With the weights there, and with the config alone."""
    write_with_mlx_lm(variant, tmp_path / "m", dtype="float16", **quantization)
    written = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())["metadata"]
    whole = facts(run, tmp_path / "m")
    for file in (tmp_path / "m").glob("model*"):
        file.unlink()
    alone = facts(run, tmp_path / "m")
    assert whole["weight_bytes"] == alone["weight_bytes"] == written["total_size"]
    assert whole["parameters"] == alone["parameters"] == written["total_parameters"]
    assert sum(group["bytes"] for group in whole["placements"]) == written["total_size"]


def test_the_files_know_better_than_the_config(tmp_path: Path, run: Run) -> None:
    """A matrix that mlx-lm left plain without a word in the config."""
    write_with_mlx_lm("llama", tmp_path, dtype="float16", bits=4, predicate=lambda path, _: "mlp" not in path)
    total = json.loads((tmp_path / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
    assert facts(run, tmp_path)["weight_bytes"] == total


@pytest.mark.parametrize(
    ("dtype", "width"), [("float32", 4), ("bfloat16", 2), ("torch.float16", 2), (None, 2)]
)
def test_a_plain_models_bytes_follow_its_type(
    dtype: str | None, width: int, tmp_path: Path, run: Run
) -> None:
    for key in ("dtype", "torch_dtype"):
        found = facts(run, folder_of(tmp_path, **config_of("llama"), **{key: dtype}))
        assert found["weight_bytes"] == found["parameters"] * width


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q6_K", "Q4_K", "F16"])
def test_a_gguf_says_what_becomes_of_each_type(kind: str, tmp_path: Path, run: Run) -> None:
    path = make_gguf(tmp_path / "tiny.gguf", "llama", kind).path
    found = facts(run, path)
    assert (found["family"], found["native"]) == ("llama", True)
    assert found["weight_bytes"] < path.stat().st_size
    words = {group["format"]: group["placement"] for group in found["placements"]}
    assert words["F32"] == "kept as stored"
    expected = {
        "Q4_0": "repacked exactly as affine 4-bit g32",
        "Q8_0": "repacked exactly as affine 8-bit g32",
        "Q6_K": "dequantized to",
        "Q4_K": "repacked as affine 4-bit g32",
        "F16": "kept as stored",
    }
    assert words[kind].startswith(expected[kind])
    assert expected[kind] in run(path)


def test_memory_of_a_gguf_counts_what_it_becomes(tmp_path: Path) -> None:
    """A type that is dequantized takes 16 bits a weight, one that is repacked about its own bytes."""
    six = explain(open_model(make_gguf(tmp_path / "six.gguf", "llama", "Q6_K").path))
    four = explain(open_model(make_gguf(tmp_path / "four.gguf", "llama", "Q4_0").path))
    assert "stored" not in six.needed_bytes  # the same as in 16 bits
    assert four.needed_bytes["stored"] < four.needed_bytes["8"] < four.needed_bytes["16"]


# -- other architectures ---------------------------------------------------------------------------------------

FOREIGN = {
    "model_type": "nemotron",
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}


def test_an_architecture_of_mlx_lm_is_named_as_such(tmp_path: Path, run: Run) -> None:
    found = facts(run, folder_of(tmp_path, **FOREIGN))
    assert (found["family"], found["native"], found["layers"]) == ("nemotron", False, 2)
    assert (found["max_context"], found["kv_bytes_per_token"]) == (4096, 2 * 2 * 2 * 16 * 2)
    for unknown in ("parameters", "weight_bytes", "rewindable", "trainable_memory"):
        assert found[unknown] is None
    assert "run by mlx-lm's classes" in run(tmp_path)


def test_its_files_tell_its_size(tmp_path: Path, run: Run) -> None:
    arrays = {"a.weight": mx.zeros((64, 64), mx.float16), "b.weight": mx.zeros((8,), mx.float32)}
    mx.save_safetensors(str(folder_of(tmp_path, **FOREIGN) / "model.safetensors"), arrays)
    found = facts(run, tmp_path)
    assert (found["parameters"], found["weight_bytes"]) == (64 * 64 + 8, 64 * 64 * 2 + 32)
    assert found["fits"][0]["contexts"]["16"] == 4096
    assert found["fits"][0]["qlora"] is None
    assert "?" in run(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"kv_lora_rank": 512}, {"mamba_d_ssm": 16}, {"layer_types": ["linear_attention"] * 2}]
)
def test_what_cannot_be_known_is_null(changes: dict[str, Any], tmp_path: Path, run: Run) -> None:
    assert facts(run, folder_of(tmp_path, **FOREIGN, **changes))["kv_bytes_per_token"] is None


def test_the_text_part_of_a_larger_model_is_read(tmp_path: Path, run: Run) -> None:
    found = facts(
        run,
        folder_of(
            tmp_path,
            model_type="gemma3",
            text_config={
                **FOREIGN,
                "layer_types": ["full_attention", "sliding_attention"],
                "sliding_window": 100,
            },
        ),
    )
    assert (found["family"], found["layers"]) == ("gemma3", 2)
    assert found["kv_bytes"] == 2 * 2 * 16 * 2 * (4096 + 100)


def test_weights_that_cannot_be_read_do_not_hide_the_rest(tmp_path: Path, run: Run) -> None:
    (folder_of(tmp_path, **config_of("llama")) / "model.safetensors").write_bytes(b"version https://git-lfs")
    found = facts(run, tmp_path)
    assert found["parameters"] > 0
    assert "not a whole safetensors file" in found["notes"][0]
    assert "not a whole safetensors file" in " ".join(run(tmp_path).split())


# -- what fits -------------------------------------------------------------------------------------------------


def test_what_fits_is_the_arithmetic(tmp_path: Path, run: Run) -> None:
    spec = spec_from_config(json.loads((CONFIGS / "llama-3.1-8b.json").read_text()))
    found = facts(run, real(tmp_path, "llama-3.1-8b"))
    assert [fit["memory_gb"] for fit in found["fits"]] == list(MACS_GB)
    weights = {"16": 16_060_522_496, "8": spec.parameters * 8.5 / 8, "4": spec.parameters * 4.5 / 8}
    for fit in found["fits"]:
        assert fit["usable_bytes"] == usable_bytes(fit["memory_gb"])
        for key, context in fit["contexts"].items():
            count = found["needed_bytes"][key] - found["kv_bytes"] - sizes.working_bytes(spec, 0, 0)
            assert count == pytest.approx(weights[key], rel=0.001)
            assert sizes.working_bytes(spec, count, context) <= fit["usable_bytes"] or context == 0
            if 0 < context < found["max_context"]:
                assert sizes.working_bytes(spec, count, context + 1) > fit["usable_bytes"]
            if context == 0:  # not even the least that is of use
                assert sizes.working_bytes(spec, count, 1024) > fit["usable_bytes"]
    by_memory = {fit["memory_gb"]: fit for fit in found["fits"]}
    assert by_memory[8]["contexts"]["16"] == by_memory[8]["contexts"]["8"] == 0
    assert by_memory[8]["contexts"]["4"] > 4096
    assert (by_memory[8]["qlora"], by_memory[16]["qlora"]) == (False, True)


def test_usable_memory_is_metals_default() -> None:
    """What machines report: 5.33 GiB of 8, 10.67 of 16, 21.33 of 32; 48 of 64 and 96 of 128."""
    assert [round(usable_bytes(memory) / 2**30, 2) for memory in (8, 16, 32, 64, 128)] == [
        5.33,
        10.67,
        21.33,
        48,
        96,
    ]


def test_context_changes_the_table(tmp_path: Path, run: Run) -> None:
    folder = real(tmp_path, "llama-3.1-8b")
    longest, at_8k = run(folder), run(folder, "--context", "8192")
    rows = {line.split()[0]: line.split()[4:] for line in at_8k.splitlines() if " GB  " in line}
    assert rows["8"] == ["-", "-", "5.7", "GB", "-"]
    assert rows["16"] == ["-", "9.7", "GB", "5.7", "GB", "fits"]
    assert "The longest context" in longest
    assert " 20k " in longest


def test_an_installed_quantization_has_a_column_of_its_own(tmp_path: Path, run: Run) -> None:
    folder = folder_of(tmp_path, **config_of("llama", wide=True), quantization={"group_size": 64, "bits": 4})
    assert "as is" in run(folder)
    assert "as is" not in run(reference("llama").folder)


# -- text ------------------------------------------------------------------------------------------------------


def test_layers_are_folded_into_runs(tmp_path: Path, run: Run) -> None:
    out = run(real(tmp_path / "gemma-3-1b", "gemma-3-1b-it"))
    assert out.startswith("gemma-3-1b  (gemma3_text, native)\n")  # a folder's whole name, its dots too
    text = " ".join(out.split())
    assert "0-4 sliding 512 | 5 full | 6-10 sliding 512 | 11 full |" in text
    assert "sliding 512: 22 layers" in text
    assert "norm ─ attention ─ norm" in text
    assert "rope 1,000,000" in text
    assert "times 33.94, also the head" in text


# without those of a quantization that is refused by name
@pytest.mark.parametrize(
    "name", sorted(path.stem for path in CONFIGS.glob("*.json") if '"fp8"' not in path.read_text())
)
def test_text_fits_eighty_columns(name: str, tmp_path: Path, run: Run) -> None:
    for words in ([], ["--context", "1000"]):
        assert max(map(len, run(real(tmp_path, name), *words).splitlines())) <= 80


@pytest.mark.parametrize("variant", variants())
def test_every_model_is_drawn(variant: str) -> None:
    spec = spec_from_config(config_of(variant))
    lines = diagram(spec)
    assert max(map(len, lines)) <= 80
    for layer in spec.layers:
        for block in (layer.mixer, layer.channel):
            assert block is None or any(block_name(block) in line for line in lines)


def test_blocks_are_described() -> None:
    layer = spec_from_config(config_of("qwen2-yarn")).layers[0]
    assert block_words(layer.mixer) == (
        "6 heads of 8 on 2 kv heads, all tokens, rope 10,000 stretched 4 times (yarn), biases on q, k and v"
    )
    assert block_words(layer.channel) == "48 → 80 → 48, silu-gated"
    layer = spec_from_config(config_of("llama-biases")).layers[0]
    assert "biases on q, k, v and o" in block_words(layer.mixer)
    assert block_words(layer.channel).endswith("biases")
    one = spec_from_config({**config_of("llama-multi-query"), "num_hidden_layers": 1})
    assert "  layer   0" in diagram(one)
    assert any("on 1 kv head," in line for line in diagram(one))


# -- names, repositories, bad input ----------------------------------------------------------------------------


def test_an_installed_model_is_found_by_its_name(tmp_path: Path, run: Run) -> None:
    folder = real(tmp_path / "somewhere", "qwen3-0.6b")
    assert main(["pull", str(folder), "--name", "mine"]) == 0
    assert facts(run, "mine")["parameters"] == 596_049_920
    assert run("mine").startswith("mine  (qwen3, native)")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    from huggingface_hub import constants

    server = Hub()
    server.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.stop()


def test_of_a_repository_only_the_config_is_fetched(hub: Hub, run: Run) -> None:
    config = (CONFIGS / "qwen3-8b.json").read_bytes()
    hub.add("org/model", {"config.json": config, "model.safetensors": bytes(100_000)})
    assert facts(run, "org/model")["parameters"] == 8_190_735_360
    assert run("org/model").startswith("org/model  (qwen3, native)")
    assert all("safetensors" not in request.path for request in hub.requests)
    assert any("config.json" in request.path for request in hub.requests)


def test_repositories_that_cannot_be_explained(hub: Hub, run: Run) -> None:
    hub.add("org/gguf", {"model-Q4_0.gguf": bytes(10)})
    hub.add("org/broken", {"config.json": b"{"})
    hub.add("org/list", {"config.json": b"[]"})
    assert "org/gguf has no config.json" in run("org/gguf", code=2)
    assert "not valid JSON" in run("org/broken", code=2)
    assert "not a JSON object" in run("org/list", code=2)
    assert "org/nothing does not exist" in run("org/nothing", code=2)
    assert "macllm pull" in run("org/gguf:Q4_0", code=2)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({**config_of("llama"), "hidden_act": "sine"}, "hidden_act='sine'"),
        ({**config_of("llama"), "quantization_config": {"quant_method": "gptq"}}, "'gptq'"),
        ({"hidden_size": 4}, "no 'model_type'"),
    ],
)
def test_a_config_that_is_not_supported_is_named(
    config: dict[str, Any], named: str, tmp_path: Path, run: Run
) -> None:
    assert named in run(folder_of(tmp_path, **config), code=2)


def test_bad_input_is_one_sentence(tmp_path: Path, run: Run) -> None:
    folder = folder_of(tmp_path / "model", **config_of("llama"))
    assert "from 1 to the model's 512" in run(folder, "--context", "513", code=2)
    assert "not a whole number of at least 1" in run(folder, "--context", "0", code=2)
    assert "no config.json" in run(tmp_path, code=2)
    assert "qwen3-0.6b" in run("qwen3-0.6", code=2)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert "x.gguf" in run(tmp_path / "x.gguf", code=2)
    assert "macllm pull starter" in run("starter", code=2)
