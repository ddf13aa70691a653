"""Whether a run has gone astray: losses far above those before, several steps in a row."""

import statistics
from collections.abc import Sequence

WINDOW = 32  # calm steps that the next one is held against
_FEWEST = 8  # of them, before anything is called far
PATIENCE = 5  # far steps in a row that end a run: one bad batch does not
_DEVIATIONS = 10


def far(loss: float, calm: Sequence[float]) -> bool:
    """Whether ``loss`` lies far above the ``calm`` ones: twice their median's height and ten deviations."""
    if len(calm) < _FEWEST:
        return False
    middle = statistics.median(calm)
    deviation = 1.4826 * statistics.median(abs(one - middle) for one in calm)
    return loss > middle + max(_DEVIATIONS * deviation, abs(middle))
