"""Where queries look in a buffer of keys, and what becomes of their scores."""

from dataclasses import dataclass

MOST_QUERIES = 8  # of the kernels; more are a prompt's
_SPLIT_FROM, _BLOCK, _MOST_BLOCKS = 512, 256, 64  # keys from which they are cut into blocks of about so many


@dataclass(frozen=True)
class Reach:
    """The places ``start`` to ``stop`` are in view; the last of them are the queries' own."""

    start: int
    stop: int
    scale: float  # of the scores
    window: int | None = None  # tokens seen, the query's own included
    softcap: float | None = None

    def first(self, queries: int) -> int:
        """The first place that any of so many queries sees."""
        if self.window is None:
            return self.start
        return max(self.start, self.stop - queries - self.window + 1)


def blocks_of(keys: int) -> int:
    """Blocks that so many keys are cut into: few keys are one, whose result needs no second kernel."""
    return 1 if keys <= _SPLIT_FROM else min(-(-keys // _BLOCK), _MOST_BLOCKS)
