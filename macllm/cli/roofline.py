"""What ``macllm explain --roofline`` shows: the most tokens a second by chip, and what a token costs."""

import textwrap
from typing import TYPE_CHECKING, Any

from macllm.cli.output import print_table
from macllm.units import size

if TYPE_CHECKING:
    from macllm.kernels.roofline import Choice, Roofline

HEADS = {"stored": "as is", "8": "8-bit", "4": "4-bit", "nf4": "nf4", "q4_k_m": "Q4_K_M"}
WIDTH = 80
NOTE = (
    "Bounds, not forecasts: every weight that a token is multiplied by and every key and value in view comes from"
    " memory once, at the bandwidth that the chip is sold with; launches are not counted in, so each takes what it"
    " takes on top. Prefill is of a prompt of that length, the weights as they are, on chips whose TFLOPS are"
    " published. By MLX: what a token moves with MLX's own kernels alone."
)


def as_json(found: "Roofline") -> dict[str, Any]:
    """The bounds as a JSON-ready mapping; every key says its unit."""
    return {
        "context_tokens": found.context,
        "choices": [_choice(choice) for choice in found.choices],
        "chips": [
            {
                "name": bound.chip.name,
                "gpu_cores": bound.chip.gpu_cores,
                "bandwidth_gb_per_s": bound.chip.bandwidth_gb_s,
                "tflops": bound.chip.tflops,
                "source": bound.chip.source,
                "decode_tps": dict(bound.decode_tps),
                "prefill_tps": bound.prefill_tps,
            }
            for bound in found.bounds
        ],
    }


def _choice(choice: "Choice") -> dict[str, Any]:
    token = choice.token
    return {
        "weights": choice.name,
        "bits_per_weight": choice.bits_per_weight,
        "read_bytes": token.total.read_bytes,
        "written_bytes": token.total.written_bytes,
        "weights_read_bytes": token.weights.read_bytes,
        "cache_read_bytes": token.cache.read_bytes,
        "operations": token.total.operations,
        "launches": token.total.launches,
        "moved_bytes_by_mlx": choice.token_by_mlx.total.moved_bytes,
    }


def show(found: "Roofline") -> None:
    """Prints the table of chips, then what a token costs."""
    names = [choice.name for choice in found.choices]
    print(f"\nThe most tokens a second, by chip and weights, at {found.context:,} tokens of context:")
    rows = [
        (
            bound.chip.name,
            bound.chip.gpu_cores,
            f"{bound.chip.bandwidth_gb_s:.0f}",
            *(_rate(bound.decode_tps[name]) for name in names),
            _rate(bound.prefill_tps) if bound.prefill_tps is not None else "?",
        )
        for bound in found.bounds
    ]
    heads = ("CHIP", "GPU", "GB/s", *(HEADS[name] for name in names), "PREFILL")
    print_table(heads, rows, right=range(1, len(heads)))
    print("\nWhat one more token costs:")
    print_table(
        ("WEIGHTS", "BITS", "READ", "OF IT KV", "LAUNCHES", "BY MLX"),
        [_cells(choice) for choice in found.choices],
        right=range(1, 6),
    )
    print("\n" + textwrap.fill(NOTE, WIDTH))


def _cells(choice: "Choice") -> tuple[str, ...]:
    total = choice.token.total
    share = choice.token.cache.read_bytes / total.read_bytes
    return (
        HEADS[choice.name],
        f"{choice.bits_per_weight:.2f}",
        size(total.read_bytes),
        f"{share:.0%}",
        str(total.launches),
        f"{choice.token_by_mlx.total.moved_bytes / total.moved_bytes:.2f} x",
    )


def _rate(tokens_per_s: float) -> str:
    return f"{tokens_per_s:.1f}" if tokens_per_s < 99.95 else f"{tokens_per_s:.0f}"
