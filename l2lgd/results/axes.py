"""Logarithmic axes with ticks that people can read, and what range of losses they show."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

FINE_TICKS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)  # times powers of ten
TICKS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
FEW_DECADES, MANY_DECADES = 1.6, 3.5
FEWEST_TICKS = 3
LARGE = 1e4  # losses from which on labels count in powers of ten


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis; none where it spans so much that powers of ten do."""
    from matplotlib.ticker import MaxNLocator

    decades = np.log10(high / low)
    if decades > MANY_DECADES:
        return []
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps: Sequence[float] = (1.0, 3.0)
    if decades < FEW_DECADES:
        steps = FINE_TICKS if decades < 0.6 else TICKS if decades < 1 else (1.0, 2.0, 4.0)
    ticks = [float(p * t) for p in powers for t in steps if low <= p * t <= high]
    if len(ticks) >= FEWEST_TICKS:
        return ticks
    return [float(tick) for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]


def log_axis(axes: Any, which: str, low: float, high: float) -> None:
    """Make the ``x`` or ``y`` axis logarithmic and label it, even in less than a decade."""
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    ticks = log_ticks(low, high)
    if ticks:
        axis = getattr(axes, f"{which}axis")
        axis.set_ticks(ticks, [f"{tick:.6g}" for tick in ticks])
        axis.set_ticks([], minor=True)


def loss_range(
    means: Iterable[np.ndarray], lows: Iterable[np.ndarray], decades: float = 9.0
) -> tuple[float, float] | None:
    """From the lowest loss to about the first; what explodes leaves the axis at the top.

    Args:
        means, lows: of each optimizer at every step, and the lower ends of the intervals.
        decades: at most.

    Returns:
        None where no loss is positive.
    """
    curves, bounds = list(means), np.concatenate(list(lows))
    every = np.concatenate(curves)
    positive = every[np.isfinite(every) & (every > 0)]
    if not positive.size:
        return None
    lowest, highest = float(positive.min()), float(positive.max())
    starts = np.array([curve[0] for curve in curves])
    starts = starts[np.isfinite(starts) & (starts > 0)]
    top = highest
    if starts.size:
        top = min(float(starts.max()), 1.6 * float(np.median(starts)), highest)
    bounds = bounds[np.isfinite(bounds) & (bounds > 0)]
    bottom = max(float(bounds.min(initial=lowest)), lowest / 2)
    return max(0.95 * bottom, top * 10**-decades), 1.25 * max(top, bottom)


def unit_of(lowest: float) -> tuple[float, str]:
    """What large losses are divided by, and how their label says so."""
    if not lowest >= LARGE:
        return 1.0, ""
    exponent = 3 * int(np.log10(lowest) // 3)
    superscript = str(exponent).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return 10.0**exponent, f" / 10{superscript}"
