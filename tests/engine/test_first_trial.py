"""The first load on an unknown chip tries the kernels that the model may use; the next loads know."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx
import pytest
import tiny

from macllm.engine import first_trial
from macllm.engine.first_trial import kernels_for
from macllm.engine.loading import load_model
from macllm.errors import CheckpointError
from macllm.kernels import permission, trial_process
from macllm.kernels.kernel import Launch
from macllm.kernels.registry import KERNELS
from macllm.kernels.trial_process import Order, TrialProcess
from macllm.kernels.verdicts import Verdicts
from macllm.weights.convert import convert
from macllm.weights.model_files import open_model
from macllm.weights.plan import Target

WORKER = Path(__file__).parent.parent / "trial_worker.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(
        tiny.reference("qwen3", wide=True).folder, tmp_path_factory.mktemp("nf4") / "out", Target(mode="nf4")
    ).path


def never(launch: Launch) -> list[mx.array]:
    raise AssertionError("trials run in another process")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], list[Order]]]:
    """Sets up a machine whose kernels are of some kind; gives the orders that are made on it."""
    orders: list[Order] = []
    start = TrialProcess.__init__

    def noted(self: TrialProcess, order: Order) -> None:
        orders.append(order)
        start(self, order)

    def of(kind: str) -> list[Order]:
        monkeypatch.setattr(trial_process, "COMMAND", (sys.executable, str(WORKER), kind))
        monkeypatch.setattr(trial_process, "SHORT_START_PATIENCE_S", 60.0)  # the machine may be busy
        monkeypatch.setattr(TrialProcess, "__init__", noted)
        return orders

    monkeypatch.delenv("MACLLM_KERNELS", raising=False)
    with permission.running_on(never):
        yield of


def status(name: str) -> str:
    return Verdicts.load().of(KERNELS[name], mx.float32).status


def test_it_tries_what_the_model_may_use_at_its_shapes(machine, folder: Path) -> None:
    orders = machine("right")
    load_model(folder, dtype="float32")
    assert len(orders) == 1
    assert orders[0].short
    assert {"nf4_matvec", "nf4_dequantize"} <= set(orders[0].kernels)
    assert not any(name.startswith("q4_k") for name in orders[0].kernels)
    assert set(orders[0].work.matrices) <= {
        tensor.shape[-2:] for tensor in open_model(folder).spec.tensors() if tensor.quantizable
    }
    assert status(orders[0].kernels[0]) in ("faster", "slower")


def test_what_is_known_is_not_tried_again(machine, folder: Path) -> None:
    orders = machine("fails")
    load_model(folder, dtype="float32")
    asked = [set(order.kernels) for order in orders]
    assert status("nf4_matvec") == "failed"
    load_model(folder, dtype="float32")
    assert len(orders) == 1 or not asked[0] & set(orders[1].kernels)  # it may not have come to all
    load_model(folder, dtype="float16")
    assert "nf4_matvec" in orders[-1].kernels  # nothing is known of another type


@pytest.mark.parametrize("kind", ["wrong", "dies", "broken", "none"])
def test_a_load_succeeds_whatever_comes_of_it(machine, folder: Path, kind: str) -> None:
    machine(kind)
    assert load_model(folder, dtype="float32").spec is not None
    assert status("nf4_matvec") == {"wrong": "wrong", "dies": "failed"}.get(kind, "untried")


def test_a_load_that_fails_ends_it(machine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []
    monkeypatch.setattr(TrialProcess, "stop", lambda self: ended.append(self))
    machine("none")

    def progress(done: int, total: int) -> None:
        raise CheckpointError("no more")

    with pytest.raises(CheckpointError, match="no more"):
        load_model(folder, dtype="float32", progress=progress)
    assert len(ended) == 1


@pytest.mark.parametrize("setting", ["on", "off"])
def test_nothing_is_tried_unless_it_decides(
    machine, folder: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("MACLLM_KERNELS", setting)
    orders = machine("right")
    first_trial.FirstTrial(open_model(folder), mx.float32)
    assert orders == []


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(
    machine, folder: Path, macllm_home: Path
) -> None:
    machine("right")
    macllm_home.parent.mkdir(exist_ok=True)
    macllm_home.write_text("a file where the folder should be")
    assert load_model(folder, dtype="float32").spec is not None


def test_a_process_that_cannot_be_started_is_no_reason_to_fail(
    machine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("right")
    monkeypatch.setattr(trial_process, "COMMAND", ("/no/such/python",))
    assert load_model(folder, dtype="float32").spec is not None
    assert status("nf4_matvec") == "untried"


def test_what_reads_the_models_matrices_comes_first(folder: Path) -> None:
    names = [kernel.name for kernel in kernels_for(open_model(folder))]
    assert set(names[:2]) < {name for name, kernel in KERNELS.items() if "nf4" in kernel.modes}
    assert "nf4_quantize" not in names  # for conversion, not for a model that runs


def test_of_a_gguf_its_own_types_are_tried(starter_gguf: Path) -> None:
    files = open_model(starter_gguf)
    assert files.gguf is not None
    types = {tensor.type_name.lower() for tensor in files.gguf.tensors.values()}
    names = {kernel.name for kernel in kernels_for(files)}
    for kernel in KERNELS.values():
        if kernel.modes[0] in types and kernel.role != "quantize":
            assert kernel.name in names
