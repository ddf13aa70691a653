"""``macllm convert`` as a user types it: what it writes, says and refuses."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import tiny

from macllm.cli.main import main
from macllm.cli.progress import Progress


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with the small files that models come with."""
    folder = tmp_path_factory.mktemp("source")
    shutil.copytree(tiny.reference("llama", wide=True).folder, folder, dirs_exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        (folder / name).write_text("{}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{}")
    (folder / "modeling_custom.py").write_text("raise SystemExit")
    return folder


def run(*words: str | Path) -> int:
    return main(["convert", *map(str, words)])


def quantization(folder: Path) -> dict | None:
    return tiny.read_config(folder).get("quantization")


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 2) -> str:
    assert run(*words) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("macllm: ")]
    assert len(lines) == 1, err
    return lines[0]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], None),
        (["-q"], (4, 64, "affine")),
        (["--quantize", "--q-bits", "8"], (8, 64, "affine")),
        (["--q-bits", "3", "--q-group-size", "32"], (3, 32, "affine")),
        (["--q-mode", "nvfp4"], (4, 16, "nvfp4")),
        (["--quant-predicate", "mixed_2_6", "--q-group-size", "128"], (2, 128, "affine")),
        (["--q-bits", "6", "--dtype", "bfloat16"], (6, 64, "affine")),
    ],
)
def test_flags_are_mlx_lms(
    flags: list[str], expected: tuple | None, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(source, out, *flags) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{out}: ")
    assert printed.out.count("\n") == 1
    entry = quantization(out)
    assert (entry and (entry["bits"], entry["group_size"], entry["mode"])) == expected
    if "--dtype" in flags:
        assert mx.load(str(out / "model.safetensors"))["model.norm.weight"].dtype == mx.bfloat16


def test_dequantize_and_requantize(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(source, tmp_path / "four", "-q") == 0
    assert run(tmp_path / "four", tmp_path / "plain", "-d") == 0
    assert quantization(tmp_path / "plain") is None
    capsys.readouterr()
    sentence = refused(capsys, tmp_path / "four", tmp_path / "eight", "--q-bits", "8")
    assert "--requantize" in sentence
    assert run(tmp_path / "four", tmp_path / "eight", "--q-bits", "8", "--requantize") == 0
    assert "note: quantized a second time" in capsys.readouterr().err
    assert quantization(tmp_path / "eight")["bits"] == 8


@pytest.mark.parametrize("order", ["position", "apart", "source flag", "destination flag", "flags"])
def test_places_by_position_or_flag(order: str, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words: dict[str, list[str | Path]] = {
        "position": ["-q", source, out],
        "apart": [source, "-q", out],
        "source flag": ["--hf-path", source, "-q", out],
        "destination flag": [source, "--mlx-path", out, "-q"],
        "flags": ["--model", source, "--mlx-path", out, "-q"],
    }
    assert run(*words[order]) == 0
    assert quantization(out)["bits"] == 4


def test_one_json_object(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(source, tmp_path / "out", "--q-bits", "8", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["path"] == str(tmp_path / "out")
    assert result["quantization"] == {"group_size": 64, "bits": 8, "mode": "affine"}
    assert result["matrices"] == {"kept": 0, "quantized": 16, "plain": 0}
    assert result["dtype"] == "float16"
    weights = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert 0 < weights - result["size_bytes"] < 10_000  # the header
    assert result["bits_per_weight"] == pytest.approx(result["size_bytes"] * 8 / result["parameters"])
    assert result["peak_memory_bytes"] > 0
    assert result["elapsed_s"] > 0


def test_small_files_come_along_and_code_does_not(source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "out") == 0
    found = {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert found == {
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
        "additional_chat_templates/tool_use.jinja",
    }


def test_interrupted_it_says_how_to_go_on_and_goes_on(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, shown = tmp_path / "out", []

    def ctrl_c(bar: Progress, *amounts: int) -> None:
        shown.append(amounts)
        if len(shown) == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "update", ctrl_c)
        sentence = refused(capsys, source, out, "-q", code=130)
    assert sentence == "macllm: interrupted; the same command goes on where it stopped"
    assert not out.exists()
    assert run(source, out, "-q") == 0
    assert "resuming: " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_another_conversion_in_the_way(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ctrl_c(bar: Progress, *amounts: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "update", ctrl_c)
        refused(capsys, source, tmp_path / "out", "-q", code=130)
    assert "unfinished conversion" in refused(capsys, source, tmp_path / "out", "--q-bits", "8")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--q-bits", "7"], "bits=7"),
        (["--q-bits", "many"], "many"),
        (["--q-group-size", "48"], "group_size=48"),
        (["--q-mode", "nf3"], "nf3"),
        (["--q-mode", "mxfp8", "--q-bits", "4"], "mxfp8"),
        (["--quant-predicate", "mixed_9_9"], "mixed_9_9"),
        (["--quant-predicate", "mixed_3_6", "--q-bits", "4"], "mixed_3_6"),
        (["--dtype", "float8"], "float8"),
        (["-q", "-d"], "contradict"),
        (["--requantize"], "requantize"),
        (["--quantise"], "--quantize"),
        (["third"], "third"),
    ],
)
def test_bad_options_are_named(
    flags: list[str], words: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, source, tmp_path / "out", *flags)
    assert not list(tmp_path.glob("out*"))


def test_bad_places_are_named(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    assert "there exists already" in refused(capsys, source, tmp_path / "there")
    assert "nowhere" in refused(capsys, tmp_path / "nowhere", tmp_path / "out")
    assert "DST" in refused(capsys, source)
    assert "one argument too many" in refused(capsys, "--hf-path", source, tmp_path / "a", tmp_path / "b")


def test_damaged_sources_are_named(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = Path(shutil.copytree(source, tmp_path / "damaged"))
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "model.safetensors" in refused(capsys, damaged, tmp_path / "out")
    values = tiny.read_config(source) | {"quantization_config": {"quant_method": "gptq"}}
    (damaged / "config.json").write_text(json.dumps(values))
    assert "gptq" in refused(capsys, damaged, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.starter
def test_the_starter_becomes_a_folder_that_answers(
    starter_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(starter_gguf, out) == 0
    assert "affine 4-bit, groups of 32" in capsys.readouterr().out
    question = ["-p", "What is the capital of France?", "--temp", "0", "--json"]
    assert main(["generate", str(out), *question]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "The capital of France is Paris."
    scales = mx.load(str(out / "model.safetensors"))["model.layers.0.mlp.up_proj.scales"]
    assert scales.dtype == mx.float16
    assert np.isfinite(np.array(scales)).all()
