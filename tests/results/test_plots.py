"""Pictures: whatever the curves are, there is one."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from l2lgd.results.curves import Band
from l2lgd.results.plots import plot_curves, plot_search, plot_training

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
    ],
    ids=["two", "huge", "one diverged", "all diverged", "zero"],
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
