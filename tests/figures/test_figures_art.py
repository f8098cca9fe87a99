"""Figures 9 to 13, on small pictures with a barely trained LSTM."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import art_options, l2lgd
from hydra import initialize_config_module

from l2lgd.figures import styles
from l2lgd.figures.art import CONTENTS, FOLLOWED
from l2lgd.figures.base import Appearance, Content, Evaluated, Request
from l2lgd.figures.catalogue import FIGURES
from l2lgd.figures.drawing import read
from l2lgd.figures.proposals import ACROSS

COMMITTED = Path(__file__).parents[2] / "outputs" / "figures"
COUNT, STEPS = 3, 40
PANELS = ("neural_art", "neural_art_large")


@pytest.fixture(scope="module")
def evaluated(
    gallery: dict[str, str], art_weights: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Evaluated]:
    """Evaluations in both settings."""
    folder = tmp_path_factory.mktemp("evaluations")
    for task in PANELS:
        ran = l2lgd(
            *("evaluate", f"task={task}", *art_options(gallery), "baselines=[adam,sgd]", "seed=1"),
            *(f"num_functions={COUNT}", "tune_functions=1", f"num_steps={STEPS}", "logger=none"),
            *(f"checkpoint={art_weights}", "tuned_dir=tuned", "threads=1"),
            f"hydra.run.dir={task}",
            cwd=folder,
        )
        assert ran.returncode == 0, ran.stderr
    return {task: Evaluated(folder / task) for task in PANELS}


@pytest.fixture
def request_of(gallery: dict[str, str]) -> Iterator[Request]:
    threads = torch.get_num_threads()
    with initialize_config_module("l2lgd.conf", version_base="1.3"):
        yield Request(art_options(gallery))
    torch.set_num_threads(threads)


def collect(name: str, evaluated: dict[str, Evaluated], request: Request) -> Content:
    figure = FIGURES[name]
    shown = {panel: evaluated[panel] for panel in figure.evaluations()}
    content = figure.collect(shown, request)
    picture = styles.encoded(figure.draw(content, Appearance()), "png", figure.dpi)
    assert picture.startswith(b"\x89PNG")
    return content


def test_paintings_are_where_the_evaluated_trajectories_end(
    evaluated: dict[str, Evaluated], request_of: Request
) -> None:
    content = collect("9", evaluated, request_of)
    for panel in PANELS:
        losses = evaluated[panel].curves["lstm"].losses[-1]
        assert len(losses) == min(COUNT, CONTENTS)
        for k, loss in enumerate(losses.tolist()):
            found = content.table.at(panel, "lstm", k + 1)
            assert found == pytest.approx(loss, rel=1e-6)
            image = content.images[f"{panel} result {k + 1}"]
            assert image.dtype == torch.uint8
            assert image.shape == content.images[f"{panel} content {k + 1}"].shape


def test_what_is_slow_is_kept(
    evaluated: dict[str, Evaluated], request_of: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = collect("strip", evaluated, request_of)
    monkeypatch.setattr("l2lgd.figures.art.Setting", None)  # painting again would fail
    again = collect("strip", evaluated, request_of)
    assert again.table.csv() == first.table.csv()
    assert all(again.images[name].equal(image) for name, image in first.images.items())


def test_the_first_proposal_is_the_same_for_all_coordinates(
    evaluated: dict[str, Evaluated], request_of: Request
) -> None:
    lines = [
        collect(name, evaluated, request_of).table.lines("Step 1") for name in ("11", "12", "13")
    ]
    for name in FOLLOWED:
        np.testing.assert_allclose(lines[0][name][:2], lines[1][name][:2], rtol=1e-5)
        np.testing.assert_allclose(lines[0][name][:2], lines[2][name][:2], rtol=1e-5)
    true = [line["true gradient"][0, 0] for line in lines]
    assert len(set(true)) == 3


@pytest.mark.parametrize("name", ["9", "strip"])
def test_images_say_which_network_stands_in(name: str) -> None:
    content = read(name, COMMITTED)
    assert content.notes
    assert "stand-in" in content.notes[0]
    texts = FIGURES[name].draw(content, Appearance()).texts
    assert ["stand-in" in text.get_text() for text in texts] == [True]


def test_figure_9_shows_each_style_once() -> None:
    content = read("9", COMMITTED)
    axes = FIGURES["9"].draw(content, Appearance()).get_axes()
    titles = [panel.get_title() for panel in axes]
    assert titles.count("style of the meta-training") == titles.count("new style") == 1
    assert len(axes) == 2 * (1 + 2 * CONTENTS)


@pytest.mark.parametrize("name", ["11", "12", "13"])
def test_the_range_of_a_row_is_that_of_its_own_responses(name: str) -> None:
    content = read(name, COMMITTED)
    axes = FIGURES[name].draw(content, Appearance()).get_axes()
    panels = content.table.panels()
    for k in range(0, len(panels), ACROSS):
        here = panels[k : k + ACROSS]
        values = [r.value for r in content.table if r.panel in here and r.optimizer in FOLLOWED[:2]]
        for panel in axes[k : k + ACROSS]:
            low, high = panel.get_ylim()
            assert low < min(values) < max(values) < high
            assert max(values) - min(values) > 0.8 * (high - low)


def test_updates_are_those_of_the_path(
    evaluated: dict[str, Evaluated], request_of: Request
) -> None:
    table = collect("10", evaluated, request_of).table
    assert len(table.panels()) == 3
    for panel in table.panels():
        assert {name: len(line[0]) for name, line in table.lines(panel).items()} == dict.fromkeys(
            FOLLOWED, STEPS
        )
