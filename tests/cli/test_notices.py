"""A kernel that fails while a command runs: one line on stderr, and the result as if it had not."""

import json
from pathlib import Path

import mlx.core as mx
import pytest
import tiny
from stand_ins import noting

from macllm.cli.main import main
from macllm.engine import placement
from macllm.kernels import dispatch, permission
from macllm.kernels.kernel import Launch
from macllm.kernels.switch import SWITCH
from macllm.weights.convert import convert
from macllm.weights.plan import Target


def fails(launch: Launch) -> list[mx.array]:
    raise RuntimeError(f"[metal::Device] Unable to load kernel custom_kernel_{launch.body.name}_float\n")


@pytest.mark.parametrize("as_json", [True, False])
def test_generate_says_it_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    monkeypatch.setenv("MACLLM_KERNELS", "on")
    monkeypatch.setattr(placement, "EXPAND_SHARE", 0)  # packed, as on a GPU
    monkeypatch.setattr(dispatch, "KERNELS", {k: noting(v) for k, v in dispatch.KERNELS.items()})
    model = convert(tiny.reference("qwen3", wide=True).folder, tmp_path / "nf4", Target(mode="nf4")).path
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps(tiny.tokens(4)))
    words = ["generate", str(model), "--tokens-in", str(ids), "--max-tokens", "3", "--temp", "0"]
    SWITCH.reset()
    with permission.running_on(fails):
        assert main([*words, *(["--json"] if as_json else [])]) == 0
    SWITCH.reset()
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("custom kernel")]
    assert lines
    assert all(line.endswith("plain MLX carries on") for line in lines)
    if as_json:
        assert len(json.loads(out)["tokens"]) == 3
