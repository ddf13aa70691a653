"""Rotations that depend on the length of the sequence: every way to a sequence gives what all of it at once gives."""

from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tiny import BASE, Original, decoder, difference, tokens, write_original
from variants.phi import LONGROPE

from macllm.engine.prefill import take_back
from macllm.engine.session import Session
from macllm.nn.cache_file import load_caches, save_caches
from macllm.nn.decoder import Decoder

TOLERANCE = 2e-5
BORDER = 16
LENGTH = 30
IDS = tokens(LENGTH)
LONG = {
    **BASE,
    "model_type": "phi3",
    "rope_scaling": LONGROPE,
    "original_max_position_embeddings": BORDER,
    "pad_token_id": None,
}
DYNAMIC = {
    **BASE,
    "model_type": "llama",
    "rope_scaling": {"rope_type": "dynamic", "factor": 3.0},
    "max_position_embeddings": BORDER,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "longrope": LONG,
    "longrope-window": {**LONG, "sliding_window": 5},
    "longrope-mscale": {**LONG, "rope_scaling": {**LONGROPE, "attention_factor": 0.7}},
    "dynamic": DYNAMIC,
    "dynamic-layer": {**DYNAMIC, "num_hidden_layers": 1},
    "dynamic-window": {**DYNAMIC, "model_type": "mistral", "sliding_window": 5, "num_hidden_layers": 1},
}
LONGROPES = ["longrope", "longrope-window", "longrope-mscale"]
# in deeper layers, what a token gave stays what it was at the length the sequence had then
EXACT = [*LONGROPES, "dynamic-layer", "dynamic-window"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def made(name: str) -> Original:
        folder = tmp_path_factory.mktemp(name)
        return write_original(CONFIGS[name], folder)

    return made


@cache
def native(folder: Path) -> Decoder:
    return decoder(folder)


def ends(original: Original, ids: list[int], first: int = 0) -> np.ndarray:
    """For each token from ``first`` on the logits (V) at the end of the sequence up to it, computed at once."""
    original.logits([ids[:2]])  # the original forgets a longer sequence's base only at a short one
    return np.stack([original.logits([ids[: i + 1]])[0, -1] for i in range(first, len(ids))])


def feed(model: Decoder, ids: list[int], chunk: int, caches: list[Any], *, told: bool = False) -> mx.array:
    """Logits (L, V) of ids given in chunks; ``told``: how many follow."""
    parts = []
    for start in range(0, len(ids), chunk):
        part = ids[start : start + chunk]
        ahead = len(ids) - start - len(part) if told else 0
        parts.append(model.logits(model.hidden(mx.array([part]), caches, ahead=ahead)))
    return mx.concatenate(parts, axis=1)[0]


@pytest.mark.parametrize("length", [BORDER - 1, BORDER, BORDER + 1, LENGTH])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_prompt_at_once_equals_the_original(originals: Any, name: str, length: int) -> None:
    original = originals(name)
    original.logits([IDS[:2]])
    expected = original.logits([IDS[:length]])
    assert difference(native(original.folder)(mx.array([IDS[:length]])), expected) < TOLERANCE


@pytest.mark.parametrize("name", EXACT)
def test_each_step_equals_the_sequence_at_once(originals: Any, name: str) -> None:
    model = native(originals(name).folder)
    found = feed(model, IDS, 1, model.make_caches())
    expected = ends(originals(name), IDS)
    assert difference(found, expected) < TOLERANCE
    whole = originals(name).logits([IDS])[0]
    assert difference(found[: BORDER - 1], whole[: BORDER - 1]) > 1e-3  # the border has an effect


@pytest.mark.parametrize("chunk", [4, 17])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_prompt_in_chunks_that_knows_its_length_equals_it_at_once(
    originals: Any, name: str, chunk: int
) -> None:
    model = native(originals(name).folder)
    found = feed(model, IDS, chunk, model.make_caches(), told=True)
    assert difference(found, originals(name).logits([IDS])[0]) < TOLERANCE


@pytest.mark.parametrize("name", LONGROPES)
@pytest.mark.parametrize("chunk", [3, 7, 16])
def test_chunks_beyond_the_border_equal_the_whole(originals: Any, name: str, chunk: int) -> None:
    model = native(originals(name).folder)
    found = feed(model, IDS, chunk, model.make_caches())
    crossing = BORDER // chunk * chunk  # the first token of the chunk that crosses
    assert difference(found[crossing:], originals(name).logits([IDS])[0, crossing:]) < TOLERANCE


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("kept", [0, BORDER - 2, BORDER, BORDER + 1, LENGTH])
def test_a_sequence_taken_back_equals_one_that_never_went_there(originals: Any, name: str, kept: int) -> None:
    """Also to and fro over the border."""
    model, others = native(originals(name).folder), tokens(4, seed=3)
    caches = model.make_caches()
    feed(model, IDS[:8], 8, caches)
    feed(model, IDS[8:], 1, caches)
    for cache_ in caches:
        cache_.rewind(LENGTH - kept)
    twins = [cache_.copy() for cache_ in caches]
    expected = ends(originals(name), IDS[:kept] + others, kept)
    assert difference(feed(model, others, 1, caches), expected) < TOLERANCE
    feed(model, tokens(LENGTH, seed=8), 9, caches)
    assert difference(feed(model, others, 1, twins), expected) < TOLERANCE


@pytest.mark.parametrize("name", EXACT)
def test_padded_rows_on_both_sides_of_the_border_equal_each_alone(originals: Any, name: str) -> None:
    model = native(originals(name).folder)
    rows = [tokens(count, seed=count) for count in (24, 20, 12)]
    padding = [24 - len(row) for row in rows]
    batch = mx.array([[7] * before + row for before, row in zip(padding, rows, strict=True)])
    caches = model.make_caches(padding)
    steps = [model(batch[:, :13], caches), *(model(batch[:, i : i + 1], caches) for i in range(13, 24))]
    found = mx.concatenate(steps, axis=1)
    assert difference(model(batch, model.make_caches(padding))[:, -1], found[:, -1]) < TOLERANCE
    for row, ids, before in zip(found, rows, padding, strict=True):
        assert difference(row[13:], ends(originals(name), ids, 13 - before)) < TOLERANCE


@pytest.mark.parametrize("name", EXACT)
def test_caches_from_a_file_cross_the_border(originals: Any, name: str, tmp_path: Path) -> None:
    model = native(originals(name).folder)
    caches, loaded = model.make_caches(), model.make_caches()
    feed(model, IDS[:14], 1, caches)
    save_caches(tmp_path / "caches.safetensors", caches)
    load_caches(tmp_path / "caches.safetensors", loaded)
    assert difference(feed(model, IDS[14:], 1, loaded), ends(originals(name), IDS, 14)) < TOLERANCE


def test_giving_up_while_the_past_is_computed_again_starts_anew(originals: Any) -> None:
    model = native(originals("longrope").folder)
    session = Session(model)
    feed(model, IDS[:BORDER], 4, list(session.caches))
    session.tokens = IDS[:BORDER]
    calls = []

    def give_up(states: mx.array) -> None:
        calls.append(states.shape)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        model.hidden(mx.array([IDS[BORDER:]]), session.caches, give_up)
    assert calls == [(1, BORDER, 48)]  # the past, not the new tokens
    take_back(session)
    assert session.tokens == []
    assert (
        difference(feed(model, IDS, LENGTH, list(session.caches)), originals("longrope").logits([IDS])[0])
        < TOLERANCE
    )


def test_what_came_before_is_computed_again_once(originals: Any) -> None:
    """Not at every step beyond the border, and not where all of a prompt is known to be beyond."""
    model = native(originals("longrope").folder)
    seen: list[int] = []

    def lengths(ids: list[int], chunk: int, *, told: bool) -> list[int]:
        seen.clear()
        caches = model.make_caches()
        for start in range(0, len(ids), chunk):
            ahead = max(0, len(ids) - start - chunk) if told else 0
            part = mx.array([ids[start : start + chunk]])
            model.hidden(part, caches, lambda states: seen.append(states.shape[1]), ahead)
        return seen[:: len(model.spec.layers) - 1]

    assert lengths(IDS[:20], 1, told=False) == [1] * BORDER + [BORDER] + [1] * 4
    assert lengths(IDS[:20], 5, told=True) == [5, 5, 5, 5]


def test_a_dynamic_context_is_as_many_times_longer_as_its_factor(originals: Any) -> None:
    assert native(originals("dynamic").folder).spec.max_context == 3 * BORDER
    assert native(originals("longrope").folder).spec.max_context == BASE["max_position_embeddings"]
