"""The diagrams of the docs."""

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

from l2lgd.figures.diagrams import CAPTIONS, DIAGRAMS, draw

DOCS = Path(__file__).parents[2] / "docs"


def words_and_boxes(name: str) -> tuple[Figure, list[Any], list[Any]]:
    """A diagram, and where its words and boxes are in the picture, in pixels."""
    figure = DIAGRAMS[name]()
    renderer = FigureCanvasAgg(figure).get_renderer()
    (axes,) = figure.axes  # whose ticks are not drawn
    words = [text.get_window_extent(renderer) for text in (*axes.texts, *figure.texts)]
    boxes = [p.get_window_extent(renderer) for p in axes.patches if isinstance(p, FancyBboxPatch)]
    assert len(words) >= 4
    assert len(boxes) >= 2
    return figure, words, boxes


@pytest.mark.parametrize("name", DIAGRAMS)
def test_no_word_of_a_diagram_covers_another_or_is_cut_off(name: str) -> None:
    figure, words, _ = words_and_boxes(name)
    for word in words:
        assert min(word.x0, word.y0) >= 0
        assert word.x1 <= figure.bbox.width
        assert word.y1 <= figure.bbox.height
    for one, other in itertools.combinations(words, 2):
        assert not one.overlaps(other)


@pytest.mark.parametrize("name", DIAGRAMS)
def test_every_word_is_within_a_box_or_outside_it(name: str) -> None:
    _, words, boxes = words_and_boxes(name)
    for word, box in itertools.product(words, boxes):
        within = box.contains(word.x0, word.y0) and box.contains(word.x1, word.y1)
        assert within or not word.overlaps(box)


def test_only_the_dropped_gradients_are_dashed() -> None:
    arrows = DIAGRAMS["figure_2"]().findobj(FancyArrowPatch)
    dashed = [arrow for arrow in arrows if arrow.get_linestyle() not in ("-", "solid")]
    legend = 1
    assert len(dashed) == 3 + legend
    assert len(arrows) - len(dashed) == 3 * 5 + 1 + legend


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_diagram_drawn_twice_has_the_same_bytes(name: str) -> None:
    once = draw(name)
    assert once == draw(name)
    with Image.open(io.BytesIO(once)) as picture:
        assert picture.format == "PNG"
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("name", DIAGRAMS)
def test_the_docs_show_what_the_code_draws(name: str) -> None:
    with Image.open(DOCS / "diagrams" / f"{name}.png") as one:
        committed = np.asarray(one.convert("L"), dtype=float)
    again = np.asarray(Image.open(io.BytesIO(draw(name))).convert("L"), dtype=float)
    assert again.shape == committed.shape
    assert np.abs(again - committed).mean() < 1.0
    number = name.removeprefix("figure_")
    assert f"after figure {number} of the paper" in CAPTIONS[name]
    assert CAPTIONS[name] in (DOCS / "understand" / "method.md").read_text(encoding="utf-8")


def test_every_diagram_has_a_caption() -> None:
    assert CAPTIONS.keys() == DIAGRAMS.keys()
