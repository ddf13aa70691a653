"""What was learned, in a model that answers: changed without a reload, taken out whole, refused of another base."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import chatty
import numpy as np
import pytest
import random_adapters

import macllm
from macllm.adapters import kept
from macllm.adapters.files import read, write_peft
from macllm.adapters.full import write_full
from macllm.engine.protocol import ModelRef
from macllm.engine.resident import Resident
from macllm.errors import CheckpointError, InputError, OptionError
from macllm.nn.assign import assign
from macllm.spec import ModelSpec

BASE = chatty.folder("endless")
IDS = list(range(3, 40))


@pytest.fixture
def llm() -> macllm.LLM:
    return macllm.load(BASE, dtype="float32")


def spec_of(llm: macllm.LLM) -> ModelSpec:
    assert llm.loaded.spec is not None
    return llm.loaded.spec


def test_adapters_are_switched_without_a_reload(llm: macllm.LLM, tmp_path: Path) -> None:
    alone = llm.logits(IDS)
    model = llm.loaded.model
    one, two = (
        random_adapters.written(BASE, tmp_path / "one", 1),
        random_adapters.written(BASE, tmp_path / "two", 2),
    )
    llm.use_adapter(one)
    first = llm.logits(IDS)
    llm.use_adapter(str(two))
    second = llm.logits(IDS)
    assert llm.adapter == two.resolve()
    llm.use_adapter(one)
    assert np.array_equal(llm.logits(IDS), first)
    llm.use_adapter(None)
    assert llm.adapter is None
    assert np.array_equal(llm.logits(IDS), alone)
    assert llm.loaded.model is model
    assert min(np.abs(first - alone).max(), np.abs(second - first).max()) > 0.1


def test_loaded_with_an_adapter_is_loaded_and_then_given_it(llm: macllm.LLM, tmp_path: Path) -> None:
    folder = random_adapters.written(BASE, tmp_path / "one")
    at_once = macllm.load(BASE, dtype="float32", adapter=folder)
    llm.use_adapter(folder)
    assert np.array_equal(at_once.logits(IDS), llm.logits(IDS))


def test_a_kept_name_is_an_adapter_and_a_wrong_one_is_said(llm: macllm.LLM, tmp_path: Path) -> None:
    random_adapters.written(BASE, kept.folder() / "poems")
    llm.use_adapter("poems")
    assert llm.adapter == kept.folder() / "poems"
    with pytest.raises(InputError, match=r"no adapter 'poem' \(did you mean poems\?\)"):
        llm.use_adapter("poem")
    with pytest.raises(InputError, match=r"no adapter_config\.json"):
        llm.use_adapter(tmp_path)


def test_peft_folders_are_adapters(llm: macllm.LLM, tmp_path: Path) -> None:
    folder = random_adapters.written(BASE, tmp_path / "ours")
    write_peft(tmp_path / "theirs", spec_of(llm), read(folder, spec_of(llm)))
    llm.use_adapter(folder)
    ours = llm.logits(IDS)
    llm.use_adapter(tmp_path / "theirs")
    assert np.allclose(llm.logits(IDS), ours, atol=1e-5)


def test_weights_of_full_fine_tuning_are_put_in_and_taken_out(llm: macllm.LLM, tmp_path: Path) -> None:
    alone = llm.logits(IDS)
    model = llm.loaded.model
    last = f"layers.{len(spec_of(llm).layers) - 1}."
    stored = {name: one.array for name, one in model.tensors()}  # type: ignore[attr-defined, union-attr]
    changed = {name: array * 1.5 for name, array in stored.items() if name.startswith((last, "norm"))}
    assign(model, changed)  # type: ignore[arg-type]
    write_full(tmp_path / "full", model, num_layers=1)  # type: ignore[arg-type]
    full = llm.logits(IDS)
    assign(model, {name: stored[name] for name in changed})  # type: ignore[arg-type]
    folder = random_adapters.written(BASE, tmp_path / "lora")
    for before in (None, folder):
        llm.use_adapter(before)
        llm.use_adapter(tmp_path / "full")
        assert np.array_equal(llm.logits(IDS), full)
    llm.use_adapter(folder)
    adapted = llm.logits(IDS)
    llm.use_adapter(None)
    assert np.array_equal(llm.logits(IDS), alone)
    llm.use_adapter(folder)
    assert np.array_equal(llm.logits(IDS), adapted)


def test_an_adapter_of_another_base_changes_nothing(llm: macllm.LLM, tmp_path: Path) -> None:
    theirs, ours = (
        random_adapters.written(chatty.folder("big"), tmp_path / "theirs"),
        random_adapters.written(BASE, tmp_path / "ours"),
    )
    llm.use_adapter(ours)
    before = llm.logits(IDS)
    with pytest.raises(CheckpointError, match=r"has shape .* the adapter belongs to another base"):
        llm.use_adapter(theirs)
    assert llm.adapter == ours
    assert np.array_equal(llm.logits(IDS), before)
    with pytest.raises(CheckpointError, match="another base"):
        macllm.load(BASE, adapter=theirs)


def test_what_mlx_lm_runs_has_no_adapters(llm: macllm.LLM, tmp_path: Path) -> None:
    folder = random_adapters.written(BASE, tmp_path / "one")
    foreign = macllm.LLM(replace(llm.loaded, slot=None, spec=None))
    with pytest.raises(OptionError, match="adapters need one that macllm runs itself"):
        foreign.use_adapter(folder)
    foreign.use_adapter(None)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    config = json.loads((BASE / "config.json").read_text())
    (stranger / "config.json").write_text(json.dumps({**config, "model_type": "nobody-s"}))
    with pytest.raises(OptionError, match="adapters need one that macllm runs itself"):
        macllm.load(stranger, adapter=folder)


def test_a_chat_goes_on_with_another_adapter_and_none_of_the_old_cache(
    llm: macllm.LLM, tmp_path: Path
) -> None:
    folder = random_adapters.written(BASE, tmp_path / "one")
    settings = {"max_tokens": 6, "temperature": 0.0, "ignore_eos": True}
    chat, anew = llm.chat(), llm.chat()
    chat.send("Hello", **settings)
    llm.use_adapter(folder)
    found = chat.send("And now?", **settings)
    anew.messages = chat.messages[:-2]
    assert found.tokens == anew.send("And now?", **settings).tokens
    assert found.metrics.prompt_tokens > 0 and found.metrics.reused_tokens == 0
    assert chat.send("Then?", **settings).metrics.reused_tokens > 0


def test_the_resident_model_changes_its_adapter_and_loads_nothing(llm: macllm.LLM, tmp_path: Path) -> None:
    base = chatty.ref()
    one, two = (
        replace(base, adapter=str(random_adapters.written(BASE, tmp_path / name, seed)))
        for seed, name in enumerate(("one", "two"))
    )
    resident = Resident()
    read_bytes: list[int] = []

    def progress(done: int, total: int) -> None:
        read_bytes.append(done)

    def logits(ref: ModelRef) -> Any:
        if not resident.holds(ref):
            resident.load(ref, progress)
        return macllm.LLM(resident.loaded).logits(IDS)

    alone, first, second = logits(base), logits(one), logits(two)
    loaded, seen = resident.loaded, len(read_bytes)
    assert np.array_equal(logits(one), first)
    assert np.array_equal(logits(base), alone)
    assert not np.array_equal(first, second)
    assert resident.loaded is loaded and len(read_bytes) == seen
    resident.load(one, progress)
    random_adapters.written(BASE, tmp_path / "one", 7)  # the same folder, learned again
    assert not resident.holds(one) and resident.has_base(one)
    assert not np.array_equal(logits(one), first)
