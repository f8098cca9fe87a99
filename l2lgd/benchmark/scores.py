"""What the losses of an optimizer are worth beside those of a reference, over tasks and seeds.

A task has as much say as any other, and none is left out. Means over tasks are interquartile
means, with intervals of a bootstrap that draws seeds within each task anew, as Agarwal et al.
(2021, arXiv:2108.13264) propose.
"""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from l2lgd.results.curves import FINAL_WINDOW

RESAMPLES = 2000
ENDS = [0.025, 0.975]
TINY = np.finfo(np.float32).tiny  # so that two losses of 0 have the ratio 1
TRIMMED = 0.25  # of the scores, at either end


def smoothed(losses: np.ndarray, stochastic: bool) -> np.ndarray:
    """Losses (T + 1, F), where they are stochastic each the mean of the last ten up to it.

    The last of them is the final loss. f(θ_0) stays as it is, and is in no mean.
    """
    if not stochastic:
        return losses
    found, window = losses.copy(), min(FINAL_WINDOW, len(losses) - 1)
    for step in range(1, window):
        found[step] = losses[1 : step + 1].mean(0)
    found[window:] = sliding_window_view(losses[1:], window, axis=0).mean(-1)
    return found


def has_diverged(curves: np.ndarray) -> np.ndarray:
    """Of smoothed losses (T + 1, F): does a function end above where it began? (F,)"""
    final = curves[-1]
    ended_well: np.ndarray = np.isfinite(final) & (final <= curves[0])
    return ~ended_well


def loss_ratios(
    losses: np.ndarray, others: np.ndarray, diverged: np.ndarray, others_diverged: np.ndarray
) -> np.ndarray | None:
    """Losses over those of the reference on the same functions (F,); None where some are negative.

    A run that diverged has an infinite ratio, whatever the reference does; against a reference
    that diverged alone, the ratio is 0.

    Args:
        losses, others: at the end, of the optimizer and the reference (F,).
        diverged, others_diverged: which of them diverged (F,).
    """
    if (losses[np.isfinite(losses)] < 0).any() or (others[np.isfinite(others)] < 0).any():
        return None
    with np.errstate(invalid="ignore"):
        found = (losses + TINY) / (others + TINY)
    found = np.where(others_diverged | ~np.isfinite(others), 0.0, found)
    ratios: np.ndarray = np.where(diverged | ~np.isfinite(losses), math.inf, found)
    return ratios


def speed_ups(curves: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Steps that the reference takes over those that the optimizer takes to the same loss (F,).

    That loss is the worse one of the two final losses, so that both reach it; they have reached
    it when they stay there to the end. An optimizer that ends where the reference is after half
    of its steps has 0.5; one that is where the reference ends after half of the steps has 2; the
    same final loss is 1. One that diverged has 0, and T against a reference that diverged alone.

    Args:
        curves, reference: smoothed losses (T + 1, F).
    """
    steps, found = len(curves) - 1, np.zeros(curves.shape[1])
    diverged, lost = has_diverged(curves), has_diverged(reference)
    for one in np.flatnonzero(~diverged):
        own, other = curves[:, one], reference[:, one]
        if lost[one]:
            found[one] = steps
        elif own[-1] == other[-1]:
            found[one] = 1.0
        elif own[-1] < other[-1]:
            found[one] = steps / max(1, _reached(own, other[-1]))
        else:
            found[one] = _reached(other, own[-1]) / steps
    return found


def _reached(curve: np.ndarray, level: float) -> int:
    """The step from which on a curve that ends below a level stays at or below it."""
    above = np.flatnonzero(~(curve <= level))
    return int(above[-1]) + 1 if len(above) else 0


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half of all scores (…, tasks, seeds) → (…)."""
    values = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    count = values.shape[-1]
    cut = int(TRIMMED * count)
    middle: np.ndarray = values[..., cut : count - cut]
    means: np.ndarray = middle.mean(-1)
    return means


def interval(scores: np.ndarray) -> np.ndarray:
    """95 % interval of the interquartile mean of scores (tasks, seeds): low and high (2,).

    Seeds are drawn anew within each task. Always the same draws, so that the interval of given
    scores is a fixed number.
    """
    tasks, seeds = scores.shape
    draws = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, tasks, seeds))
    resampled = np.take_along_axis(np.broadcast_to(scores, draws.shape), draws, axis=2)
    means = interquartile_mean(resampled)
    # Between a finite and an infinite mean there is none that says anything.
    ends: np.ndarray = np.quantile(means, ENDS, method="inverted_cdf")
    return ends
