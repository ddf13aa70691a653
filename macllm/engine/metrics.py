"""What a generation measured. Defined once, here; every screen, file and benchmark shows these figures."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Metrics:
    """Figures of one generation. Seconds, bytes and tokens as the names say.

    ``ttft_s`` runs from submission to the first token. Decode figures leave the first token out: its cost is
    the prefill's. A step's rate is accepted tokens over step time.
    """

    load_s: float = 0.0
    prompt_tokens: int = 0
    reused_tokens: int = 0  # of the prompt, found in a cache and not computed again
    prefill_s: float = 0.0
    prefill_tps: float = 0.0  # computed prompt tokens a second
    ttft_s: float = 0.0
    decode_tokens: int = 0  # all tokens produced, the first included
    decode_s: float = 0.0
    decode_tps: float = 0.0
    step_ms_p50: float = 0.0
    step_ms_p99: float = 0.0
    draft_tested: int = 0  # speculative decoding: drafted tokens verified
    draft_accepted: int = 0
    memory_bytes: int = 0
    peak_memory_bytes: int = 0
    memory_limit_bytes: int = 0
    kv_bytes: int = 0
    dtype: str = ""
    backend: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The figures as a JSON-ready mapping."""
        return asdict(self)
