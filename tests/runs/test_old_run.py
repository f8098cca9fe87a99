"""A run of the version before the rooms (0.1.0) goes on, and its weights are used.

``old_run`` is what a SIGKILL left of
``l2lgd meta-train task=quadratic opt=lstm_odd unroll=recipe task.recipe.validation_functions=5
opt.optimizer.hidden_size=4 logger=none threads=1 device=cpu seed=3 num_functions=3 num_steps=20
meta_steps=60 validate_every=10 checkpoint_every=5 hydra.run.dir=old_run``, with torch 2.14.1.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import l2lgd

from l2lgd import LearnedOptimizer

OLD = Path(__file__).with_name("old_run")
AT_THE_END = 1.0243  # best validation loss that the version of the run reached, from 2.42


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old_run"))


def test_it_goes_on(run: Path) -> None:
    before = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    done = l2lgd("meta-train", "resume=old_run", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    assert summary["meta_steps"] == 60
    assert summary["best_validation_loss"] == pytest.approx(AT_THE_END, rel=0.1)
    assert "unroll=task" in summary["command"]
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    kept = [line for line in before if json.loads(line)["step"] <= 10]
    assert lines[: len(kept)] == kept


def test_another_option_is_still_refused(run: Path) -> None:
    done = l2lgd("meta-train", "resume=old_run", "num_functions=4", cwd=run.parent)
    assert done.returncode == 2
    assert "num_functions: 3 → 4" in done.stderr


def test_its_weights_are_evaluated(run: Path) -> None:
    weights = "checkpoint=old_run/checkpoints/best.safetensors"
    words = ("task=quadratic", "opt=lstm_odd", "baselines=[]", "num_functions=2", "logger=none")
    done = l2lgd("evaluate", *words, weights, "hydra.run.dir=evaluation", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    summary = json.loads((run.parent / "evaluation" / "summary.json").read_text("utf-8"))
    assert summary["results"]["lstm_odd"]["final_loss"]["mean"] < 10


def test_its_weights_train_a_model() -> None:
    theta = torch.nn.Parameter(torch.ones(3))
    weights = str(OLD / "checkpoints" / "best.safetensors")
    optimizer = LearnedOptimizer([theta], weights=weights)
    for _ in range(3):
        optimizer.zero_grad()
        theta.square().sum().backward()
        optimizer.step()
    # 1 and what the version of the run added in three steps
    torch.testing.assert_close(theta.detach() - 1, torch.full((3,), 0.001042), rtol=0.01, atol=0)
