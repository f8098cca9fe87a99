"""The diagrams of the docs."""

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyArrowPatch
from PIL import Image

from l2lgd.figures.diagrams import CAPTIONS, DIAGRAMS, draw

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", DIAGRAMS)
def test_no_word_of_a_diagram_covers_another_or_is_cut_off(name: str) -> None:
    figure: Any = DIAGRAMS[name]().figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    width, height = figure.bbox.size
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def test_only_the_dropped_gradients_are_dashed() -> None:
    arrows = [p for p in DIAGRAMS["figure_2"]().axes.patches if isinstance(p, FancyArrowPatch)]
    dashed = [arrow for arrow in arrows if arrow.get_linestyle() not in ("-", "solid")]
    assert len(dashed) == 3
    assert len(arrows) == 3 + 1 + 3 * 5


@pytest.mark.parametrize("name", DIAGRAMS)
def test_the_docs_show_what_the_code_draws(name: str) -> None:
    with Image.open(DOCS / "diagrams" / f"{name}.png") as one:
        committed = np.asarray(one.convert("L"), dtype=float)
    again = np.asarray(Image.open(io.BytesIO(draw(name))).convert("L"), dtype=float)
    assert again.shape == committed.shape
    assert np.abs(again - committed).mean() < 1.0
    assert CAPTIONS[name] in (DOCS / "method.md").read_text(encoding="utf-8")
