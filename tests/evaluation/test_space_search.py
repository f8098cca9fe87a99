"""Searches of what a practitioner tunes."""

import math
from pathlib import Path
from typing import Any

import pytest

from l2lgd.errors import ConfigError, UserError
from l2lgd.evaluation.space_search import Trial, search_space
from l2lgd.evaluation.tuned_settings import TunedSettings

SPACE = {
    "learning_rate": [1e-4, 1.0],
    "schedule": ["constant", "cosine"],
    "weight_decay": [0.0, 0.01],
    "beta2": [0.9, 0.99, 0.999],
}


def bowl(at: float) -> Any:
    """A loss that is least at a rate, with a cosine, without weight decay."""

    def loss(settings: dict[str, Any]) -> float:
        away = abs(math.log10(settings["learning_rate"] / at))
        return away + (settings["schedule"] == "constant") + 10 * settings["weight_decay"]

    return loss


def test_there_are_as_many_trials_as_are_asked_for_wherever_the_best_is() -> None:
    for at in (1e-9, 1e-2, 1e3):
        assert len(search_space(bowl(at), SPACE, 30, 0).trials) == 30


def test_the_best_is_found_within_the_space() -> None:
    best = search_space(bowl(0.02), SPACE, 30, 0).best
    assert best.settings["schedule"] == "cosine"
    assert best.settings["weight_decay"] == 0
    assert best.settings["learning_rate"] == pytest.approx(0.02, rel=0.6)


def test_a_best_rate_at_an_end_extends_the_space() -> None:
    found = search_space(bowl(10.0), SPACE, 30, 0)
    assert not found.at_an_end
    assert found.best.settings["learning_rate"] == pytest.approx(10, rel=1.2)
    assert search_space(bowl(1e12), SPACE, 30, 0).at_an_end


def test_where_all_have_diverged_rates_go_down() -> None:
    def loss(settings: dict[str, Any]) -> float:
        return 1.0 if settings["learning_rate"] < 2e-5 else math.inf

    assert search_space(loss, SPACE, 30, 0).best.loss == 1


def test_a_search_that_was_broken_off_goes_on_to_the_same_trials(tmp_path: Path) -> None:
    kept, key = (
        TunedSettings(tmp_path / "none", tmp_path),
        {"task_name": "a", "optimizer_name": "b"},
    )
    whole = search_space(bowl(0.3), SPACE, 12, 0)
    calls = 0

    def breaks_off(settings: dict[str, Any]) -> float:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return float(bowl(0.3)(settings))

    for _ in range(2):
        done, before = kept.find(key), calls
        try:
            found = search_space(
                breaks_off, SPACE, 12, 0, done, lambda made: kept.store(key, made, {})
            )
        except KeyboardInterrupt:
            assert before == 0
    assert calls == 13  # that one again, and no other
    assert found == whole
    assert kept.find(key) == whole.trials


def test_what_diverged_is_kept_as_such(tmp_path: Path) -> None:
    kept, key = (
        TunedSettings(tmp_path / "none", tmp_path),
        {"task_name": "a", "optimizer_name": "b"},
    )
    trials = (Trial({"learning_rate": 1.0}, math.inf), Trial({"learning_rate": 0.1}, 2.0))
    kept.store(key, trials, {})
    assert kept.find(key) == trials


def test_mistakes_are_one_line() -> None:
    with pytest.raises(UserError, match="all 5 trials diverge, rates down to"):
        search_space(lambda _: math.inf, SPACE, 5, 0).check()
    for bounds in (None, [1.0], [1.0, 0.1], [0.0, 1.0], ["a", "b"]):
        with pytest.raises(ConfigError, match=r"space\.learning_rate"):
            search_space(bowl(1), {"learning_rate": bounds}, 5, 0)
    for choices in ([], "cosine", 3):
        with pytest.raises(ConfigError, match=r"space\.schedule"):
            search_space(bowl(1), {**SPACE, "schedule": choices}, 5, 0)
