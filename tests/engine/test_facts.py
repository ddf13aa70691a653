"""What the engine says of the machine and of a loaded model."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from macllm.engine.facts import machine, model_hash, ready
from macllm.engine.loading import Loaded, load_model


def test_the_machine_is_the_one_models_run_on(tiny_model: Callable[[str], Loaded]) -> None:
    here, backend = machine(), tiny_model("llama").backend
    assert (here.backend, here.device) == (backend.name, backend.device)
    assert 0 < here.memory_limit_bytes <= here.memory_bytes


def test_a_model_in_memory(tiny_model: Callable[[str], Loaded]) -> None:
    loaded = tiny_model("gemma3")
    said = ready(loaded)
    assert (said.model, said.max_context, said.sampling) == (loaded.name, 512, loaded.sampling)
    assert said.load_s == loaded.load_s > 0
    assert said.memory_bytes > 0


def test_the_starter_says_whose_template_it_has(starter_gguf: Path) -> None:
    said = ready(load_model(starter_gguf, name="starter"))
    assert (said.template, said.thinks, said.native, said.model) == ("model", False, True, "starter")


def test_the_hash_tells_models_apart(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copytree(tiny_folder("llama"), tmp_path / name)) for name in ("a", "b")]
    one, other = (load_model(copy) for copy in copies)
    assert model_hash(one) == model_hash(other)  # wherever they lie
    assert model_hash(one) != model_hash(load_model(tiny_folder("qwen3")))
    assert model_hash(one) != model_hash(replace(one, config={**one.config, "rms_norm_eps": 1.0}))
    with (copies[1] / "model.safetensors").open("ab") as weights:
        weights.write(b"\0")
    assert model_hash(one) != model_hash(other)
