"""``l2lgd figures``: tables, captions, caching, and the committed results."""

import dataclasses
import fcntl
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_picture, environment, l2lgd, wait_until
from PIL import Image

from l2lgd.errors import ConfigError, UserError
from l2lgd.figures import styles
from l2lgd.figures.base import Appearance, Row, Table
from l2lgd.figures.catalogue import FIGURES, QUADRATIC
from l2lgd.figures.comparison import TITLES, comparison, published
from l2lgd.figures.custom import own
from l2lgd.figures.drawing import read
from l2lgd.figures.evaluations import Evaluations, Plan
from l2lgd.pretrained.weights import SHIPPED, shipped_path
from l2lgd.results.losses import digest
from l2lgd.storage import checkpoint, locks

COMMITTED = Path(__file__).parents[2] / "outputs" / "figures"
SMALL = [f"scale.functions.{name}=1" for name in ("mnist", "mnist_long", "grid", "sharing_mnist")]
SMALL += ["scale.functions.quadratic=3", "scale.functions.sharing=3", "workers=2"]


@pytest.fixture(scope="module")
def drawn(mnist_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Figure 4 of a few functions, with the paper's curves."""
    folder = tmp_path_factory.mktemp("figures")
    ran = _figures(folder, mnist_dir, "figure=4", "figures.overlay=paper")
    assert ran.returncode == 0, ran.stderr
    shutil.copytree(folder / "outputs", folder / "first" / "outputs")
    return folder


def _figures(folder: Path, data: str, *options: str) -> subprocess.CompletedProcess[str]:
    return l2lgd("figures", *SMALL, *options, cwd=folder, L2LGD_DATA=data)


def _files(folder: Path) -> dict[str, bytes]:
    found = sorted((folder / "outputs" / "figures").glob("figure_*"))
    return {path.name: path.read_bytes() for path in found}


def test_a_table_survives_its_csv() -> None:
    table = Table([Row("a, b", "lstm", 1, 0.5, 0.25, 0.75), Row("c", "adam", 2.5, 3, np.nan, 4)])
    again = Table.parse(table.csv())
    assert again[0] == table[0]
    assert again[1][:4] == table[1][:4]
    assert np.isnan(again[1].low)
    assert again.at("c", "adam", 2.5) == 3
    assert again.at("c", "sgd", 2.5) is None


@pytest.mark.parametrize("text", ["", "panel,optimizer\na,b\n", "{}"])
def test_what_is_no_table_is_refused_or_empty(text: str) -> None:
    if text.count("\n") == 2:
        with pytest.raises(UserError, match="not the table"):
            Table.parse(text)
    else:
        assert not Table.parse(text)


def test_the_published_values_are_those_of_the_paper() -> None:
    found = published()
    assert found["4"].at("mnist", "nag", 200) == 0.25
    assert found["5"].at("mnist_relu", "lstm", 100) == 2.58
    assert found["6"].at("layers_2", "adam", 50) == 0.554
    assert found["7"].at("cifar2", "lstm_sub", 1000) == 0.039
    assert found["8"].at("neural_art_large", "lstm", 20) == 1.05
    panels = {panel for table in found.values() for panel in table.panels()}
    assert panels == {*TITLES, "mnist_200"}


def test_ratios_are_to_the_best_tuned_optimizer_at_that_step() -> None:
    own = [("lstm", 0.2), ("adam", 0.5), ("rmsprop", 0.4), ("sgd", 0.9), ("nag", float("nan"))]
    table = Table(Row("mnist_40", name, 60, value, value, value) for name, value in own)
    text = comparison({"5": table})
    assert "| LSTM | 0.39 → – | 0.23 → 0.2 | 0.19 → – |" in text
    assert "| **LSTM / best tuned** | 0.3 → – | 0.622 → 0.5 | 0.633 → – |" in text
    assert "Figure 4" not in text


def test_a_figure_comes_with_pdf_csv_and_caption(drawn: Path) -> None:
    folder = drawn / "outputs" / "figures"
    with Image.open(folder / "figure_4.png") as picture:
        assert min(picture.size) > 300
    assert (folder / "figure_4.pdf").read_bytes().startswith(b"%PDF")
    table = read("4", folder).table
    assert table.panels() == ["quadratic", "mnist", "mnist_200"]
    assert set(table.lines("mnist")) == {"lstm", "sgd", "rmsprop", "adam", "nag"}
    caption = (folder / "figure_4.md").read_text(encoding="utf-8")
    assert caption.count(". ") == 1
    said = "3 test functions (1 without bands in “MNIST” and “MNIST, 200 steps”)"
    assert caption.endswith(f"over {said}.\n")
    about = json.loads((folder / "figure_4.json").read_text(encoding="utf-8"))
    assert about["panels"]["mnist"]["data"]["name"] == "mnist"
    assert about["panels"]["mnist"]["device"] == "cpu"
    assert about["panels"]["mnist"]["command"].startswith("l2lgd evaluate task=mnist")
    summary = json.loads(
        (folder / "evaluations" / "quadratic-3" / "summary.json").read_text(encoding="utf-8")
    )
    final = summary["results"]["adam"]["final_loss"]["mean"]
    assert table.at("quadratic", "adam", 100) == pytest.approx(final, rel=1e-4)
    assert "0.039 → " in (folder / "comparison.md").read_text(encoding="utf-8")


def test_a_second_call_evaluates_nothing_and_draws_the_same(drawn: Path, mnist_dir: str) -> None:
    before = _files(drawn / "first")
    again = _figures(drawn, mnist_dir, "figure=4", "figures.overlay=paper")
    assert "to make" not in again.stderr
    assert _files(drawn) == before
    other = _figures(drawn, mnist_dir, "figure=4", "figures.style=colour_blind")
    assert "to make" not in other.stderr
    after = _files(drawn)
    assert after["figure_4.png"] != before["figure_4.png"]
    assert after["figure_4.csv"] == before["figure_4.csv"]


def test_other_weights_or_functions_are_evaluated_anew(drawn: Path, mnist_dir: str) -> None:
    weights = drawn / "weights"
    for path in SHIPPED.glob("mnist-*.safetensors"):
        tensors, metadata = checkpoint.load(path)
        changed = {name: 0.9 * tensor for name, tensor in tensors.items()}
        checkpoint.save(weights / path.name, changed, metadata)
    before = read("4", drawn / "outputs" / "figures").table
    checkpoint.save(
        weights / "quadratic-lstm.safetensors",
        *checkpoint.load(SHIPPED / "quadratic-lstm.safetensors"),
    )
    options = ("figure=4", f"weights_dir={weights}", "hydra.run.dir=other")
    evaluations = drawn / "outputs" / "figures" / "evaluations"
    earlier = f"reuse=[{evaluations}/mnist-1,{evaluations}/quadratic-3]"
    ran = _figures(drawn, mnist_dir, *options, earlier)
    assert ran.returncode == 0, ran.stderr
    after = read("4", drawn / "other").table
    for panel, optimizer, same in (
        ("quadratic", "lstm", True),
        ("mnist", "adam", True),
        ("mnist", "lstm", False),
    ):
        equal = before.at(panel, optimizer, 100) == after.at(panel, optimizer, 100)
        assert equal == same, (panel, optimizer)


def test_a_killed_call_goes_on_to_the_same_result(
    drawn: Path, mnist_dir: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "l2lgd", "figures", *SMALL, "figure=4"]
    command += ["figures.overlay=paper", "workers=1"]
    changed = environment(L2LGD_DATA=mnist_dir)
    with subprocess.Popen(command, cwd=tmp_path, env=changed, stderr=subprocess.DEVNULL) as killed:
        first = tmp_path / "outputs" / "figures" / "evaluations" / "quadratic-3" / "summary.json"
        wait_until(first.is_file, "evaluation", killed)
        killed.kill()
    # The evaluation that was under way ends as well.
    begun = [folder for folder in first.parents[1].iterdir() if (folder / locks.FILE).exists()]
    wait_until(lambda: not any(map(_is_held, begun)), "free folder")
    ran = _figures(tmp_path, mnist_dir, "figure=4", "figures.overlay=paper")
    assert ran.returncode == 0, ran.stderr
    assert re.search("[12] of 3 evaluations to make", ran.stderr)
    again = _figures(drawn, mnist_dir, "figure=4", "figures.overlay=paper")
    assert again.returncode == 0
    assert _files(tmp_path) == _files(drawn)


def _is_held(folder: Path) -> bool:
    """Does a process have the lock of a folder?"""
    with (folder / locks.FILE).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_damaged_losses_are_made_again(drawn: Path, mnist_dir: str) -> None:
    before = _files(drawn / "first")
    folder = drawn / "outputs" / "figures" / "evaluations" / "quadratic-3"
    losses = folder / "losses.safetensors"
    losses.write_bytes(losses.read_bytes()[:-9])
    ran = _figures(drawn, mnist_dir, "figure=4", "figures.overlay=paper")
    assert ran.returncode == 0, ran.stderr
    assert "1 of 3 evaluations to make" in ran.stderr
    assert checkpoint.load(losses)[0]
    assert _files(drawn) == before


def test_evaluations_are_out_of_date_when_what_they_read_changes(tmp_path: Path) -> None:
    network = tmp_path / "network"
    network.write_text("one")
    plan = Plan(tmp_path, {"quadratic": 1}, [], [], [], None, 1, tmp_path, [network])
    stamps = [Evaluations(plan).stamp(QUADRATIC)]
    network.write_text("another")
    stamps.append(Evaluations(plan).stamp(QUADRATIC))
    elsewhere = dataclasses.replace(plan, data_dir=tmp_path / "elsewhere")
    stamps.append(Evaluations(elsewhere).stamp(QUADRATIC))
    assert stamps[0] != stamps[1] != stamps[2]
    assert Evaluations(elsewhere).stamp(QUADRATIC) == stamps[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["figure=44"], "figure=44"),
        (["figure=4", "figures.style=pretty"], "figures.style=pretty"),
        (["figure=4", "figures.overlay=ours"], "figures.overlay=ours"),
        (["figure=4", "scale.functions.mnist=0"], "scale.functions.mnist=0"),
        (["figure=4", "weights_dir=nowhere"], "weights_dir=nowhere"),
        (["figure=4", "workers=-1"], "workers=-1"),
        (["figure=[]"], "figure=[]"),
        (["figure=8", "vgg=nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_mistakes_end_in_one_line(options: list[str], said: str, tmp_path: Path) -> None:
    ran = l2lgd("figures", *SMALL, *options, cwd=tmp_path)
    assert ran.returncode == 2
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("l2lgd: ")
    assert said in last
    assert "Traceback" not in ran.stderr


def committed() -> list[str]:
    return [name for name in FIGURES if (COMMITTED / f"figure_{name}.csv").is_file()]


def test_every_figure_is_committed() -> None:
    assert committed() == list(FIGURES)


@pytest.mark.parametrize("name", committed())
def test_the_committed_figures_are_of_the_shipped_weights(name: str) -> None:
    about: Any = json.loads((COMMITTED / f"figure_{name}.json").read_text(encoding="utf-8"))
    checked = 0
    for panel in about["panels"].values():
        for optimizer, file in panel["checkpoints"].items():
            path = shipped_path(file)
            assert path.is_relative_to(SHIPPED)
            assert digest(checkpoint.load(path)[0]) == panel["weights"][optimizer], file
            checked += 1
    assert checked


@pytest.mark.parametrize("name", committed())
def test_drawing_a_committed_figure_again_gives_the_same_picture(name: str, tmp_path: Path) -> None:
    figure = FIGURES[name]
    again = tmp_path / "again.png"
    again.write_bytes(
        styles.encoded(figure.draw(read(name, COMMITTED), Appearance()), "png", figure.dpi)
    )
    assert_same_picture(again, COMMITTED / f"figure_{name}.png")


@pytest.mark.parametrize("name", ["quadratic", "quadratic_gaussian"])
def test_the_sharing_figures_axes_serve_what_learned(name: str) -> None:
    content = read("sharing", COMMITTED)
    axes = FIGURES["sharing"].draw(content, Appearance()).get_axes()
    low, _ = axes[content.table.panels().index(name)].get_ylim()
    lines = content.table.lines(name)
    others = [line[1].min() for optimizer, line in lines.items() if optimizer != "bfgs"]
    assert lines["bfgs"][1].min() < low < min(others)
    assert low > 0.3 * min(others)


def test_the_committed_comparison_is_that_of_the_tables() -> None:
    tables = {name: read(name, COMMITTED).table for name in committed()}
    assert comparison(tables) == (COMMITTED / "comparison.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "summary",
    [
        "[1]",
        '{"verb": "evaluate"}',
        '{"verb": "evaluate", "task": "mnist", "num_steps": "two", "command": "", "results": {}}',
        '{"verb": "evaluate", "task": ["mnist"], "num_steps": 2, "command": "", "results": {}}',
    ],
)
def test_a_damaged_summary_is_no_evaluation(summary: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(summary, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"no summary\.json of an evaluation"):
        own([str(tmp_path)])
