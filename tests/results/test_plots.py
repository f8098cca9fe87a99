"""Pictures: whatever the curves are, there is one."""

import logging
import math
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from l2lgd.results.axes import log_ticks, loss_range, unit_of
from l2lgd.results.curves import Band
from l2lgd.results.pictures import drawn
from l2lgd.results.plots import (
    clipped,
    draw_bands,
    plot_curves,
    plot_search,
    plot_sweep,
    plot_training,
)

NOTHING = np.full(20, math.nan)
GOOD = Band(np.linspace(3, 0.1, 20), np.linspace(2.9, 0.08, 20), np.linspace(3.1, 0.2, 20))
DIVERGED = Band(NOTHING, NOTHING, NOTHING)
HUGE = Band(*(np.logspace(0.5, 30, 20) * factor for factor in (1.0, 0.5, 2.0)))
ZERO = Band(np.zeros(20), np.zeros(20), np.zeros(20))


def assert_picture(path: Path) -> None:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        assert len(picture.convert("L").getcolors()) > 10, "there is nothing on it"


@pytest.mark.parametrize(
    "bands",
    [
        {"lstm": GOOD, "adam": GOOD},
        {"lstm": GOOD, "my_own_optimizer": HUGE},
        {"lstm": GOOD, "sgd": DIVERGED},
        {"lstm": DIVERGED},
        {"lstm": ZERO},
        {"lstm": Band(GOOD.mean, NOTHING, NOTHING)},
    ],
    ids=["two", "huge", "one diverged", "all diverged", "zero", "one function"],
)
def test_curves_become_a_picture(tmp_path: Path, bands: dict[str, Band]) -> None:
    plot_curves(tmp_path / "a" / "curves.png", bands, ["lstm"], "title", "loss", "a caption")
    assert_picture(tmp_path / "a" / "curves.png")


@pytest.mark.parametrize(
    "searches",
    [
        {"adam": [(0.1, 3.0), (0.2, 2.0), (0.3, math.inf)], "sgd": [(0.1, 1.0)]},
        {"adam": [(0.1, math.inf)]},
    ],
    ids=["two", "all diverged"],
)
def test_searches_become_a_picture(tmp_path: Path, searches: dict) -> None:
    plot_search(tmp_path / "search.png", searches, "rate", "title", "a caption")
    assert_picture(tmp_path / "search.png")


LONG = [(step, 3.0 / step) for step in range(1, 1000)]


@pytest.mark.parametrize(
    ("meta_losses", "validations"),
    [
        (LONG, LONG[::100]),
        ([(1, math.nan), *LONG[1:7]], [(5, math.nan), (7, 0.1)]),
        ([(1, -1.0), (2, 1.0)], []),
        ([(1, math.nan), (2, math.nan)], [(2, math.nan)]),
        ([], []),
    ],
    ids=["long", "not finite", "negative", "all diverged", "nothing"],
)
def test_a_meta_training_becomes_a_picture(
    tmp_path: Path, meta_losses: list, validations: list
) -> None:
    plot_training(tmp_path / "training.png", meta_losses, validations, "title", "a caption")
    assert_picture(tmp_path / "training.png")


def test_rates_that_would_stretch_the_axis_are_clipped() -> None:
    falling = [(0.001, 3.0), (0.01, 1.0), (0.1, 0.2)]
    searches = {
        "sgd": [*falling, (1.0, 1e30), (10.0, math.inf)],
        "adam": [*falling, (1.0, 2.5), (10.0, math.nan)],
        "nag": [(0.1, math.inf)],
    }
    assert clipped(searches) == {"sgd": [1.0, 10.0], "adam": [10.0], "nag": [0.1]}


def test_a_search_whose_losses_stay_in_range_keeps_them_all() -> None:
    assert clipped({"adam": [(0.1, 5.0), (0.2, 2.0), (0.3, 9.0)]}) == {"adam": []}


