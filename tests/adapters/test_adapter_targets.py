"""Which matrices a target names: aliases, patterns, mlx-lm's names, the last layers; what names nothing is refused."""

import pytest
from tiny import config_of

from macllm import sizes
from macllm.adapters.targets import select
from macllm.errors import OptionError
from macllm.families import spec_from_config
from macllm.spec import ModelSpec


def spec_of(variant: str) -> ModelSpec:
    return spec_from_config(config_of(variant))


def words(spec: ModelSpec, *targets: str, num_layers: int = -1) -> set[str]:
    """The last words of the matrices' names."""
    return {tensor.name.split(".")[-2] for tensor in select(spec, targets, num_layers)}


@pytest.mark.parametrize("variant", ["llama", "deepseek-v3", "falcon-h1", "gemma3n", "rwkv7", "mamba2"])
def test_all_matrices_in_layers_are_meant_unless_others_are(variant: str) -> None:
    spec = spec_of(variant)
    found = select(spec)
    sizes_of = [
        sum(tensor.shape[-2:]) * (tensor.size // (tensor.shape[-1] * tensor.shape[-2])) for tensor in found
    ]
    assert 8 * sum(sizes_of) == sum(sizes.adapter_tensors(spec, 8))
    assert found == select(spec, ("all",))


@pytest.mark.parametrize(
    ("variant", "targets", "expected"),
    [
        ("llama", ("attention",), {"q", "k", "v", "o"}),
        ("llama", ("mlp",), {"gate", "up", "down"}),
        ("llama", ("q,v",), {"q", "v"}),
        ("llama", ("q", " v ,o"), {"q", "v", "o"}),
        ("llama", ("q_proj", "mlp.down_proj"), {"q", "down"}),
        ("llama", ("self_attn.*",), {"q", "k", "v", "o"}),
        ("llama", ("head",), {"head"}),
        ("llama", ("layers.1.mixer.?",), {"q", "k", "v", "o"}),
        ("qwen3-moe", ("router",), {"router"}),
        ("qwen3-moe", ("mlp",), {"gate", "up", "down"}),
        ("qwen3-moe", ("experts.*",), {"gate", "up", "down"}),
        ("deepseek-v3", ("attention",), {"q_down", "q_up", "kv_down", "k_up", "v_up", "o"}),
        ("falcon-h1", ("attention",), {"q", "k", "v", "o"}),
    ],
)
def test_targets_name_matrices(variant: str, targets: tuple[str, ...], expected: set[str]) -> None:
    assert words(spec_of(variant), *targets) == expected


def test_a_pattern_with_a_layer_names_that_layer_alone() -> None:
    assert [tensor.name for tensor in select(spec_of("llama"), ("layers.1.mixer.q",))] == [
        "layers.1.mixer.q.weight"
    ]


def test_layers_are_counted_from_the_last() -> None:
    spec = spec_of("llama")
    assert {tensor.name.split(".")[1] for tensor in select(spec, (), 2)} == {"1", "2"}
    assert select(spec, (), 99) == select(spec)


def test_a_target_that_names_nothing_is_refused() -> None:
    with pytest.raises(
        OptionError, match=r"target 'qq' names no matrix of this model \(expected attention, mlp"
    ):
        select(spec_of("llama"), ("q", "qq"))
    with pytest.raises(OptionError, match="name no matrix in the last 1 layers"):
        select(spec_of("llama"), ("layers.0.*",), 1)
