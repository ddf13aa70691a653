"""The figures of one reply as one line: under it in the app, after it in plain chat, on each side of a comparison."""

from macllm.engine.metrics import Metrics


def figures(metrics: Metrics) -> str:
    """Speed, length, time to first token, what a cache held, what drafting gave, how long it thought.

    Only what there is: ``71.3 tok/s · 412 tok · TTFT 0.41 s · 1812 reused · 78 % accepted``. Nothing at all gives "".
    """
    m = metrics
    parts = []
    if m.decode_tps > 0:
        parts.append(f"{m.decode_tps:.1f} tok/s")
    if m.decode_tokens:
        parts.append(f"{m.decode_tokens} tok")
    elif m.prompt_tokens:  # it ended while the prompt was read
        parts.append(f"{m.prompt_tokens} prompt tok")
    if m.ttft_s > 0:
        parts.append(f"TTFT {m.ttft_s:.2f} s")
    if m.reused_tokens:
        parts.append(f"{m.reused_tokens} reused")
    if m.draft_tested:
        parts.append(f"{100 * m.acceptance:.0f} % accepted")
    if m.thinking_s > 0:
        parts.append(f"thought {m.thinking_s:.1f} s")
    return " · ".join(parts)


def waits(metrics: Metrics) -> tuple[float, float]:
    """What the time to first token holds beside the prefill: seconds of loading the model, seconds in the queue."""
    waited = max(metrics.ttft_s - metrics.prefill_s, 0.0)
    load = metrics.load_s if 0 < metrics.load_s <= waited else 0.0  # else the model was there before
    return load, waited - load
