"""Architectures without a native family run through mlx-lm's classes behind the same engine."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from macllm.engine.events import Token
from macllm.engine.generate import Options, generate
from macllm.engine.loading import Loaded, load_model
from macllm.engine.request import Limits
from macllm.engine.session import Session
from macllm.errors import Cancelled, CheckpointError, ConfigError

PROMPT = tiny.tokens(15, seed=4)


@pytest.fixture(scope="module")
def foreign_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of a family that macllm does not have itself."""
    folder = tmp_path_factory.mktemp("nemotron")
    torch.manual_seed(0)
    config = AutoConfig.for_model("nemotron", **tiny.BASE, head_dim=8, pad_token_id=0, bos_token_id=1)
    AutoModelForCausalLM.from_config(config).to(torch.float32).save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text())
    # mlx-lm reads the keys that repositories carry
    values |= {"rope_theta": 10000.0, "partial_rotary_factor": 0.5, "rope_scaling": None}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def foreign(foreign_folder: Path) -> Loaded:
    return load_model(foreign_folder, dtype="float32")


def greedy(loaded: Loaded, prompt: list[int], session: Session | None = None) -> list[int]:
    options = Options(limits=Limits(max_tokens=8, ignore_eos=True))
    events = generate(loaded, session or Session(loaded.model), prompt, options)
    return [event.id for event in events if isinstance(event, Token)]


def test_it_is_named_as_not_native(foreign: Loaded) -> None:
    assert foreign.spec is None


def test_its_load_can_be_watched_and_stopped(foreign_folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    load_model(foreign_folder, dtype="float32", progress=lambda done, total: seen.append((done, total)))
    assert len(seen) > 10 and seen == sorted(seen)
    assert seen[0][0] == 0 and seen[-1][0] == seen[-1][1] > 0

    def stop(done: int, total: int) -> None:
        if done:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        load_model(foreign_folder, dtype="float32", progress=stop)


def test_greedy_text_equals_the_original(foreign: Loaded, foreign_folder: Path) -> None:
    reference = AutoModelForCausalLM.from_pretrained(foreign_folder, dtype=torch.float32).eval()
    text = torch.tensor([PROMPT])
    for _ in range(8):
        with torch.no_grad():
            text = torch.cat([text, reference(text).logits[:, -1:].argmax(-1)], dim=1)
    assert greedy(foreign, PROMPT) == text[0, len(PROMPT) :].tolist()


def test_its_session_rewinds_and_continues(foreign: Loaded) -> None:
    session = Session(foreign.model)
    greedy(foreign, PROMPT, session)
    edited = [*PROMPT[:6], 7, 8, 9]
    assert session.prepare(edited) == 6
    assert greedy(foreign, edited, session) == greedy(foreign, edited)


def test_prompt_logits_cover_every_position(foreign: Loaded) -> None:
    parts: list[np.ndarray] = []
    options = Options(
        limits=Limits(max_tokens=0), logits=lambda part: parts.append(np.array(part)), all_logits=True
    )
    list(generate(foreign, Session(foreign.model), PROMPT, options))
    assert np.concatenate(parts).shape == (len(PROMPT), foreign.vocab)


def test_a_multimodal_config_keeps_the_text_models_facts_in_a_part(tmp_path: Path) -> None:
    from mlx_lm.models.mistral3 import Model, ModelArgs
    from mlx_lm.utils import save_model

    config = {
        "model_type": "mistral3",
        "text_config": {"model_type": "llama", "rope_theta": 1e4, **tiny.BASE},
    }
    save_model(tmp_path, Model(ModelArgs.from_dict(config)))
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_model(tmp_path, dtype="float32")
    assert (loaded.vocab, loaded.max_context) == (
        tiny.BASE["vocab_size"],
        tiny.BASE["max_position_embeddings"],
    )
    assert len(greedy(loaded, PROMPT)) == 8


def test_weights_under_a_name_that_mlx_lm_does_not_read(foreign_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((foreign_folder / "config.json").read_text())
    (tmp_path / "weights.safetensors").write_bytes((foreign_folder / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="mlx-lm cannot load it"):
        load_model(tmp_path)


def test_code_in_the_folder_is_not_run(foreign_folder: Path, tmp_path: Path) -> None:
    config = json.loads((foreign_folder / "config.json").read_text()) | {"model_file": "model.py"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((foreign_folder / "model.safetensors").read_bytes())
    (tmp_path / "model.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(CheckpointError):
        load_model(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_an_architecture_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "perceptron", "vocab_size": 9}))
    with pytest.raises(ConfigError, match="'perceptron' is not supported"):
        load_model(tmp_path)


def test_truncated_weights_are_named(foreign_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((foreign_folder / "config.json").read_text())
    weights = (foreign_folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="ends inside tensor"):
        load_model(tmp_path)
