"""``scripts/tools/redraw.py``: the committed pictures come from the committed tables."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from helpers import SCRIPTS, assert_same_picture

from l2lgd.figures.catalogue import FIGURES

OUTPUTS = SCRIPTS.parent / "outputs"
VERBS = {
    path.parent.name: json.loads(path.read_text(encoding="utf-8"))["verb"]
    for path in OUTPUTS.glob("results/*/summary.json")
}
EVALUATIONS = sorted(name for name, verb in VERBS.items() if verb == "evaluate")
BENCHMARKS = sorted(name for name, verb in VERBS.items() if verb == "benchmark")


def script() -> ModuleType:
    path = SCRIPTS / "tools" / "redraw.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REDRAW = script()


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_is_drawn_again_from_its_folder(name: str, tmp_path: Path) -> None:
    committed = OUTPUTS / "results" / name
    shutil.copytree(committed, tmp_path / name)
    (tmp_path / name / "curves.png").unlink()
    REDRAW.redraw_evaluation(tmp_path / name)
    assert_same_picture(tmp_path / name / "curves.png", committed / "curves.png")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_is_drawn_again_from_its_summary(name: str, tmp_path: Path) -> None:
    committed = OUTPUTS / "results" / name
    shutil.copy(committed / "summary.json", tmp_path)
    REDRAW.redraw_benchmark(tmp_path)
    made = {path.name for path in tmp_path.iterdir()}
    left = {path.name for path in committed.iterdir()}
    assert made == left & {"summary.json", "table.md", "benchmark.png", "generalisation.png"}
    for picture in committed.glob("*.png"):
        assert_same_picture(tmp_path / picture.name, picture)
    assert (tmp_path / "table.md").read_text("utf-8") == (committed / "table.md").read_text("utf-8")


def test_a_figure_is_drawn_again_with_its_caption(tmp_path: Path) -> None:
    for kind in ("csv", "json"):
        shutil.copy(OUTPUTS / "figures" / f"figure_6.{kind}", tmp_path)
    REDRAW.redraw_figures(tmp_path)
    assert_same_picture(tmp_path / "figure_6.png", OUTPUTS / "figures" / "figure_6.png")
    caption = (tmp_path / "figure_6.md").read_bytes()
    assert caption == (OUTPUTS / "figures" / "figure_6.md").read_bytes()
    assert "Figure 6, one layer" in (tmp_path / "comparison.md").read_text(encoding="utf-8")


def test_every_committed_picture_is_of_one_of_the_commands() -> None:
    studies = {"sharing"}  # which have --redraw
    drawn = {path.parent.name for path in OUTPUTS.glob("results/*/curves.png")}
    assert drawn == {*EVALUATIONS, *studies}
    figures = {path.stem.removeprefix("figure_") for path in OUTPUTS.glob("figures/*.png")}
    assert figures == FIGURES.keys()
    for path in OUTPUTS.glob("figures/*.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["figure"] in FIGURES


def test_committed_pictures_stay_below_a_megabyte() -> None:
    sizes = [path.stat().st_size for path in OUTPUTS.glob("*/**/*.png")]
    assert len(sizes) > 20
    assert max(sizes) < 1e6
