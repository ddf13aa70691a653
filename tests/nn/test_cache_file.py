"""Caches on disk: a sequence that goes on from a file equals one that never stopped, for every kind of cache."""

from pathlib import Path

import mlx.core as mx
import pytest
from tiny import decoder, difference, reference, tokens

from macllm.errors import CheckpointError
from macllm.nn.cache import LayerCache
from macllm.nn.cache_file import load_caches, save_caches
from macllm.nn.decoder import Decoder

# all tokens; windows; a latent vector a token; the states of convolutions, of the delta rule, of channels, of Mamba;
# the first ids, for what changes with a sequence's length
KINDS = ["llama", "gemma3", "deepseek-v3", "lfm2-moe", "qwen3-next", "rwkv7", "jamba", "phi3-longrope-short"]
IDS = tokens(150)


def model_of(variant: str) -> Decoder:
    return decoder(reference(variant).folder)


def advanced(
    model: Decoder, ids: list[int], chunk: int, caches: list[LayerCache] | None = None
) -> list[LayerCache]:
    caches = model.make_caches() if caches is None else caches
    for start in range(0, len(ids), chunk):
        model(mx.array([ids[start : start + chunk]]), caches)
    return caches


def reloaded(model: Decoder, caches: list[LayerCache], folder: Path) -> list[LayerCache]:
    save_caches(folder / "cache", caches)
    fresh = model.make_caches()
    load_caches(folder / "cache", fresh)
    return fresh


@pytest.mark.parametrize("variant", KINDS)
@pytest.mark.parametrize(("chunk", "dropped"), [(150, 0), (1, 0), (40, 7), (1, 5)])
def test_going_on_from_a_file_equals_never_having_stopped(
    variant: str, chunk: int, dropped: int, tmp_path: Path
) -> None:
    """Also from caches that have just gone back, and back again after that."""
    model = model_of(variant)
    caches = advanced(model, IDS[:140], chunk)
    for cache in caches:
        cache.rewind(dropped)
    twins = reloaded(model, caches, tmp_path)
    assert [cache.nbytes for cache in twins] == [cache.nbytes for cache in caches]
    assert [cache.rewindable() for cache in twins] == [cache.rewindable() for cache in caches]
    left, right = (model(mx.array([IDS[140:143]]), each) for each in (caches, twins))
    assert mx.array_equal(left, right)
    for cache in twins:
        cache.rewind(3)
    again = model(mx.array([IDS[140:143]]), twins)
    assert difference(again, left) < 2e-5


@pytest.mark.parametrize("variant", KINDS)
def test_padding_is_kept(variant: str, tmp_path: Path) -> None:
    model = model_of(variant)
    caches = model.make_caches([3, 0])
    rows = mx.array([[0, 0, 0, *IDS[:7]], IDS[:10]])
    model(rows, caches)
    twins = reloaded(model, caches, tmp_path)
    following = mx.array([[5], [6]])
    assert mx.array_equal(model(following, caches), model(following, twins))


@pytest.mark.parametrize("variant", KINDS)
def test_empty_caches_can_be_kept_too(variant: str, tmp_path: Path) -> None:
    model = model_of(variant)
    caches = reloaded(model, model.make_caches(), tmp_path)
    assert mx.array_equal(model(mx.array([IDS]), caches), model(mx.array([IDS]), model.make_caches()))


@pytest.mark.parametrize("other", ["gemma3", "lfm2"])
def test_the_file_of_another_model_is_refused(other: str, tmp_path: Path) -> None:
    save_caches(tmp_path / "cache", advanced(model_of("llama"), IDS[:5], 5))
    with pytest.raises(CheckpointError, match="not the caches of this model"):
        load_caches(tmp_path / "cache", model_of(other).make_caches())


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    caches = advanced(model_of("llama"), IDS[:5], 5)
    save_caches(tmp_path / "cache", caches)
    (tmp_path / "cache").write_bytes((tmp_path / "cache").read_bytes()[:200])
    with pytest.raises(CheckpointError, match="delete the file"):
        load_caches(tmp_path / "cache", caches)
