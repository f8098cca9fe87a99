"""The pages of results: their numbers are those of outputs/results, and the zoo is complete."""

import json
from pathlib import Path
from typing import Any

import pytest

from l2lgd.pretrained.weights import names

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
PAGES = {"quadratic": "mnist-quadratics", "mnist": "mnist-quadratics", "cifar": "cifar"}
BENCHMARKS = ("benchmark", "generalisation")
TABLES = [ROOT / "outputs" / "results" / name / "table.md" for name in BENCHMARKS]
EVALUATIONS = sorted((ROOT / "outputs" / "results").glob("*/summary.json"))


def page_of(evaluation: str) -> str:
    """The name of the page that has the final losses of a folder of outputs/results."""
    return next((page for start, page in PAGES.items() if evaluation.startswith(start)), "")


def spellings(value: float) -> set[str]:
    """How a loss may stand on a page, rounded by less than a hundredth of it."""
    rounded = {f"{value:.{decimals}f}" for decimals in range(1, 7)}
    return {number for number in rounded if abs(float(number) / value - 1) < 0.01}


def final_losses(summary: Path) -> dict[str, Any]:
    results = json.loads(summary.read_text("utf-8"))["results"]
    return {name: found["final_loss"] for name, found in results.items()}


CHECKED = [path for path in EVALUATIONS if page_of(path.parent.name)]


@pytest.mark.parametrize("summary", CHECKED, ids=lambda path: path.parent.name)
def test_final_losses_on_a_page_are_those_of_the_evaluation(summary: Path) -> None:
    written = (RESULTS / f"{page_of(summary.parent.name)}.md").read_text("utf-8")
    missing = [
        f"{name}: {loss['mean']:.6g}"
        for name, loss in final_losses(summary).items()
        if not any(spelling in written for spelling in spellings(loss["mean"]))
    ]
    assert not missing, f"{summary.parent.name}: {missing}"


@pytest.mark.parametrize("summary", CHECKED, ids=lambda path: path.parent.name)
def test_the_summary_has_the_learned_optimizers_losses_and_intervals(summary: Path) -> None:
    written = (RESULTS / "summary.md").read_text("utf-8")
    for name, loss in final_losses(summary).items():
        if "lstm" not in name:
            continue
        for value in (loss["mean"], *loss["ci95"]):
            assert any(spelling in written for spelling in spellings(value)), (name, value)


def test_the_model_zoo_has_all_shipped_weights() -> None:
    written = (RESULTS / "models.md").read_text("utf-8")
    assert not [name for name in names() if f"`{name}`" not in written]


def folder_of(path: Path) -> str:
    return path.parent.name


@pytest.mark.parametrize("table", TABLES, ids=folder_of)
def test_the_page_of_the_benchmark_has_its_tables(table: Path) -> None:
    page = (RESULTS / "benchmark.md").read_text(encoding="utf-8")
    rows = [line for line in table.read_text("utf-8").splitlines() if line.startswith("| ")]
    assert len(rows) > 10
    assert [row for row in rows if row not in page] == []
