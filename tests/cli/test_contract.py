"""The commands as a user types them: what they print, how they end, and one sentence for each bad input."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from macllm.cli.main import main

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model folder without a tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.write_model(tiny.config_of("llama"), folder)
    return folder


@pytest.fixture
def folder(reference: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(reference, tmp_path / "model"))


@pytest.fixture
def id_file(tmp_path: Path) -> Path:
    file = tmp_path / "ids.json"
    file.write_text(json.dumps(tiny.tokens(12)))
    return file


def change_config(folder: Path, **changes: object) -> None:
    values = tiny.read_config(folder)
    (folder / "config.json").write_text(json.dumps({**values, **changes}))


def change_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 2) -> str:
    """Runs a command that must fail with one sentence; returns it."""
    assert main([str(word) for word in words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("macllm: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert len(lines[0]) < 500
    return lines[0]


def test_generate_prints_one_json_object(starter_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(starter_gguf), "-p", QUESTION, "--temp", "0", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["text"] == "The capital of France is Paris."
    assert result["finish_reason"] == "stop"
    assert all(isinstance(token, int) for token in result["tokens"])
    expected = """load_s prompt_tokens reused_tokens prefill_s prefill_tps ttft_s decode_tokens decode_tps step_ms_p50
        step_ms_p99 peak_memory_bytes kv_bytes dtype backend""".split()
    assert set(expected) <= set(result["metrics"])


def test_generate_streams_text_to_stdout_and_figures_to_stderr(
    starter_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", str(starter_gguf), "-p", QUESTION, "--temp", "0"]) == 0
    out, err = capsys.readouterr()
    assert out == "The capital of France is Paris.\n"
    assert "tok/s" in err


def test_generate_options_change_the_outcome(starter_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def tokens(*options: str) -> list[int]:
        words = ["generate", str(starter_gguf), "-p", "Say hello.", "--max-tokens", "3", "--json", *options]
        assert main(words) == 0
        ids: list[int] = json.loads(capsys.readouterr().out)["tokens"]
        return ids

    plain = tokens("--temp", "0")
    assert len(plain) == 3
    assert tokens("--temp", "0", "--raw") != plain
    assert tokens("--temp", "0", "--system-prompt", "You only speak French.") != plain
    assert tokens("--temp", "0", "--logit-bias", f"{plain[0]}=-100") != plain
    assert tokens("--temp", "2", "--seed", "1") != tokens("--temp", "2", "--seed", "2")


def test_generate_works_from_ids_without_a_tokenizer(
    reference: Path, id_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", str(reference), "--tokens-in", str(id_file), "--max-tokens", "0", "--json"]
    out = tmp_path / "logits.npy"
    assert main([*words, "--logits", str(out), "--all-logits", "--dtype", "float32"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["text"], result["tokens"], result["metrics"]["dtype"]) == ("", [], "float32")
    whole = np.load(out)
    assert (whole.shape, whole.dtype) == ((12, 99), np.float32)
    assert main([*words, "--logits", str(out), "--prefill-step-size", "5"]) == 0
    np.testing.assert_allclose(np.load(out), whole[-1], rtol=1e-4, atol=1e-5)


def test_dtype_overrides_the_policy(
    reference: Path, id_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", str(reference), "--tokens-in", str(id_file), "--json", "--dtype", "bfloat16",
                 "--max-tokens", "2"]) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["metrics"]["dtype"] == "bfloat16"


def chat(*words: str, text: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "macllm", "chat", *words],
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, "MACLLM_HOME": str(home)},
        check=False,
    )


def test_each_piped_line_is_a_message(starter_gguf: Path, tmp_path: Path) -> None:
    text = f"{QUESTION}\n\nAnd of Italy?\n"
    done = chat(str(starter_gguf), "--temp", "0", "--max-tokens", "20", text=text, home=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "The capital of France is Paris."
    assert "Rome" in lines[1]
    again = chat("--temp", "0", text=QUESTION, home=tmp_path)  # the last used, named no more
    assert again.stdout == "The capital of France is Paris.\n"


def test_a_model_without_a_chat_template_says_so(starter_gguf: Path, tmp_path: Path) -> None:
    assert main(["convert", str(starter_gguf), str(tmp_path / "model")]) == 0
    file = tmp_path / "model" / "tokenizer_config.json"
    values = json.loads(file.read_text())
    del values["chat_template"]
    file.write_text(json.dumps(values))
    for template in (tmp_path / "model").glob("chat_template*"):
        template.unlink()
    done = chat(str(tmp_path / "model"), "--max-tokens", "2", text="Hello\n", home=tmp_path)
    assert done.returncode == 0
    assert "no chat template of its own; messages are written as ChatML" in done.stderr


def test_the_system_prompt_reaches_the_model(starter_gguf: Path, tmp_path: Path) -> None:
    words = (str(starter_gguf), "--temp", "0", "--max-tokens", "12")
    plain = chat(*words, text="Hello\n", home=tmp_path)
    told = chat(*words, "--system", "You are a pirate and speak like one.", text="Hello\n", home=tmp_path)
    assert plain.stdout.strip() != told.stdout.strip() != ""


def test_a_model_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no-such-model" in refused(capsys, "chat", "no-such-model")
    assert "starter" in refused(capsys, "chat", "startr")


def test_a_folder_without_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "config.json" in refused(capsys, "chat", tmp_path)


def test_a_truncated_safetensors_file(
    folder: Path, id_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    message = refused(capsys, "generate", folder, "--tokens-in", id_file)
    assert "model.safetensors" in message
    assert "download it again" in message


def test_a_truncated_gguf_file(
    starter_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cut.gguf"
    with starter_gguf.open("rb") as stream:
        file.write_bytes(stream.read(5_000_000))
    message = refused(capsys, "chat", file)
    assert "cut.gguf" in message
    assert "again" in message


def test_a_gguf_of_an_unknown_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gguf import GGUFWriter

    file = tmp_path / "strange.gguf"
    writer = GGUFWriter(file, "perceptron")
    writer.add_tensor("w", np.zeros((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "perceptron" in refused(capsys, "chat", file)


def test_an_unsupported_config_value(folder: Path, id_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_config(folder, hidden_act="sine")
    message = refused(capsys, "generate", folder, "--tokens-in", id_file)
    assert "hidden_act='sine'" in message
    assert "'silu'" in message


def test_an_unknown_config_key(folder: Path, id_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_config(folder, residual_multiplier=0.5)
    assert "residual_multiplier=0.5" in refused(capsys, "generate", folder, "--tokens-in", id_file)


def test_a_missing_and_an_unexpected_tensor(
    folder: Path, id_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    change_tensors(folder, lambda tensors: tensors.update(extra=tensors[name]))
    assert "'extra'" in refused(capsys, "generate", folder, "--tokens-in", id_file)
    change_tensors(folder, lambda tensors: (tensors.pop("extra"), tensors.pop(name))[0])
    assert name in refused(capsys, "generate", folder, "--tokens-in", id_file)


@pytest.mark.parametrize(
    "option", [("--temp", "-1"), ("--top-p", "0"), ("--min-p", "2"), ("--top-k", "-3"), ("--max-tokens", "x")]
)
def test_an_option_out_of_range(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert option[1] in refused(capsys, "chat", "starter", *option)


def test_a_source_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing-here" in refused(capsys, "chat", tmp_path / "nothing-here")
    assert "nothing.gguf" in refused(capsys, "pull", tmp_path / "nothing.gguf")


def test_an_unreadable_tokenizer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tokenizer.json").write_text('{"model": ')
    assert "tokenizer.json" in refused(capsys, "chat", folder)


def test_a_chat_without_a_tokenizer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "tokenizer" in refused(capsys, "chat", folder)


def test_a_prompt_longer_than_the_context(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "long.json"
    file.write_text(json.dumps([1] * 600))
    message = refused(capsys, "generate", folder, "--tokens-in", file)
    assert "600 tokens" in message
    assert "512" in message


@pytest.mark.parametrize("text", ["[1, 2", "{}", "[]", '["a"]', "[true]"])
def test_ids_that_are_none(
    reference: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    assert "bad.json" in refused(capsys, "generate", reference, "--tokens-in", file)


def test_options_that_do_not_go_together(
    reference: Path, id_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--logits" in refused(capsys, "generate", reference, "-p", "x", "--all-logits")
    assert "--raw" in refused(capsys, "generate", reference, "-p", "x", "--raw", "--system-prompt", "y")
    assert "--tokens-in" in refused(
        capsys, "generate", reference, "--tokens-in", id_file, "--system-prompt", "y"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk(
    reference: Path, id_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing half-written stays: the logits go beside and are renamed."""
    target = tmp_path / "logits.npy"
    (tmp_path / "logits.npy.partial").symlink_to("/dev/full")
    words = ["generate", str(reference), "--tokens-in", str(id_file), "--max-tokens", "0", "--json"]
    assert main([*words, "--logits", str(target)]) == 1
    assert "No space left" in capsys.readouterr().err
    assert list(tmp_path.glob("logits.npy*")) == []