@pytest.mark.parametrize(
    ("low", "high"),
    [(2.2, 2.9), (2.3, 2.31), (0.19, 2.9), (0.01, 3), (1e-6, 2e-6), (1.0, 1.0001)],
)
def test_less_than_a_few_decades_have_ticks_of_their_own(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 3 <= len(ticks) <= 8
    assert ticks == sorted(ticks)
    assert low <= ticks[0] < ticks[-1] <= high
    labels = [f"{tick:.6g}" for tick in ticks]
    assert len(set(labels)) == len(ticks)


def test_powers_of_ten_do_where_there_are_many() -> None:
    assert log_ticks(1e-9, 3.0) == []


def test_a_range_leaves_out_what_explodes() -> None:
    low, high = loss_range([GOOD.mean, HUGE.mean, NOTHING], [GOOD.low, HUGE.low, NOTHING]) or (0, 0)
    assert 0.05 < low <= 0.08
    assert 3 < high < 6
    assert loss_range([NOTHING, ZERO.mean], [NOTHING, ZERO.low]) is None


@pytest.mark.parametrize(
    ("lowest", "unit", "suffix"), [(0.1, 1, ""), (2.1e6, 1e6, " / 10⁶"), (math.nan, 1, "")]
)
def test_large_losses_are_in_units(lowest: float, unit: float, suffix: str) -> None:
    assert unit_of(lowest) == (unit, suffix)


def test_one_function_has_no_band() -> None:
    axes = Figure().subplots()
    draw_bands(axes, {"lstm": GOOD, "adam": Band(GOOD.mean, NOTHING, NOTHING)}, ["lstm"])
    assert len(axes.lines) == 2
    assert len(axes.collections) == 1


def test_what_diverged_says_so_in_the_legend() -> None:
    axes = Figure().subplots()
    draw_bands(axes, {"lstm": GOOD, "sgd": DIVERGED}, ["lstm"])
    assert axes.get_legend_handles_labels()[1] == ["LSTM", "SGD (diverged)"]


BANDS = {"lstm": GOOD, "adam": GOOD}


@pytest.mark.parametrize(
    "theirs",
    [
        {"text.usetex": True},
        {"savefig.dpi": 10, "savefig.bbox": "tight", "axes.facecolor": "red", "lines.marker": "o"},
        {
            "font.family": "no such font",
            "axes.formatter.use_locale": True,
            "figure.figsize": (1, 1),
        },
    ],
    ids=["LaTeX", "look", "fonts"],
)
def test_the_user_s_settings_change_no_picture(theirs: dict[str, object], tmp_path: Path) -> None:
    pictures = []
    for settings in ({}, theirs):
        path = tmp_path / "curves.png"
        with matplotlib.rc_context(settings):
            before = dict(matplotlib.rcParams)
            plot_curves(path, BANDS, ["lstm"], "title", "loss", "a caption")
            assert dict(matplotlib.rcParams) == before
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("name", ["$x_{$", "a$b$c", r"$\\frac{1$", "$$", "100 % [/b] {x}"])
def test_no_name_is_read_as_a_formula(name: str, tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    plot_curves(path, {name: GOOD, "lstm": GOOD}, ["lstm"], name, name, name)
    plot_search(path, {name: [(0.1, 3.0), (0.2, 2.0)]}, name, name, name)
    plot_training(path, [(1, 1.0), (2, 2.0)], [(2, 1.0)], name, name)
    plot_sweep(path, name, {name: [(0.0, 1.0), (1.0, 2.0)]}, [name, "other"], name, name)
    assert_picture(path)


def test_a_picture_that_fails_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(path: Path) -> None:
        raise RuntimeError("latex\ncould not be found")

    with caplog.at_level(logging.WARNING):
        assert drawn(tmp_path / "curves.png", fails) is None
        assert drawn(tmp_path / "curves.png", lambda _: None) == tmp_path / "curves.png"
    (record,) = caplog.records
    assert record.getMessage() == "curves.png is not drawn: latex could not be found"
