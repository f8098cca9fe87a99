"""Statistics of curves, curves.csv and summary.json."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from l2lgd.errors import CheckpointError
from l2lgd.results.curves import Band, Curves, band, bootstrap_interval, summarize, write_curves
from l2lgd.results.losses import FILE, KeptLosses
from l2lgd.results.summary import write_summary
from l2lgd.storage import checkpoint


def test_the_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    draw = np.random.default_rng(1)
    samples = draw.exponential(1.0, (400, 50))
    low, high = bootstrap_interval(samples)
    covered = ((low < 1) & (high > 1)).mean()
    # 95 % in the limit; the percentile interval falls a little short on 50 skewed samples.
    assert 0.90 <= covered <= 0.98
    assert (low < samples.mean(1)).all()
    assert (samples.mean(1) < high).all()


def test_the_interval_shrinks_with_more_values_and_is_a_fixed_number() -> None:
    draw = np.random.default_rng(2)
    few, many = draw.normal(0, 1, 25), draw.normal(0, 1, 2500)
    (low, high), (lower, higher) = bootstrap_interval(few), bootstrap_interval(many)
    assert (higher - lower) == pytest.approx((high - low) / 10, rel=0.4)
    assert bootstrap_interval(few).tolist() == [low, high]
    assert bootstrap_interval(np.array([3.0])).tolist() == [3.0, 3.0]


def test_the_final_loss_is_the_last_step_of_deterministic_functions() -> None:
    curves = Curves(torch.arange(26.0).view(13, 2), stochastic=False)
    assert curves.final_losses().tolist() == [24.0, 25.0]
    assert curves.final_loss() == 24.5


@pytest.mark.parametrize(("steps", "averaged"), [(30, 10), (10, 10), (4, 4), (1, 1)])
def test_the_final_loss_is_the_mean_of_ten_steps_of_stochastic_ones(
    steps: int, averaged: int
) -> None:
    losses = torch.arange(steps + 1.0).unsqueeze(1).expand(-1, 3)
    expected = sum(range(steps + 1 - averaged, steps + 1)) / averaged  # never f(θ_0)
    assert Curves(losses, stochastic=True).final_losses().tolist() == [expected] * 3


def test_diverged_functions_are_counted_and_left_out_of_the_mean() -> None:
    losses = torch.tensor([[1.0] * 5, [2.0, math.nan, math.inf, 4.0, 3.0]])
    found = summarize(Curves(losses, stochastic=False))
    assert found["diverged"] == 2
    assert found["final_loss"]["mean"] == 3.0
    assert found["final_loss"]["median"] == 4.0  # of all five
    assert 2.0 <= found["final_loss"]["ci95"][0] <= found["final_loss"]["ci95"][1] <= 4.0


def test_when_all_have_diverged_there_is_no_mean() -> None:
    curves = Curves(torch.tensor([[1.0, 1.0], [math.nan, math.inf]]), stochastic=False)
    found = summarize(curves)
    assert found == {"final_loss": {"mean": None, "ci95": None, "median": None}, "diverged": 2}
    assert curves.final_loss() == math.inf
    assert np.isnan(band(curves).mean).all()


@pytest.mark.parametrize("lost", [[], [math.nan]])
def test_one_function_has_no_interval(lost: list[float]) -> None:
    curves = Curves(torch.tensor([[3.0, *lost], [2.0, *lost]]), stochastic=False)
    found = summarize(curves)["final_loss"]
    assert (found["mean"], found["ci95"]) == (2.0, None)
    drawn = band(curves)
    assert drawn.mean.tolist() == [3.0, 2.0]
    assert np.isnan([drawn.low, drawn.high]).all()


def test_a_selection_never_prefers_what_diverged_once() -> None:
    losses = torch.tensor([[1.0, 1.0], [0.0, math.nan]])
    assert Curves(losses, stochastic=False).final_loss() == math.inf


def test_a_band_is_the_mean_between_its_bounds() -> None:
    draw = torch.Generator().manual_seed(0)
    losses = torch.rand(5, 40, generator=draw)
    losses[3, 0] = math.inf  # this function counts at no step, or the mean would jump
    found = band(Curves(losses, stochastic=True))
    np.testing.assert_allclose(found.mean, losses[:, 1:].double().mean(1).numpy())
    assert (found.low < found.mean).all()
    assert (found.mean < found.high).all()


def test_curves_have_a_row_a_step_and_three_columns_an_optimizer(tmp_path: Path) -> None:
    bands = {
        "lstm": Band(np.array([3.0, 2.0]), np.array([2.5, 1.5]), np.array([3.5, 2.5])),
        "adam": Band(np.array([3.0, np.nan]), np.array([2.0, np.nan]), np.array([4.0, np.nan])),
    }
    write_curves(tmp_path / "curves.csv", bands)
    with (tmp_path / "curves.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = ["step", "lstm", "lstm_low", "lstm_high", "adam", "adam_low", "adam_high"]
    assert list(rows[0]) == columns
    assert [row["step"] for row in rows] == ["0", "1"]
    assert [float(row["lstm_high"]) for row in rows] == [3.5, 2.5]
    assert math.isnan(float(rows[1]["adam"]))


def test_a_summary_is_strict_json(tmp_path: Path) -> None:
    summary = {"a": math.inf, "b": [1.0, math.nan], "c": {"d": (2, None)}, "e": "θ"}
    write_summary(tmp_path / "summary.json", summary)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    text = (tmp_path / "summary.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=refuse)
    assert found == {"a": None, "b": [1.0, None], "c": {"d": [2, None]}, "e": "θ"}


def test_windows_are_means_of_the_steps_that_end_with_them() -> None:
    losses = torch.arange(12.0).unsqueeze(1) + torch.tensor([0.0, 2.0])  # T = 11, two functions
    found = band(Curves(losses, stochastic=True), window=5)
    assert found.mean.tolist() == [1, 4, 9]
    assert found.window == 5
    assert (found.low <= found.mean).all()
    assert (found.high >= found.mean).all()


KEY = {"num_steps": 2, "num_functions": 3}
WHOLE = {"adam": {"key": KEY, "stochastic": False}}
DAMAGED = {
    "a list": [WHOLE],
    "text": "adam",
    "another name": {"sgd": WHOLE["adam"]},
    "nothing about it": {"adam": None},
    "no key": {"adam": {"stochastic": False}},
    "a key that is text": {"adam": {"key": "k", "stochastic": False}},
    "no kind": {"adam": {"key": KEY}},
    "a kind that is none": {"adam": {"key": KEY, "stochastic": "yes"}},
}


def keep(folder: Path, losses: torch.Tensor, about: object = WHOLE) -> Path:
    """Losses with a hash that is right, whatever they are."""
    checkpoint.save(folder / FILE, {"adam": losses}, {"losses": about})
    return folder


def test_kept_losses_are_found_by_what_they_depend_on(tmp_path: Path) -> None:
    kept = KeptLosses(tmp_path / "new", [keep(tmp_path / "old", torch.ones(3, 3))])
    found = kept.find("adam", KEY)
    assert found is not None
    assert found[0].losses.equal(torch.ones(3, 3))
    assert kept.find("sgd", KEY) is None
    assert kept.find("adam", {**KEY, "seed": 1}) is None


@pytest.mark.parametrize("target", [["x"], {"a": ["x"]}, 3, None])
def test_a_target_that_is_no_text_is_of_something_else(target: object, tmp_path: Path) -> None:
    about = {"adam": {"key": {**KEY, "task": {"_target_": target}}, "stochastic": False}}
    kept = KeptLosses(tmp_path / "new", [keep(tmp_path, torch.ones(3, 3), about)])
    assert kept.find("adam", {**KEY, "task": {"_target_": "l2lgd.X"}}) is None


@pytest.mark.parametrize("about", DAMAGED.values(), ids=DAMAGED)
def test_losses_whose_description_is_damaged_are_refused(about: object, tmp_path: Path) -> None:
    folder = keep(tmp_path, torch.ones(3, 3), about)
    with pytest.raises(CheckpointError, match="does not hold the losses") as caught:
        KeptLosses(tmp_path / "new", [folder])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "losses", [torch.ones(()), torch.ones(3), torch.ones(3, 0), torch.ones(3, 3, dtype=torch.int64)]
)
def test_tensors_that_are_no_losses_are_refused(losses: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not hold the losses"):
        KeptLosses(tmp_path / "new", [keep(tmp_path, losses)])


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (4, 3)])
def test_losses_of_another_shape_than_they_say_are_refused(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    kept = KeptLosses(tmp_path / "new", [keep(tmp_path, torch.ones(shape))])
    with pytest.raises(CheckpointError, match="another shape"):
        kept.find("adam", KEY)
