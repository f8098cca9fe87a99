"""One number for the final losses of several tasks, which do not compare."""

import math
from collections.abc import Mapping

FLOOR = 1e-6  # of ratios: the log of a loss that vanishes would outweigh all others


def score(losses: Mapping[str, float], references: Mapping[str, float] | None = None) -> float:
    """What selection minimises, by part of a task: the loss itself where there is one part.

    Of several, it is the mean of log(loss / reference). A part whose losses are all multiplied
    with a number has the same say. 0 is as good as the references, -1 better by a factor of e.

    Args:
        losses: final losses. One that is not finite makes the score infinite; one below 10⁻⁶ of
            its reference, zero and negative ones included, counts as that.
        references: losses to compare with, positive; 1 for each by default.
    """
    if len(losses) == 1:
        return next(iter(losses.values()))
    if not all(math.isfinite(loss) for loss in losses.values()):
        return math.inf
    ratios = [loss / (references or {}).get(name, 1.0) for name, loss in losses.items()]
    return sum(math.log(max(ratio, FLOOR)) for ratio in ratios) / len(ratios)
