"""Losses at chosen steps, and ratios to the best tuned optimizer, of evaluations in their folders.

A loss is a mean over functions and, where minibatches are random, over the ten steps that end with
the chosen one. The baseline is
the hand-designed optimizer with the lowest final loss on the same functions, and beside it the one
that is lowest at the step itself. Intervals of 95 % resample the functions, which all optimizers
share.

python scripts/tools/ratios.py outputs/results/cifar10 --steps 100 400 1000
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from l2lgd.errors import ConfigError, UserError
from l2lgd.results.curves import Curves, bootstrap_interval
from l2lgd.results.losses import read

RESAMPLES = 10000


def at_step(curves: Curves, step: int) -> np.ndarray:
    """What is compared at ``step``, for each function (F,)."""
    return replace(curves, losses=curves.losses[: step + 1]).final_losses()


def ratio_interval(numerator: np.ndarray, denominator: np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap of a ratio of means over the same functions (F,)."""
    count = len(numerator)
    picks = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    low, high = np.quantile((picks @ numerator) / (picks @ denominator), [0.025, 0.975])
    return float(low), float(high)


def table(folder: Path, steps: list[int]) -> Table:
    """One row an optimizer, one column a step.

    Raises:
        CheckpointError: the folder has no losses.
        ConfigError: a step that was not run, or only learned optimizers.
    """
    curves, about = read(folder)
    hand_designed = [name for name, a in about.items() if "weights" not in a["key"]]
    num_steps, count = next(iter(curves.values())).losses[1:].shape
    if not hand_designed:
        raise ConfigError(f"{folder}: has no hand-designed optimizer to compare with")
    if not all(1 <= step <= num_steps for step in steps):
        raise ConfigError(f"--steps: must be from 1 to {num_steps}, the steps in {folder}")
    best = min(hand_designed, key=lambda name: curves[name].final_loss())
    found = Table(
        title=f"{folder}\n{count} functions, × ratio to {best}, × to the best at that step"
    )
    found.add_column("optimizer")
    for step in steps:
        found.add_column(f"step {step}", justify="right")
    for name in curves:
        cells = []
        for step in steps:
            own = at_step(curves[name], step)
            low, high = bootstrap_interval(own)
            alone = len(own) == 1  # one function has no interval
            cell = f"{own.mean():#.4g} ({'–' if alone else f'{low:#.3g} … {high:#.3g}'})"
            if name not in hand_designed:
                reference = at_step(curves[best], step)
                lowest = min(at_step(curves[other], step).mean() for other in hand_designed)
                low, high = ratio_interval(own, reference)
                ratio = own.mean() / reference.mean()
                interval = "–" if alone else f"{low:.3f} … {high:.3f}"
                cell += f"\n× {ratio:.3f} ({interval}), × {own.mean() / lowest:.3f}"
            cells.append(cell)
        found.add_row(name, *cells)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--steps", nargs="+", type=int, required=True)
    arguments = parser.parse_args()
    try:
        for folder in arguments.folders:
            Console(width=160).print(table(folder, arguments.steps))
    except UserError as problem:
        print(f"ratios.py: {problem}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
