"""Completions that a model writes itself, several rows in one batch, by a seed and nothing else.

Prompts of different lengths end together: what stands before the shorter ones is padding to the caches, in every
family. What a row becomes depends on the weights, the batch and the seed alone, so a run that goes on draws the same.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from macllm.nn.cache import LayerCache
from macllm.nn.decoder import Decoder

_PREFILL = 256  # prompt tokens a pass
_LOOK = 8  # steps between two looks at whether all rows have ended


@dataclass(frozen=True, eq=False)
class Completion:
    """Ids (T,) with the token that ended it, and log p (T,) of each under the distribution it was drawn from.

    ``ended``: by a token to stop at, not by the limit.
    """

    ids: NDArray[np.int32]
    log_probs: NDArray[np.float32]
    ended: bool

    def __len__(self) -> int:
        return len(self.ids)


def roll_out(
    model: Decoder,
    prompts: Sequence[NDArray[np.int32]],
    stop_ids: Set[int],
    limit: int,
    *,
    copies: int = 1,
    temperature: float = 1.0,
    seed: int = 0,
) -> tuple[Completion, ...]:
    """``copies`` completions, one after the other, of at most ``limit`` tokens for each prompt (P,), P at least 1.

    Drawn from all of the distribution at ``temperature``, above 0. A prompt is computed once for all of its copies.
    """
    hidden, caches = _prefilled(model, prompts, copies)
    keys = mx.random.split(mx.random.key(seed), limit)
    stops = np.array(sorted(stop_ids), dtype=np.int32)
    drawn: list[mx.array] = []  # of every step (B,)
    likely: list[mx.array] = []
    ended = np.zeros(len(prompts) * copies, bool)
    for step in range(limit):
        token, log_prob = _drawn(model.logits(hidden)[:, -1], temperature, keys[step])
        drawn.append(token)
        likely.append(log_prob)
        if step + 1 == limit:
            break
        hidden = model.hidden(token[:, None], caches)  # (B, 1, D)
        # with what is likely: until that is computed, it keeps the logits of its step
        mx.async_eval(hidden, log_prob, [cache.arrays() for cache in caches])
        if len(drawn) % _LOOK == 0:
            ended |= np.isin(np.array(mx.stack(drawn[-_LOOK:], axis=1)), stops).any(axis=1)
            if ended.all():
                break
    ids = np.array(mx.stack(drawn, axis=1), dtype=np.int32)  # (B, T)
    log_probs = np.array(mx.stack(likely, axis=1), dtype=np.float32)
    return tuple(_cut(*row, stops) for row in zip(ids, log_probs, strict=True))


def _prefilled(
    model: Decoder, prompts: Sequence[NDArray[np.int32]], copies: int
) -> tuple[mx.array, list[LayerCache]]:
    """The states (B, 1, D) of the prompts' last tokens, and the caches that hold all of them; B with all copies."""
    if model.spec.border is not None:  # the cache of its ids knows each row by its number
        prompts, copies = [prompt for prompt in prompts for _ in range(copies)], 1
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    rows = [np.pad(prompt, (before, 0)) for prompt, before in zip(prompts, padding, strict=True)]
    tokens = mx.array(np.stack(rows).astype(np.int32))  # (B, longest)
    caches = model.make_caches(padding)
    for start in range(0, longest, _PREFILL):
        part = tokens[:, start : start + _PREFILL]
        hidden = model.hidden(part, caches, ahead=longest - start - part.shape[1])
        mx.eval(hidden, [cache.arrays() for cache in caches])
    if copies == 1:
        return hidden[:, -1:], caches
    wide = model.make_caches([before for before in padding for _ in range(copies)])
    for empty, cache in zip(wide, caches, strict=True):
        arrays, numbers = cache.content()
        empty.restore({name: mx.repeat(one, copies, axis=0) for name, one in arrays.items()}, numbers)
    return mx.repeat(hidden[:, -1:], copies, axis=0), wide


def _drawn(logits: mx.array, temperature: float, key: mx.array) -> tuple[mx.array, mx.array]:
    """Ids (B,) drawn from logits (B, V), and log p (B,) of each."""
    scaled = logits.astype(mx.float32) / temperature
    token = mx.random.categorical(scaled, key=key)
    own = mx.take_along_axis(scaled, token[:, None], axis=-1)[:, 0]
    return token, own - mx.logsumexp(scaled, axis=-1)


def _cut(ids: NDArray[np.int32], log_probs: NDArray[np.float32], stops: NDArray[np.int32]) -> Completion:
    """A row up to its first token to stop at."""
    found = np.flatnonzero(np.isin(ids, stops))
    length = int(found[0]) + 1 if len(found) else len(ids)
    return Completion(ids[:length].copy(), log_probs[:length].copy(), bool(len(found)))
