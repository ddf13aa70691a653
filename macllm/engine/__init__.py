"""Token ids in, typed events out: prefill, decode, sampling and what they measure."""
