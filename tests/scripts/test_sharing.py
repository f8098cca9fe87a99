"""The committed study of sharing: its weights, its table, and the commands that made them."""

import csv
import importlib.util
import json
import shlex
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_same_picture, l2lgd, node

from l2lgd.config.building import build
from l2lgd.meta.trainer import Trainer
from l2lgd.pretrained.weights import SHIPPED
from l2lgd.storage import checkpoint
from l2lgd.tracking.tracker import NullTracker

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "outputs" / "results" / "sharing"


def script() -> ModuleType:
    path = ROOT / "scripts" / "studies" / "sharing.py"
    spec = importlib.util.spec_from_file_location("sharing_study", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STUDY = script()
SHIPPED_RUNS = [run for run in STUDY.meta_trainings() if run.seed == 0]


def weights(run: Any) -> Path:
    return SHIPPED / "sharing" / f"{run.task}-{run.opt}.safetensors"


def of(run: Any, name: str) -> list[dict[str, str]]:
    """The lines of a committed file that are about a meta-training."""
    with (RESULTS / name).open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    return [row for row in found if (row["task"], row["optimizer"]) == (run.task, run.opt)]


@pytest.mark.parametrize("run", SHIPPED_RUNS, ids=lambda run: f"{run.task}-{run.opt}")
def test_shipped_weights_come_from_the_studys_commands(run: Any) -> None:
    _, metadata = checkpoint.load(weights(run))
    assert sorted(shlex.split(metadata["command"])) == sorted(["l2lgd", *run.command()])
    assert (metadata["task_name"], metadata["opt_name"]) == (run.task, run.opt)


@pytest.mark.parametrize(
    "run",
    [run for run in SHIPPED_RUNS if run.task in STUDY.QUADRATICS],
    ids=lambda run: f"{run.task}-{run.opt}",
)
def test_shipped_weights_do_what_the_table_says(run: Any) -> None:
    """Rounding differs between machines, and the loop amplifies it: the beginning is the same."""
    tensors, metadata = checkpoint.load(weights(run))
    optimizer: Any = build(metadata["opt"], "opt")
    optimizer.load_state_dict(tensors)
    task: Any = build(node("evaluate", "task", f"task={run.task}"), "task")
    task.setup("", torch.device("cpu"), torch.float32)
    curves = Trainer(task, STUDY.TEST_SEED, NullTracker()).evaluate(optimizer, "test", 100, 100)
    begun = [float(row["mean"]) for row in of(run, "curves.csv") if int(row["step"]) <= 5]
    assert curves.losses[:6].mean(1).tolist() == pytest.approx(begun, rel=1e-3)
    (row,) = (r for r in of(run, "table.csv") if r["dimension"] == str(STUDY.META_TRAINED_AT))
    ratio = np.median(curves.final_losses()) / float(row["median"])
    assert 1 / 3 < ratio < 3


def test_learned_optimizers_are_compared_with_each_other_and_with_tuned_ones(
    tmp_path: Path,
) -> None:
    done = l2lgd(
        *("evaluate", "task=quadratic_scaled", "opt=ntm_lbfgs", "num_functions=5", "threads=1"),
        *("baselines=[lstm,lstm_gac,ntm_bfgs,nag,bfgs]", "tuned_dir=tuned", "logger=none"),
        "hydra.run.dir=run",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["results"]
    assert list(results) == ["ntm_lbfgs", "lstm", "lstm_gac", "ntm_bfgs", "nag", "bfgs"]
    for name, result in results.items():
        assert (result["learning_rate"] is None) == (name not in ("nag", "bfgs"))
    assert not (tmp_path / "tuned").exists(), "the shipped rates were not found"


def test_the_committed_picture_is_that_of_the_tables(tmp_path: Path) -> None:
    for name in ("curves.csv", "table.csv"):
        shutil.copy(RESULTS / name, tmp_path)
    STUDY.draw(tmp_path)
    assert_same_picture(tmp_path / "curves.png", RESULTS / "curves.png")


def test_an_interval_of_one_function_is_a_dash() -> None:
    row = {"final_loss": 0.2, "low": None, "high": None, "diverged": 0}
    assert STUDY.cell(row) == "0.2 (–)"
