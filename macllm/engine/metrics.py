"""What a generation measured. Defined once, here; every screen, file and benchmark shows these figures."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Metrics:
    """Figures of one generation. Seconds, bytes and tokens as the names say.

    ``ttft_s`` runs from the moment the request was received to the first token, so beyond ``prefill_s`` it
    holds what the request waited for: a load, another request. Decode figures leave the first token out: its
    cost is the prefill's. A step's rate is accepted tokens over step time.
    """

    load_s: float = 0.0
    prompt_tokens: int = 0
    reused_tokens: int = 0  # of the prompt, found in a cache and not computed again
    prefill_s: float = 0.0
    prefill_tps: float = 0.0  # computed prompt tokens a second; while prefilling, of those computed so far
    ttft_s: float = 0.0
    decode_tokens: int = 0  # all tokens produced, the first and the thought ones included
    decode_s: float = 0.0
    decode_tps: float = 0.0
    recent_tps: float = 0.0  # median of the last 32 steps' rates
    step_ms_p50: float = 0.0
    step_ms_p99: float = 0.0
    thinking_tokens: int = 0  # of ``decode_tokens``, those of thinking sections with their marks
    thinking_s: float = 0.0  # the steps that made them
    draft_tested: int = 0  # speculative decoding: drafted tokens verified
    draft_accepted: int = 0
    draft_rounds: int = 0  # verifications: runs of the model over a draft
    context_tokens: int = 0  # the prompt and what was produced
    max_context: int = 0  # what the model's context holds
    memory_bytes: int = 0
    peak_memory_bytes: int = 0
    memory_limit_bytes: int = 0
    memory_pressure: str = ""  # of the whole machine: normal, warn, critical; "" where nothing says
    kv_bytes: int = 0
    kv_by_kind: Mapping[str, int] = field(default_factory=dict)  # the same bytes: full, sliding, other
    dtype: str = ""
    backend: str = ""

    @property
    def mean_accepted(self) -> float:
        """Tokens gained a verification: the accepted part of the draft and the one the model adds itself.

        Between 1 (no draft was right) and the draft's length + 1; 0 without speculation. It is the mean of the
        generated tokens an iteration in Leviathan et al., "Fast Inference from Transformers via Speculative
        Decoding" (2023), also called the mean acceptance length.
        """
        return (self.draft_accepted + self.draft_rounds) / self.draft_rounds if self.draft_rounds else 0.0

    @property
    def acceptance(self) -> float:
        """The share of verified draft tokens that the model accepted; 0 without speculation."""
        return self.draft_accepted / self.draft_tested if self.draft_tested else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The fields as a JSON-ready mapping; ``Metrics(**mapping)`` is the same figures again."""
        return asdict(self)
