"""GGUF adapters: names, shapes and scale as llama.cpp reads them, the change they stand for, and llama.cpp itself."""

from pathlib import Path

import gguf
import llama_cpp_peer as peer
import mlx.core as mx
import numpy as np
import pytest
import random_adapters
from tiny import reference

import macllm
from macllm.adapters.files import Adapter, read
from macllm.adapters.gguf_lora import write_gguf
from macllm.adapters.method import Method
from macllm.adapters.sharing import convert
from macllm.errors import InputError, MacllmError, OptionError
from macllm.nn.adapted import Factors
from macllm.nn.stored import Dense
from macllm.weights.gguf.names import gguf_naming
from macllm.weights.model_files import open_model


@pytest.mark.parametrize(
    ("variant", "architecture"), [("llama", "llama"), ("qwen3", "qwen3"), ("mixtral", "llama")]
)
def test_a_file_says_what_the_adapter_changes(variant: str, architecture: str, tmp_path: Path) -> None:
    base = reference(variant).folder
    spec = open_model(base).spec
    adapter = random_adapters.random_adapter(spec)
    factors = {name: Factors(one.a, one.b, 0.7 + len(name) / 40) for name, one in adapter.factors.items()}
    write_gguf(tmp_path / "lora.gguf", spec, Adapter(Method(rank=4, scale=0.5), factors), "poems")
    file = gguf.GGUFReader(tmp_path / "lora.gguf")
    keys = {name: field.contents() for name, field in file.fields.items()}
    assert keys["general.type"] == "adapter" and keys["adapter.type"] == "lora"
    assert (keys["general.architecture"], keys["general.name"]) == (architecture, "poems")
    found = {one.name: np.array(one.data) for one in file.tensors}
    assert len(found) == 2 * len(factors)
    naming = gguf_naming(spec, architecture)
    for relation in naming.relations():
        deltas = [factors.get(one.name.removesuffix(".weight")) for one in relation.canonical]
        if deltas[0] is None:
            continue
        wanted = relation.store(
            [Dense(one.scale * (one.a @ one.b).swapaxes(-1, -2)) for one in deltas if one]
        )
        a, b = (found[f"{relation.stored[0]}.{part}"] for part in ("lora_a", "lora_b"))
        real = keys["adapter.lora.alpha"] / b.shape[-1] * (b @ a)  # as llama.cpp multiplies
        assert isinstance(wanted[0], Dense)
        assert np.allclose(real, np.array(wanted[0].array), atol=1e-4)


def test_dora_and_what_llama_cpp_does_not_know_are_refused(tmp_path: Path) -> None:
    base = reference("llama").folder
    spec = open_model(base).spec
    adapter = random_adapters.random_adapter(spec)
    stretched = {
        name: Factors(one.a, one.b, 1.0, mx.ones(one.b.shape[-1])) for name, one in adapter.factors.items()
    }
    with pytest.raises(OptionError, match="no place for"):
        write_gguf(tmp_path / "lora.gguf", spec, Adapter(Method("dora", rank=4, scale=1.0), stretched))
    with pytest.raises(MacllmError, match="cannot be written"):
        write_gguf(tmp_path / "nowhere" / "lora.gguf", spec, adapter)
    assert not list(tmp_path.iterdir())


def test_formats_go_round(tmp_path: Path) -> None:
    base = reference("llama").folder
    spec = open_model(base).spec
    random_adapters.written(base, tmp_path / "one")
    first = read(tmp_path / "one", spec)
    convert(tmp_path / "one", tmp_path / "peft", "peft", base, "org/base")
    convert(tmp_path / "peft", tmp_path / "back", "mlx", base, "org/base")
    again = read(tmp_path / "back", spec)
    assert first.factors.keys() == again.factors.keys()
    assert all(mx.array_equal(one.a, again.factors[name].a) for name, one in first.factors.items())
    with pytest.raises(InputError, match="exists already"):
        convert(tmp_path / "one", tmp_path / "peft", "peft", base)


@pytest.mark.slow
def test_llama_cpp_computes_the_same_with_it(starter_gguf: Path, tmp_path: Path) -> None:
    peer.require_llama_cpp()
    ids = [1, 504, 2365, 282, 4649, 314, 7042, 30, 198, 1206]
    adapter = random_adapters.written(starter_gguf, tmp_path / "one", strength=0.3)
    convert(adapter, tmp_path / "lora.gguf", "gguf", starter_gguf)
    llm = macllm.load(starter_gguf, dtype="float32")
    alone = llm.logits(ids)
    llm.use_adapter(adapter)
    ours = llm.logits(ids)
    plain = peer.quantize(
        starter_gguf, tmp_path / "plain.gguf", "F32"
    )  # of packed weights it rounds the inputs
    theirs = peer.logits(plain, ids, tmp_path, tmp_path / "lora.gguf")
    assert np.linalg.norm(ours - theirs) < 0.01 * np.linalg.norm(ours - alone)
