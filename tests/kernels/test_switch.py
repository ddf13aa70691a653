"""Who is to blame for an error of MLX, and that it is off from then on."""

import pytest

from macllm.kernels.registry import KERNELS
from macllm.kernels.switch import Switch

NAMES = ("nf4_matvec", "nf4_dequantize", "skinny_affine4", "skinny_affine8")


@pytest.fixture
def switch() -> Switch:
    made = Switch()
    for name in NAMES:
        assert made.use(KERNELS[name])
    return made


def test_the_named_one_is_off_and_no_other(switch: Switch) -> None:
    error = RuntimeError("[metal::Device] Unable to load kernel custom_kernel_nf4_matvec__float16_t_4096\n")
    assert switch.blame(error, "it failed") == ("nf4_matvec",)
    assert switch.off == {"nf4_matvec": "it failed"}
    assert not switch.use(KERNELS["nf4_matvec"])
    assert switch.use(KERNELS["nf4_dequantize"])


def test_kernels_that_share_a_body_share_the_blame(switch: Switch) -> None:
    error = RuntimeError("in function template specialization 'custom_kernel_skinny_affine_float16_t_4'")
    assert switch.blame(error, "") == ("skinny_affine4", "skinny_affine8")


@pytest.mark.parametrize("text", ["program_source:1: error", "custom_kernel_of_somebody_else"])
def test_all_in_use_are_suspects_where_none_is_named(switch: Switch, text: str) -> None:
    assert switch.blame(RuntimeError(text), "") == tuple(sorted(NAMES))


def test_what_was_never_used_is_no_suspect(switch: Switch) -> None:
    assert "nf4_quantize" not in switch.blame(RuntimeError("custom_kernel_nf4_quantize"), "")
    assert Switch().blame(RuntimeError("anything"), "") == ()


def test_what_is_off_is_no_suspect_any_more(switch: Switch) -> None:
    switch.blame(RuntimeError("anything"), "first")
    assert switch.blame(RuntimeError("anything"), "second") == ()
    assert set(switch.off.values()) == {"first"}
