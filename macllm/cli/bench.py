"""``macllm bench``: how fast a model reads and writes on this machine."""

import argparse
from typing import TYPE_CHECKING, Any

from macllm.cli.options import add_dtype, add_json, add_kv_bits, positive
from macllm.cli.output import print_json, print_table
from macllm.cli.progress import Progress
from macllm.units import size

if TYPE_CHECKING:
    from macllm.engine.benchmark import Benchmark, Summary
    from macllm.engine.bound import DecodeBound

HELP = "Measure load time, prefill and decode speed, and memory of a model on this machine."


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument("model", metavar="MODEL", help="an installed or catalogue name, a repository, a path")
    parser.add_argument(
        "--prompt-tokens", type=positive, default=512, metavar="N", help="length of the prompt (512)"
    )
    parser.add_argument(
        "--decode-tokens", type=positive, default=64, metavar="N", help="tokens decoded after it (64)"
    )
    parser.add_argument(
        "--repeats", type=positive, default=3, metavar="N", help="runs; medians are shown (3)"
    )
    parser.add_argument(
        "--tui", action="store_true", help="measure instead what the app's screen costs: with it and without"
    )
    add_dtype(parser)
    add_kv_bits(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Loads the model, measures it, shows the medians."""
    return _screen(args) if args.tui else _model(args)


def _screen(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from macllm.cli.download import DownloadDisplay
    from macllm.hub.pull import find
    from macllm_tui.bench import measure
    from macllm_tui.model_refs import resolve

    with DownloadDisplay(args.model) as display:
        find(args.model, display)
    ref = replace(resolve(args.model), dtype=args.dtype, kv_bits=args.kv_bits)
    cost = measure(ref, tokens=args.decode_tokens, rounds=args.repeats)
    if args.json:
        print_json({"model": ref.name, **cost.as_dict()})
        return 0
    rows = [
        ("engine alone", f"{cost.engine_tps:.1f} tok/s"),
        ("with the app", f"{cost.app_tps:.1f} tok/s"),
        ("ratio", f"{cost.ratio:.3f}"),
        ("event loop late, median", f"{cost.loop_lag_ms_p50:.1f} ms"),
        ("event loop late, 99th percentile", f"{cost.loop_lag_ms_p99:.1f} ms"),
    ]
    print_table(("", ref.name), rows, right=[1])
    return 0


def _model(args: argparse.Namespace) -> int:
    from macllm.cli.loading import load
    from macllm.engine.benchmark import Benchmark, measure, summarize
    from macllm.engine.bound import decode_bound

    benchmark = Benchmark(args.prompt_tokens, args.decode_tokens, args.repeats)
    llm = load(args.model, args.dtype, args.kv_bits)
    runs = []
    with Progress(f"measuring {llm.name}", benchmark.repeats, unit="runs") as bar:
        for metrics in measure(llm.loaded, benchmark):
            runs.append(metrics)
            bar.update(len(runs))
    summary = summarize(runs)
    bound = decode_bound(llm.loaded, benchmark.mean_context)
    if args.json:
        print_json(_as_json(llm.name, benchmark, summary, bound, [metrics.as_dict() for metrics in runs]))
    else:
        print_table(("", llm.name), [*_table(benchmark, summary), *_bounded(summary, bound)], right=[1])
    return 0


def _table(benchmark: "Benchmark", s: "Summary") -> list[tuple[str, str]]:
    return [
        ("load", f"{s.load_s:.2f} s"),
        (f"prefill, {benchmark.prompt_tokens} tokens", f"{s.prefill_tps:.0f} tok/s"),
        ("time to first token", f"{s.ttft_s:.2f} s"),
        (f"decode, {benchmark.decode_tokens} tokens", f"{s.decode_tps:.1f} tok/s"),
        ("step, median", f"{s.step_ms_p50:.1f} ms"),
        ("step, 99th percentile", f"{s.step_ms_p99:.1f} ms"),
        ("memory, peak", size(s.peak_memory_bytes)),
        ("KV cache", size(s.kv_bytes)),
        ("computed on", f"{s.backend}, {s.dtype}"),
    ]


def _bounded(s: "Summary", bound: "DecodeBound | None") -> list[tuple[str, str]]:
    if bound is None:
        return []
    return [
        (f"memory, {bound.bandwidth_from}", f"{bound.bandwidth_gb_per_s:.0f} GB/s"),
        ("decode, at most", f"{bound.decode_bound_tps:.1f} tok/s"),
        ("decode, measured of that", f"{s.decode_tps / bound.decode_bound_tps:.0%}"),
    ]


def _as_json(
    model: str,
    benchmark: "Benchmark",
    summary: "Summary",
    bound: "DecodeBound | None",
    runs: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "model": model,
        "prompt_tokens": benchmark.prompt_tokens,
        "decode_tokens": benchmark.decode_tokens,
        "repeats": benchmark.repeats,
        **summary.as_dict(),
        "decode_bound_tps": bound.decode_bound_tps if bound is not None else None,
        "decode_of_bound": summary.decode_tps / bound.decode_bound_tps if bound is not None else None,
        "bandwidth_gb_per_s": bound.bandwidth_gb_per_s if bound is not None else None,
        "bandwidth_from": bound.bandwidth_from if bound is not None else None,
        "runs": runs,
    }