def test_logits_that_have_no_place_are_refused_before_loading(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("generate", "no-such-model", "-p", "x", "--logits")
    assert "this is a folder" in refused(capsys, *words, tmp_path)
    assert "there is no folder" in refused(capsys, *words, tmp_path / "nowhere" / "logits.npy")


def test_a_chat_needs_no_place_to_remember_its_model(starter_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = chat(str(starter_gguf), "--max-tokens", "1", text="Hello\n", home=tmp_path / "file")
    assert (done.returncode, done.stdout) == (0, "Hello\n"), done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_missing_standard_stream_is_an_empty_one(starter_gguf: Path, tmp_path: Path, closed: str) -> None:
    command = f'exec "{sys.executable}" -m macllm chat "{starter_gguf}" --max-tokens 1 {closed}'
    done = subprocess.run(
        ["sh", "-c", command],
        input="Hello\n",
        capture_output=True,
        text=True,
        env={**os.environ, "MACLLM_HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("Hello\n" if closed == "2>&-" else "")
    assert "AttributeError" not in done.stderr


def test_an_empty_name_is_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "chat", "")


def test_messages_about_a_gguf_name_the_file(
    starter_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = starter_gguf.read_bytes()
    file = tmp_path / "changed.gguf"
    for old, new in (
        (b"llama.block_count", b"llama.blocc_count"),
        (b"tokenizer.ggml.tokens", b"tokenizer.ggml.tokenz"),
    ):
        file.write_bytes(whole.replace(old, new, 1))
        assert str(file) in refused(capsys, "chat", file)


def test_an_option_that_a_chat_could_not_show_is_not_one_of_its_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "no option --logprobs" in refused(capsys, "chat", "starter", "--logprobs", "2")
