"""All bugs that are planted into kernels; ``scripts/docs.py`` makes docs/kernel-check.md of them."""

import planted_attention
import planted_fused
import planted_gguf
import planted_nf4
import planted_skinny
import planted_small

MUTANTS = (
    *planted_nf4.MUTANTS,
    *planted_gguf.MUTANTS,
    *planted_skinny.MUTANTS,
    *planted_fused.MUTANTS,
    *planted_attention.MUTANTS,
    *planted_small.MUTANTS,
)


def page() -> str:
    """The table, as Markdown."""
    head = "| kernel | planted bug | build that must report it |\n| --- | --- | --- |"
    rows = [f"| `{each.kernel}` | {each.bug} | {each.build} |" for each in MUTANTS]
    return "\n".join([head, *rows]) + "\n"
