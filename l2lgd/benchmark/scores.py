"""What the losses of an optimizer are worth beside those of a reference, over tasks and seeds.

A task has as much say as any other, and none is left out. Means over tasks are interquartile
means, with intervals of a bootstrap that draws seeds within each task anew, as Agarwal et al.
(2021, arXiv:2108.13264) propose.
"""

import math

import numpy as np

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
    found, later = losses.copy(), losses[1:]
    sums = np.cumsum(np.vstack([np.zeros_like(losses[:1]), later]), axis=0)
    for step in range(1, len(losses)):
        begin = max(0, step - FINAL_WINDOW)
        if np.isfinite(sums[step]).all():
            found[step] = (sums[step] - sums[begin]) / (step - begin)
        else:
            found[step] = later[begin:step].mean(0)
    return found


def has_diverged(curves: np.ndarray) -> np.ndarray:
    """Of smoothed losses (T + 1, F): does a function end above where it began? (F,)"""
    final = curves[-1]
    ended_well: np.ndarray = np.isfinite(final) & (final <= curves[0])
    return ~ended_well


def loss_ratios(curves: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Final losses over those of the reference on the same functions; infinite what diverged.

    Args:
        curves, reference: smoothed losses (T + 1, F).

    Returns:
        (F,).
    """
    found: np.ndarray = (curves[-1] + TINY) / (reference[-1] + TINY)
    return np.where(has_diverged(curves), math.inf, found)


def speed_ups(curves: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Steps that the reference takes over those that the optimizer takes to the same loss (F,).

    That loss is the worse one of the two final losses, so that both reach it. An optimizer
    that ends where the reference is after half of its steps has 0.5; one that is where the
    reference ends after half of the steps has 2; one that diverged has 0.

    Args:
        curves, reference: smoothed losses (T + 1, F).
    """
    steps = len(curves) - 1
    found = np.zeros(curves.shape[1])
    diverged = has_diverged(curves)
    for one in range(curves.shape[1]):
        if diverged[one]:
            continue
        own, other = curves[:, one], reference[:, one]
        if own[-1] <= other[-1]:
            found[one] = steps / max(1, _first(own <= other[-1]))
        else:
            found[one] = _first(other <= own[-1]) / steps
    return found


def _first(reached: np.ndarray) -> int:
    return int(np.argmax(reached))


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
