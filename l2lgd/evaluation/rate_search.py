"""Searches of rates: a growing grid, or random search."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from l2lgd.errors import UserError

RATES_PER_DECADE = 3
MOST_EXTENSIONS = 15  # five decades beyond either end of the grid


@dataclass(frozen=True)
class Search:
    """Rates that were tried, in ascending order, each with its final validation loss."""

    trials: tuple[tuple[float, float], ...]

    @property
    def best_rate(self) -> float:
        return min(self.trials, key=lambda trial: trial[1])[0]

    @property
    def best_loss(self) -> float:
        return min(loss for _, loss in self.trials)


def grid_search(final_loss: Callable[[float], float], lowest: float, highest: float) -> Search:
    """Three rates per decade from ``lowest`` to ``highest``, then half-way beside the best.

    While the best rate is at an end of the grid, the grid grows beyond it.

    Raises:
        UserError: every rate diverges, or the best is at an end however far the grid grows.
    """
    losses: dict[int, float] = {}  # by sixths of a decade, so that half-way rates are integers too
    spacing = 2

    def rate(index: int) -> float:
        return 10 ** (index / (spacing * RATES_PER_DECADE))

    def visit(index: int) -> None:
        if index not in losses:
            losses[index] = final_loss(rate(index))

    first = round(math.log10(lowest) * RATES_PER_DECADE) * spacing
    last = round(math.log10(highest) * RATES_PER_DECADE) * spacing
    for index in range(first, last + 1, spacing):
        visit(index)

    def best_index() -> int:
        return min(losses, key=lambda index: (losses[index], index))

    for _ in range(MOST_EXTENSIONS):
        best = best_index()
        if best == min(losses):
            visit(best - spacing)
        elif best == max(losses):
            visit(best + spacing)
        else:
            break
    best = best_index()
    if not math.isfinite(losses[best]):
        raise UserError(f"every rate down to {rate(best):.0e} diverges; try a smaller lowest_rate")
    if best in (min(losses), max(losses)):
        raise UserError(
            f"the best rate, {rate(best):.1e}, is still at an end of the grid; give a "
            "lowest_rate and a highest_rate on either side of the best to l2lgd tune"
        )
    for index in (best - 1, best + 1):
        visit(index)
    return Search(tuple((rate(index), losses[index]) for index in sorted(losses)))


def random_search(
    final_loss: Callable[[float], float],
    lowest: float,
    highest: float,
    trials: int,
    generator: torch.Generator,
) -> Search:
    """``trials`` rates, log-uniform between ``lowest`` and ``highest`` (section 3 of the paper).

    Raises:
        UserError: every rate diverges.
    """
    share = torch.rand(trials, generator=generator, dtype=torch.float64).tolist()
    rates = [lowest * (highest / lowest) ** part for part in share]
    found = Search(tuple(sorted((rate, final_loss(rate)) for rate in rates)))
    if not math.isfinite(found.best_loss):
        raise UserError("every rate that was tried diverges; try a smaller highest_rate")
    return found
