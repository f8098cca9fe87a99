"""Scores of a benchmark against computations of another kind."""

import math

import numpy as np
import pytest
from scipy.stats import trim_mean

from l2lgd.benchmark.scores import (
    RESAMPLES,
    has_diverged,
    interquartile_mean,
    interval,
    loss_ratios,
    smoothed,
    speed_ups,
)


def test_interquartile_mean_is_that_of_scipy() -> None:
    for tasks, seeds in ((18, 5), (4, 2), (1, 3), (7, 1)):
        scores = np.random.default_rng(tasks).lognormal(size=(tasks, seeds))
        wanted = trim_mean(scores, 0.25, axis=None)
        assert interquartile_mean(scores) == pytest.approx(wanted, abs=1e-9)


def test_interval_draws_seeds_within_tasks() -> None:
    scores = np.random.default_rng(1).lognormal(size=(6, 5))
    draws = np.random.default_rng(0).integers(5, size=(RESAMPLES, 6, 5))
    means = []
    for draw in draws:
        again = [scores[task][draw[task]] for task in range(6)]
        means.append(trim_mean(np.concatenate(again), 0.25))
    means.sort()
    wanted = [means[math.ceil(RESAMPLES * q) - 1] for q in (0.025, 0.975)]
    assert interval(scores) == pytest.approx(wanted, abs=1e-9)


def test_what_differs_between_tasks_alone_has_no_interval() -> None:
    scores = np.repeat(np.arange(8.0)[:, None], 3, axis=1)
    low, high = interval(scores)
    assert low == high == interquartile_mean(scores)


def test_what_diverged_is_the_worst_score_and_is_not_left_out() -> None:
    scores = np.ones((4, 2))
    scores[0] = math.inf
    assert interquartile_mean(scores) == 1  # a quarter is trimmed
    scores[1] = math.inf
    assert interquartile_mean(scores) == math.inf
    assert interval(scores)[1] == math.inf


def test_smoothed_losses_end_with_the_mean_of_the_last_ten() -> None:
    losses = np.random.default_rng(2).random((31, 3))
    found = smoothed(losses, stochastic=True)
    assert found[-1] == pytest.approx(losses[-10:].mean(0))
    assert found[0] == pytest.approx(losses[0])
    assert found[3] == pytest.approx(losses[1:4].mean(0))
    assert smoothed(losses, stochastic=False) is losses


def test_smoothed_losses_are_finite_before_one_that_is_not() -> None:
    losses = np.ones((31, 1))
    losses[20:] = math.nan
    found = smoothed(losses, stochastic=True)
    assert np.isfinite(found[:20]).all()
    assert has_diverged(found).all()


def falling(rate: float, steps: int = 100) -> np.ndarray:
    """exp(−rate·t) (T + 1, 1)."""
    return np.exp(-rate * np.arange(steps + 1.0))[:, None]


def test_speed_up_is_a_ratio_of_steps_in_both_directions() -> None:
    slow, fast = falling(0.01), falling(0.02)
    assert speed_ups(fast, slow) == pytest.approx(2.0)
    assert speed_ups(slow, fast) == pytest.approx(0.5)
    assert speed_ups(slow, slow) == pytest.approx(1.0)


def test_speed_up_of_what_diverged_is_zero() -> None:
    worse = 2 - falling(0.02)
    nan = falling(0.02)
    nan[50:] = math.nan
    for curves in (worse, nan):
        assert speed_ups(curves, falling(0.01)) == 0
        assert loss_ratios(curves, falling(0.01)) == math.inf


def test_each_function_is_compared_with_the_reference_on_the_same() -> None:
    own = np.hstack([falling(0.01), falling(0.03)])
    reference = np.hstack([falling(0.02), falling(0.01)])
    assert speed_ups(own, reference) == pytest.approx([0.5, 100 / 34])
    assert loss_ratios(own, reference) == pytest.approx([math.exp(1), math.exp(-2)])
