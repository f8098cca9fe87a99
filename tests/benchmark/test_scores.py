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
    restless = slow + 0.1 * np.sin(np.arange(101.0))[:, None]
    assert speed_ups(restless, restless) == 1


def ratios(curves: np.ndarray, reference: np.ndarray) -> np.ndarray | None:
    both = has_diverged(curves), has_diverged(reference)
    return loss_ratios(curves[-1], reference[-1], *both)


def lost(curves: np.ndarray) -> np.ndarray:
    found = curves.copy()
    found[50:] = math.nan
    return found


def test_what_diverged_is_the_worst_whatever_the_reference_does() -> None:
    worse = 2 - falling(0.02)
    for curves in (worse, lost(falling(0.02))):
        for reference in (falling(0.01), worse, lost(falling(0.01))):
            assert speed_ups(curves, reference) == 0
            assert ratios(curves, reference) == math.inf


def test_a_reference_that_diverged_alone_has_lost() -> None:
    for reference in (lost(falling(0.01)), 2 - falling(0.02)):
        assert speed_ups(falling(0.01), reference) == 100
        assert ratios(falling(0.01), reference) == 0


def test_losses_of_zero_are_equal_and_negative_ones_have_no_ratio() -> None:
    nothing = falling(0.01)
    nothing[60:] = 0
    assert ratios(nothing, nothing) == 1
    assert ratios(falling(0.01) - 1, falling(0.02)) is None
    assert speed_ups(falling(0.02) - 1, falling(0.01) - 1) == pytest.approx(2.0)


def test_each_function_is_compared_with_the_reference_on_the_same() -> None:
    own = np.hstack([falling(0.01), falling(0.03)])
    reference = np.hstack([falling(0.02), falling(0.01)])
    assert speed_ups(own, reference) == pytest.approx([0.5, 100 / 34])
    assert ratios(own, reference) == pytest.approx([math.exp(1), math.exp(-2)])


def test_one_low_minibatch_is_not_an_arrival() -> None:
    noise = 0.01 * np.random.default_rng(3).standard_normal((401, 20))
    one, other = np.ones((401, 20)) + noise, np.ones((401, 20)) + noise[::-1]
    for curves in (one, other):
        curves[0] = 2
        curves[7] = 0.5
    found = speed_ups(smoothed(one, True), smoothed(other, True))
    assert 0.8 < np.median(found) < 1.25


def test_a_spike_leaves_no_trace_after_ten_steps() -> None:
    losses = np.linspace(1, 0.2, 101)[:, None]
    spiked = losses.copy()
    spiked[3] = 3e16
    assert smoothed(spiked, True)[13:] == pytest.approx(smoothed(losses, True)[13:])
