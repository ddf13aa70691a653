"""Softmax attention by its definition: position by position, in float64."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Definition:
    """How scores are made and which keys a query sees."""

    scale: float = 0.25
    window: int | None = None
    chunk: int | None = None
    softcap: float | None = None
    slopes: tuple[float, ...] | None = None
    sinks: tuple[float, ...] | None = None

    def sees(self, query: int, key: int, padding: int) -> bool:
        """Positions within the row's buffer; what is before ``padding`` is none."""
        if key > query or (key < padding and key != query):
            return False
        if self.window is not None and query - key >= self.window:
            return False
        return self.chunk is None or (query - padding) // self.chunk == (key - padding) // self.chunk


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    definition: Definition,
    padding: tuple[int, ...] | None = None,
) -> np.ndarray:
    """(B, H, L, d) over the keys (B, K, S, d), the queries' own the last of them."""
    batch, heads, length, _ = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    out = np.zeros((batch, heads, length, v.shape[-1]))
    for row in range(batch):
        for head in range(heads):
            group = head * kv_heads // heads
            for i in range(length):
                query = keys - length + i
                scores, values = [], []
                for key in range(keys):
                    if not definition.sees(query, key, padding[row] if padding else 0):
                        continue
                    score = float(q[row, head, i] @ k[row, group, key]) * definition.scale
                    if definition.softcap is not None:
                        score = definition.softcap * np.tanh(score / definition.softcap)
                    if definition.slopes is not None:
                        score -= definition.slopes[head] * (query - key)
                    scores.append(score)
                    values.append(v[row, group, key])
                sink = [definition.sinks[head]] if definition.sinks is not None else []
                weights = np.exp(np.array([*scores, *sink]) - max([*scores, *sink]))
                weights /= weights.sum()
                out[row, head, i] = weights[: len(values)] @ np.array(values)
    return out
