"""What sampling means, in plain NumPy and loops, one row at a time in float64: slow, and easy to check by eye."""

from collections.abc import Sequence

import numpy as np

LONGEST = 50  # DRY measures repeated sequences up to this length


def bias(logits: np.ndarray, biases: dict[int, float]) -> np.ndarray:
    out = logits.copy()
    for token, value in biases.items():
        out[token] += value
    return out


def window(tokens: Sequence[int], context: int) -> list[int]:
    return list(tokens) if context == 0 else list(tokens)[-context:]


def repetition(logits: np.ndarray, recent: Sequence[int], penalty: float) -> np.ndarray:
    out = logits.copy()
    for token in set(recent):
        out[token] = out[token] / penalty if out[token] > 0 else out[token] * penalty
    return out


def presence(logits: np.ndarray, recent: Sequence[int], penalty: float) -> np.ndarray:
    out = logits.copy()
    for token in set(recent):
        out[token] -= penalty
    return out


def frequency(logits: np.ndarray, recent: Sequence[int], penalty: float) -> np.ndarray:
    out = logits.copy()
    for token in recent:
        out[token] -= penalty
    return out


def dry(
    logits: np.ndarray,
    recent: Sequence[int],
    multiplier: float,
    base: float,
    allowed: int,
    breakers: Sequence[int],
) -> np.ndarray:
    longest: dict[int, int] = {}  # for each token, the longest repeated sequence that it would carry on
    for place in range(1, len(recent)):
        token = recent[place]
        if token in breakers:
            continue
        length = 0
        while length < min(place, LONGEST):
            earlier, last = recent[place - 1 - length], recent[len(recent) - 1 - length]
            if earlier != last or last in breakers:
                break
            length += 1
        longest[token] = max(longest.get(token, 0), length)
    out = logits.copy()
    for token, length in longest.items():
        if length >= allowed:
            out[token] -= min(multiplier * base ** (length - allowed), 3e38)
    return out


def processed(
    logits: np.ndarray, tokens: Sequence[int], settings, breakers: Sequence[int] = ()
) -> np.ndarray:
    """All of ``settings`` (a Sampling) that changes logits, in the documented order."""
    out = bias(logits.astype(np.float64), dict(settings.logit_bias))
    recent = window(tokens, settings.repetition_context)
    if settings.repetition_penalty != 1.0:
        out = repetition(out, recent, settings.repetition_penalty)
    out = presence(out, recent, settings.presence_penalty)
    out = frequency(out, recent, settings.frequency_penalty)
    if settings.dry_multiplier > 0:
        out = dry(
            out,
            window(tokens, settings.dry_context),
            settings.dry_multiplier,
            settings.dry_base,
            settings.dry_allowed_length,
            breakers,
        )
    return out


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def only(probabilities: np.ndarray, kept: Sequence[int]) -> np.ndarray:
    out = np.zeros_like(probabilities)
    for token in kept:
        out[token] = probabilities[token]
    return out / out.sum()


def top_k(probabilities: np.ndarray, logits: np.ndarray, k: int) -> np.ndarray:
    """The k most likely and what ties with the last of them; ``logits`` order the tokens."""
    if k == 0 or k >= len(logits):
        return probabilities
    last = sorted(logits, reverse=True)[k - 1]
    return only(probabilities, [token for token, logit in enumerate(logits) if logit >= last])


def top_p(probabilities: np.ndarray, logits: np.ndarray, p: float) -> np.ndarray:
    """Each token whose strictly more likely rivals together have less than ``p``."""
    if p >= 1.0:
        return probabilities
    kept: list[int] = []
    above = 0.0
    for level in sorted(set(logits), reverse=True):
        if above >= p:
            break
        tied = [token for token, logit in enumerate(logits) if logit == level]
        kept += tied
        above += sum(probabilities[token] for token in tied)
    return only(probabilities, kept)


def min_p(probabilities: np.ndarray, ratio: float) -> np.ndarray:
    if ratio == 0.0:
        return probabilities
    best = max(probabilities)
    return only(probabilities, [t for t, value in enumerate(probabilities) if value >= ratio * best])


def xtc(probabilities: np.ndarray, threshold: float, keep: Sequence[int]) -> np.ndarray:
    """What a step draws from when XTC acts."""
    hot = [t for t, value in enumerate(probabilities) if value > 0 and value >= threshold]
    if len(hot) < 2:
        return probabilities
    least = min(probabilities[t] for t in hot)
    dropped = [t for t in hot if probabilities[t] > least]
    if any(token in keep for token in dropped):
        return probabilities
    return only(probabilities, [t for t in range(len(probabilities)) if t not in dropped])


def distribution(logits: np.ndarray, settings, keep: Sequence[int] = ()) -> np.ndarray:
    """The probabilities (V,) that a draw follows under ``settings`` (a Sampling)."""
    logits = logits.astype(np.float64)
    if settings.temperature == 0.0:
        return only(np.ones(len(logits)), [int(np.argmax(logits))])
    out = softmax(logits / settings.temperature)
    out = top_k(out, logits, settings.top_k)
    out = top_p(out, np.where(out > 0, logits, -np.inf), settings.top_p)
    out = min_p(out, settings.min_p)
    acted = xtc(out, settings.xtc_threshold, keep)
    return (1 - settings.xtc_probability) * out + settings.xtc_probability * acted


def margin(logits: np.ndarray, settings) -> float:
    """How near the nearest token is to being kept or dropped otherwise: within rounding no two ways agree."""
    logits = logits.astype(np.float64)
    out = top_k(softmax(logits / settings.temperature), logits, settings.top_k)
    gaps = [1.0]
    if settings.top_p < 1.0:
        for level in sorted(set(logits), reverse=True)[1:]:  # the first has exactly nothing above it
            above = sum(out[t] for t in range(len(logits)) if logits[t] > level)
            gaps.append(abs(above - settings.top_p) / settings.top_p)
        out = top_p(out, np.where(out > 0, logits, -np.inf), settings.top_p)
    if settings.min_p > 0.0:
        ratios = [value for value in out / out.max() if 0.0 < value < 1.0]  # a tie with the best is exact
        gaps += [abs(ratio - settings.min_p) / settings.min_p for ratio in ratios]
        out = min_p(out, settings.min_p)
    if settings.xtc_probability > 0.0 and settings.xtc_threshold > 0.0:
        gaps += [abs(value - settings.xtc_threshold) / settings.xtc_threshold for value in out if value > 0.0]
    return min(gaps)


def stopped(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """The text before the first stop string completed (the longest of several), and which one it was."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            found = max(complete, key=len)
            return text[: end - len(found)], found
    return text, None
