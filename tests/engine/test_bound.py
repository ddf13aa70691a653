"""The bound of decoding on this machine: of the weights as they are held, at a bandwidth that is known or measured."""

from dataclasses import replace

import pytest
from tiny import config_of, write_model

from macllm import sizes
from macllm.backend import current, gpu_cores, parse_gpu_cores
from macllm.engine import bound
from macllm.engine.loading import Loaded, load_model

MACS_REGISTRY = """+-o AGXAcceleratorG15X  <class AGXAcceleratorG15X, id 0x100000430, registered, matched, active>
    {
      "IOClass" = "AGXAcceleratorG15X"
      "gpu-core-count" = 30
      "model" = "Apple M3 Max"
    }
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("bound") / "tiny"
    write_model(config_of("llama"), folder)
    return load_model(folder)


def test_the_bound_is_bandwidth_over_what_is_held(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "measured_bandwidth", lambda: 2.0)
    found = bound.decode_bound(loaded, 20)
    assert found is not None
    assert (found.bandwidth_gb_per_s, found.bandwidth_from) == (2.0, bound.MEASURED)
    spec = loaded.spec
    assert spec is not None
    read = (spec.parameters - spec.vocab * spec.dim + spec.dim) * 4  # a CPU holds and computes in float32
    read += sizes.kv_bytes(spec, 20, 4) + sizes.kv_bytes(
        spec, 1, 4
    )  # those in view, and the token's own written
    assert found.decode_bound_tps == pytest.approx(2e9 / read)


def test_a_macs_bandwidth_is_its_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "gpu_cores", lambda: parse_gpu_cores(MACS_REGISTRY))
    metal = replace(current(), name="metal", device="Apple M3 Max")
    assert bound.memory_bandwidth(metal) == (300, "M3 Max")


def test_another_machines_is_measured() -> None:
    found = bound.measured_bandwidth()
    assert 0.5 < found < 10_000


def test_cores_are_counted_where_macos_tells() -> None:
    assert parse_gpu_cores(MACS_REGISTRY) == 30
    assert parse_gpu_cores("") is None
    assert gpu_cores() is None or gpu_cores() > 0


def test_of_a_class_of_mlx_lm_nothing_is_known(loaded: Loaded) -> None:
    class Foreign:
        pass

    assert bound.decode_bound(replace(loaded, model=Foreign()), 20) is None
