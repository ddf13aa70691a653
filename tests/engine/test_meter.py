"""The figures follow their definitions, at times that the test sets."""

import json
from types import SimpleNamespace

import mlx.core as mx
import pytest

from macllm.backend import Backend
from macllm.engine import meter as meter_module
from macllm.engine.events import Stats
from macllm.engine.meter import Meter, kv_by_kind, median_rate, percentile
from macllm.engine.metrics import Metrics
from macllm.engine.wire import from_json, to_json
from macllm.nn.cache import FullCache, SlidingCache

HERE = Backend("cpu", "a chip", 8 << 30, 6 << 30, "float32", "a blas")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(meter_module, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


def decode(meter: Meter, clock: Clock, *steps: float) -> None:
    for step in steps:
        clock.now += step
        meter.token()


def test_waiting_before_the_prefill_is_in_the_time_to_the_first_token_only(clock: Clock) -> None:
    meter = Meter(HERE, 3.5, 1000, submitted=95.0)
    meter.reused = 200
    clock.now += 4.0
    decode(meter, clock, 0.0, 0.5)
    metrics = meter.metrics()
    assert (metrics.ttft_s, metrics.prefill_s, metrics.load_s) == (9.0, 4.0, 3.5)
    assert metrics.prefill_tps == 200.0  # the 800 computed ones


def test_a_request_without_a_time_was_received_when_it_began(clock: Clock) -> None:
    meter = Meter(HERE, 0.0, 10)
    assert meter.metrics().ttft_s == 0.0  # no token yet
    decode(meter, clock, 2.0)
    assert meter.metrics().ttft_s == meter.metrics().prefill_s == 2.0


def test_the_prefill_rate_is_that_of_what_is_computed_so_far(clock: Clock) -> None:
    meter = Meter(HERE, 0.0, 1000)
    meter.reused = 100
    clock.now += 2.0
    meter.computed = 300
    assert meter.metrics().prefill_tps == 150.0
    assert meter.metrics().prefill_s == 2.0
    clock.now += 1.0
    meter.prefilled()
    clock.now += 50.0
    assert meter.metrics().prefill_tps == 300.0


def test_the_recent_rate_is_the_median_of_the_last_steps(clock: Clock) -> None:
    meter = Meter(HERE, 0.0, 10)
    decode(meter, clock, 1.0, *[1.0] * 40, *[0.125] * 17, *[0.5] * 15)
    assert meter.metrics().recent_tps == 8.0
    assert meter.metrics().decode_tps == 72 / (40 + 17 * 0.125 + 15 * 0.5)
    assert median_rate([]) == 0.0
    assert median_rate([0.0, 0.5]) == 2.0  # a clock too coarse for a step says nothing about it


def test_each_step_is_told_once(clock: Clock) -> None:
    meter = Meter(HERE, 0.0, 10)
    assert meter.new_steps_ms() == ()
    decode(meter, clock, 1.0, 0.25, 0.5)
    assert meter.new_steps_ms() == (250.0, 500.0)
    assert meter.new_steps_ms() == ()
    decode(meter, clock, 0.125)
    assert meter.new_steps_ms() == (125.0,)
    assert (meter.metrics().step_ms_p50, meter.metrics().step_ms_p99) == (250.0, 500.0)


def test_thinking_is_the_steps_that_made_the_thought(clock: Clock) -> None:
    meter = Meter(HERE, 0.0, 10)
    decode(meter, clock, 5.0)
    meter.thought()  # the first token's time is the prefill's
    for _ in range(3):
        decode(meter, clock, 0.25)
        meter.thought()
    decode(meter, clock, 1.0)
    metrics = meter.metrics()
    assert (metrics.thinking_tokens, metrics.thinking_s, metrics.decode_tokens) == (4, 0.75, 5)


def test_the_context_is_the_prompt_and_what_came(clock: Clock) -> None:
    meter = Meter(HERE, 0.0, 10, max_context=4096)
    assert (meter.metrics().context_tokens, meter.metrics().max_context) == (10, 4096)
    decode(meter, clock, 1.0, 1.0)
    assert meter.metrics().context_tokens == 12


def test_the_cache_is_counted_by_kind(clock: Clock) -> None:
    full, sliding, other = FullCache(), SlidingCache(4), SimpleNamespace(nbytes=7)
    for cache in (full, sliding):
        cache.update(mx.zeros((1, 2, 6, 8)), mx.zeros((1, 2, 6, 8)))
    caches = [full, sliding, full, other]
    metrics = Meter(HERE, 0.0, 1).metrics(caches)  # type: ignore[arg-type]
    token = 2 * 2 * 8 * 4
    assert dict(metrics.kv_by_kind) == {"full": 12 * token, "sliding": 4 * token, "other": 7}
    assert metrics.kv_bytes == sum(metrics.kv_by_kind.values())
    assert kv_by_kind([]) == {}


def test_percentiles_are_values_that_occurred() -> None:
    assert percentile([], 99) == 0.0
    assert percentile([1.0], 50) == 1.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.0
    assert percentile([float(value) for value in range(1, 201)], 99) == 198.0


def test_acceptance_as_the_literature_has_it() -> None:
    metrics = Metrics(draft_tested=40, draft_accepted=30, draft_rounds=10)
    assert metrics.acceptance == 0.75
    assert metrics.mean_accepted == 4.0  # three of the draft and the model's own, a round
    assert (Metrics().acceptance, Metrics().mean_accepted) == (0.0, 0.0)
    assert Metrics(draft_tested=4, draft_rounds=1).mean_accepted == 1.0


def test_metrics_survive_json(clock: Clock) -> None:
    metrics = Metrics(load_s=1.5, kv_by_kind={"full": 3}, memory_pressure="warn", draft_rounds=2)
    assert Metrics(**json.loads(json.dumps(metrics.as_dict()))) == metrics
    stats = Stats(metrics, (1.0, 2.5))
    assert from_json(json.loads(json.dumps(to_json(stats)))) == stats
