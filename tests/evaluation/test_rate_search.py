"""Searching rates, and the cache of the rates that were found."""

import json
import logging
import math
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import node

from l2lgd.config.building import build
from l2lgd.errors import UserError
from l2lgd.evaluation.keys import task_options
from l2lgd.evaluation.rate_search import Search, grid_search, random_search
from l2lgd.evaluation.tuned_rates import TunedRates
from l2lgd.pretrained.weights import SHIPPED

KEY = {"task_name": "quadratic", "optimizer_name": "adam", "num_steps": 100}


def valley(best: float, diverges_above: float = math.inf) -> Callable[[float], float]:
    """A loss with its minimum at ``best``."""
    return lambda rate: math.inf if rate > diverges_above else abs(math.log10(rate / best))


def rates(search: Search) -> list[float]:
    return [rate for rate, _ in search.trials]


def test_the_grid_has_three_rates_a_decade_and_is_refined_around_the_best() -> None:
    search = grid_search(valley(0.01), 1e-4, 1.0)
    thirds = [10 ** (index / 3) for index in range(-12, 1)]
    halfway = [10 ** (-2 - 1 / 6), 10 ** (-2 + 1 / 6)]
    assert rates(search) == pytest.approx(sorted(thirds + halfway))
    assert search.best_rate == pytest.approx(0.01)
    assert search.best_loss == pytest.approx(0.0, abs=1e-12)


def test_a_refined_rate_may_win() -> None:
    best = 10 ** (-2 + 1 / 6)
    assert grid_search(valley(best), 1e-4, 1.0).best_rate == pytest.approx(best)


@pytest.mark.parametrize("best", [1e-6, 30.0])
def test_the_grid_grows_while_the_best_is_at_its_edge(best: float) -> None:
    search = grid_search(valley(best), 1e-3, 0.1)
    assert search.best_rate == pytest.approx(best, rel=0.25)
    assert min(rates(search)) < search.best_rate < max(rates(search))


def test_every_rate_is_tried_once() -> None:
    tried: list[float] = []

    def loss(rate: float) -> float:
        tried.append(rate)
        return valley(1e-6)(rate)

    search = grid_search(loss, 1e-3, 0.1)
    assert len(tried) == len(set(tried)) == len(search.trials)


@pytest.mark.parametrize("loss", [lambda rate: rate, lambda rate: 1 / rate])
def test_a_best_rate_that_stays_at_the_edge_is_no_result(loss: Callable[[float], float]) -> None:
    with pytest.raises(UserError, match="still at an end of the grid"):
        grid_search(loss, 1e-3, 0.1)


def test_a_grid_on_which_all_diverges_is_an_error_with_advice() -> None:
    with pytest.raises(UserError, match="smaller lowest_rate"):
        grid_search(lambda rate: math.inf, 1e-3, 0.1)


def test_a_grid_on_which_all_diverges_grows_downwards() -> None:
    search = grid_search(valley(1e-5, diverges_above=1e-4), 1e-3, 0.1)
    assert search.best_rate == pytest.approx(1e-5)


def test_random_rates_are_within_bounds_spread_over_decades_and_reproducible() -> None:
    def search(seed: int) -> Search:
        draw = torch.Generator().manual_seed(seed)
        return random_search(valley(0.01), 1e-4, 1.0, 200, draw)

    found = search(0)
    assert len(found.trials) == 200
    assert rates(found) == sorted(rates(found))
    assert min(rates(found)) >= 1e-4
    assert max(rates(found)) <= 1.0
    for decade in range(-4, 0):  # log-uniform: about 50 in each
        assert 30 < sum(10.0**decade <= rate < 10.0 ** (decade + 1) for rate in rates(found)) < 70
    assert search(0) == found
    assert search(1) != found
    assert found.best_rate == pytest.approx(0.01, rel=0.2)


def test_a_random_search_in_which_all_diverges_has_no_best_rate() -> None:
    draw = torch.Generator().manual_seed(0)
    with pytest.raises(UserError):
        random_search(lambda rate: math.inf, 1e-4, 1.0, 3, draw)


def test_a_stored_search_is_found_again_under_its_key(tmp_path: Path) -> None:
    search = grid_search(valley(0.01, diverges_above=0.3), 1e-4, 1.0)
    assert not all(math.isfinite(loss) for _, loss in search.trials)
    stored = TunedRates(tmp_path / "shipped", tmp_path / "own")
    assert stored.find(KEY) is None
    stored.store(KEY, search, {"command": "l2lgd tune"})
    assert TunedRates(tmp_path / "shipped", tmp_path / "own").find(KEY) == search
    assert TunedRates(tmp_path / "own", tmp_path / "elsewhere").find(KEY) == search
    for change in ({"num_steps": 200}, {"task_name": "mnist"}, {"extra": None}):
        assert stored.find({**KEY, **change}) is None


def test_the_users_own_search_comes_before_the_shipped_one(tmp_path: Path) -> None:
    shipped, own = Search(((0.1, 1.0),)), Search(((0.2, 1.0),))
    TunedRates(tmp_path, tmp_path / "shipped").store(KEY, shipped, {})
    TunedRates(tmp_path, tmp_path / "own").store(KEY, own, {})
    assert TunedRates(tmp_path / "shipped", tmp_path / "own").find(KEY) == own


def test_a_stored_search_says_what_was_found_and_how(tmp_path: Path) -> None:
    TunedRates(tmp_path, tmp_path / "own").store(KEY, Search(((0.1, 1.0), (0.2, 0.5))), {"by": "x"})
    (file,) = (tmp_path / "own").iterdir()
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["learning_rate"] == 0.2
    assert content["validation_loss"] == 0.5
    assert content["search"] == [[0.1, 1.0], [0.2, 0.5]]
    assert (content["by"], content["key"]) == ("x", KEY)


@pytest.mark.parametrize("file", sorted((SHIPPED / "tuned").glob("*.json")), ids=lambda f: f.stem)
def test_a_shipped_search_belongs_to_the_task_as_it_is_now(file: Path) -> None:
    """A key that an option has been added to is never found again."""
    stored = json.loads(file.read_text(encoding="utf-8"))
    key, words = stored["key"], shlex.split(stored["command"])
    layers = [word for word in words if word.startswith("task.hidden_layers=")]  # of figure 6
    task = node("evaluate", "task", f"task={key['task_name']}", *layers)
    assert key["task"] == task_options(task, build(task, "task").not_in_keys)
    opt = node("evaluate", "opt", f"opt={key['optimizer_name']}")
    assert key["optimizer"] == {k: v for k, v in opt.items() if k != "learning_rate"}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff\xfe\x00", b"[]", b"{}", b'{"search": 3}', b'{"search": [[1]]}'),
        *(b'{"search": []}', b'{"search": [["a", "b"]]}'),
    ],
)
def test_an_unreadable_search_is_ignored_with_a_warning(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    stored = TunedRates(tmp_path / "shipped", tmp_path / "own")
    stored.store(KEY, Search(((0.1, 1.0),)), {})
    (file,) = (tmp_path / "own").iterdir()
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert stored.find(KEY) is None
    assert file.name in caplog.text


def test_where_nothing_can_be_stored_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        TunedRates(tmp_path, tmp_path / "file").store(KEY, Search(((0.1, 1.0),)), {})
    assert "not kept" in caplog.text
