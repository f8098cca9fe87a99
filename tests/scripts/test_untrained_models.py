"""``scripts/studies/untrained_models.py`` runs on all five models, and goes on where it stopped."""

import csv
import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import SCRIPTS, assert_same_picture, python
from matplotlib.figure import Figure

from l2lgd.errors import UserError

SCRIPT = SCRIPTS / "studies/untrained_models.py"
SHORT = ("--steps", "2", "--tuning-seeds", "1", "--report-seeds", "1")
RATES = (0.1, 1.0)  # fewer than in the study, for time


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STUDY = script()
STUDY.LEARNED_RATES = RATES


def run(folder: Path, models: str, *options: str) -> None:
    STUDY.main([*SHORT, "--results", str(folder), "--only", models, *options])


def check(folder: Path, models: str, *options: str) -> dict[str, Any]:
    """Run, look at the files; returns what ``results.json`` holds."""
    run(folder, models, *options)
    names = models.split(",")
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert list(found["models"]) == names
    keys = [(r["problem"], r["optimizer"], r["lr"], r["seed"], r["factor"]) for r in found["runs"]]
    assert len(set(keys)) == len(keys)
    assert {key[0] for key in keys} >= set(names)
    assert all(record["initial_loss"] > 0 for record in found["runs"])
    with (folder / "curves.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["step"]) for row in rows] == [(n, s) for n in names for s in "01"]
    assert all(float(row["mnist-lstm plain"]) > 0 for row in rows)
    table = (folder / "table.md").read_text(encoding="utf-8")
    assert all(table.count(found["models"][name]["title"]) == 4 for name in names)
    assert (folder / "curves.png").stat().st_size > 10_000
    return found


def test_models_that_need_no_files(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    found = check(tmp_path, "digits,transformer,burgers")
    kept = [record for record in found["runs"] if "losses" in record]
    assert {record["seed"] for record in kept} == {100}  # one that nothing was tuned on
    assert {len(record["losses"]) for record in kept} == {2}
    runs = [record for record in found["runs"] if record["seed"] == 0]
    for model in found["models"]:
        of = {
            name: {
                record["lr"]: record["final_loss"]
                for record in runs
                if (record["problem"], record["optimizer"]) == (model, name)
            }
            for name in ("adam", "quadratic-lstm")
        }
        assert tuple(of["quadratic-lstm"]) == RATES
        tried = of["adam"]
        assert len(tried) >= 10
        best = min(tried, key=tried.__getitem__)
        assert min(tried) < best < max(tried) or best in (1e-6, 10)  # as far as the grid may grow


def test_nothing_is_done_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, "burgers")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert files.keys() == {"results.json", "curves.csv", "curves.png", "table.md"}
    monkeypatch.setattr(STUDY, "run", None)
    run(tmp_path, "burgers")
    assert files == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_pictures(
    tmp_path: Path, mnist_dir: str, cifar_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mnist_dir == cifar_dir
    monkeypatch.setenv("L2LGD_DATA", mnist_dir)
    check(tmp_path, "resnet,autoencoder", "--diagnose")
    diagnosis = (tmp_path / "diagnosis.md").read_text(encoding="utf-8")
    for weights in STUDY.WEIGHTS:
        assert f"| meta-training of {weights} |" in diagnosis
        assert f"| autoencoder | {weights} |" in diagnosis


@pytest.mark.parametrize(
    ("steps", "finals", "diverged"),
    [(2, [2.0, 1.0], False), (2, [2.0, 3.0], True), (5, [2.0, float("inf")], True)],
)
def test_what_counts_as_diverged(steps: int, finals: list[float], diverged: bool) -> None:
    assert STUDY.outcome(finals, steps)["diverged"] is diverged


def test_scikit_learn_is_asked_for_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "sklearn.py").write_text("raise ImportError")
    hidden = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import runpy; sys.argv = ['x']"
    done = python("-c", f"{hidden}; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')")
    assert done.returncode == 2
    assert "the digits need scikit-learn: pip install scikit-learn" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results.json").exists()


def test_an_unknown_model_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        STUDY.parsed(["--only", "digits,abacus"])
    assert "no model abacus; choose among digits, resnet" in capsys.readouterr().err


def test_a_picture_needs_all_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no .*results\.json"):
        STUDY.main(["--redraw", "--results", str(tmp_path)])
    kept = {"protocol": STUDY.Protocol(2, 1, 1)._asdict(), "models": {"digits": {}}, "runs": []}
    (tmp_path / "results.json").write_text(json.dumps(kept), encoding="utf-8")
    with pytest.raises(UserError, match="lacks a run of digits"):
        STUDY.main(["--redraw", "--results", str(tmp_path)])


def report(rate: float, *losses: list[float]) -> list[dict[str, Any]]:
    return [{"lr": rate, "losses": one} for one in losses]


def test_what_is_drawn_has_a_band_and_is_drawn_once() -> None:
    pair, alone = [[3.0, 2.0], [4.0, 1.0]], [[3.0, 2.0]]
    reports = {
        "adam": STUDY.Reported(report(0.001, *pair), report(0.1, *pair)),
        "mnist-lstm": STUDY.Reported(report(1.0, *pair), report(0.3, *alone)),
        "quadratic-lstm": STUDY.Reported(report(1.0, *pair), report(1.0, *pair)),
    }
    axes = Figure().subplots()
    STUDY.draw_panel(axes, reports, 2)
    labels = ["Adam, tuned", "mnist-lstm, lr=1", "mnist-lstm, tuned", "quadratic-lstm, lr=1"]
    assert axes.get_legend_handles_labels()[1] == labels
    assert len(axes.collections) == len(labels) - 1  # one seed alone has no band


def test_the_committed_picture_is_that_of_the_results(tmp_path: Path) -> None:
    committed = SCRIPTS.parent / "outputs" / "results" / "untrained"
    shutil.copy(committed / "results.json", tmp_path)
    script().main(["--redraw", "--results", str(tmp_path)])  # with all rates of the study
    assert_same_picture(tmp_path / "curves.png", committed / "curves.png")
    assert (tmp_path / "results.json").read_bytes() == (committed / "results.json").read_bytes()
