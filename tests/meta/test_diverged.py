"""One function of a stack that diverges: the others give the meta-gradient of a run without it."""

import math
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from helpers import LEARNED, json_lines, optimizer, quadratics
from torch import Tensor

from l2lgd.meta.diverged import finite_functions, without
from l2lgd.meta.estimators.replay import Replay, replay
from l2lgd.meta.rollout import rollout, start
from l2lgd.meta.schedules import META_LOSSES, Unroll
from l2lgd.meta.trainer import MetaSettings, Trainer
from l2lgd.tasks.base import Split
from l2lgd.tasks.quadratic import Quadratics, QuadraticTask
from l2lgd.tracking.loggers import About
from l2lgd.tracking.tracker import RunTracker

B, SICK = 16, 5
WITHOUT = [row for row in range(B) if row != SICK]


class Sick(Quadratics):
    """Quadratics, of which some have losses that are no numbers from a step on.

    Args:
        bad: (B,), what is added to the losses from step ``since`` on.
    """

    def __init__(self, whole: Quadratics, bad: Tensor, since: int) -> None:
        super().__init__(whole.matrices, whole.targets, whole.initial_parameters)
        self.bad, self.since = bad, since

    def loss(self, parameters: Tensor, step: int) -> Tensor:
        found = super().loss(parameters, step)
        if step < self.since:
            return found
        return torch.where(self.bad == 0, found, self.bad * parameters.sum(1))

    def select(self, rows: Any) -> Self:
        part = Quadratics(self.matrices[rows], self.targets[rows], self.initial_parameters[rows])
        return type(self)(part, self.bad[rows], self.since)


def sick(value: float, since: int) -> Sick:
    bad = torch.zeros(B, dtype=torch.float64)
    bad[SICK] = value
    return Sick(quadratics(B, 6), bad, since)


def meta_gradients(learned: Any, functions: Any, second: bool, meta_loss: str) -> list[Tensor]:
    """Of two unrolls, the second after the divergence."""
    objective = Unroll([4], meta_loss=meta_loss).objective(8)
    at, found = start(learned, functions, horizon=8), []
    for _ in range(2):
        learned.zero_grad(set_to_none=True)
        record, at = rollout(at, 4, keep_path=second)
        alive = finite_functions(record)
        if alive is not None:
            record = without(record, alive)
        loss = replay(record, objective, 1.0 if second else 0.0)
        found += [loss, record.update_size, *(weight.grad for weight in learned.phi())]
    return found


@pytest.mark.parametrize("second", [False, True], ids=["first order", "second derivatives"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e200])
@pytest.mark.parametrize("since", [0, 2, 6])
def test_the_others_give_the_meta_gradient_of_a_run_without_it(
    since: int, value: float, second: bool
) -> None:
    learned = optimizer("lstm")
    found = meta_gradients(learned, sick(value, since), second, "loss")
    expected = meta_gradients(learned, sick(0.0, since).select(WITHOUT), second, "loss")
    if since == 6:  # in the first unroll all take part
        whole = meta_gradients(learned, sick(0.0, 0), second, "loss")
        expected[: len(expected) // 2] = whole[: len(whole) // 2]
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("meta_loss", sorted(META_LOSSES))
@pytest.mark.parametrize("name", LEARNED)
def test_whatever_the_optimizer_and_the_meta_loss(name: str, meta_loss: str) -> None:
    learned = optimizer(name)
    second = name != "ntm_bfgs"
    found = meta_gradients(learned, sick(math.nan, 2), second, meta_loss)
    expected = meta_gradients(learned, sick(0.0, 2).select(WITHOUT), second, meta_loss)
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-8, atol=1e-13)


def test_nothing_is_looked_for_where_all_is_finite() -> None:
    record, _ = rollout(start(optimizer("lstm"), quadratics(4)), 3)
    assert finite_functions(record) is None
    record.gradients[1, 2, 0] = 1e150
    record.gradients[1, 3, 0] = -1e150
    assert finite_functions(record) is None
    record.gradients[1, 2, 0] = math.nan
    assert finite_functions(record).tolist() == [True, True, False, True]
    record.losses[0, 3] = math.inf
    assert finite_functions(record).tolist() == [True, True, False, False]
    record.gradients[0, 1, 0] = 1e155
    assert finite_functions(record).tolist() == [True, False, False, False]


class SickTask(QuadraticTask):
    """One function in each stack has no finite loss, or none has one."""

    all_of_them = False

    def sample(self, split: Split, num_functions: int, generator: torch.Generator) -> Quadratics:
        whole = super().sample(split, num_functions, generator)
        bad = torch.zeros(num_functions)
        if split == "train":
            bad[slice(None) if self.all_of_them else 0] = math.nan
        return Sick(whole, bad, 3)


SETTINGS = {"meta_learning_rate": 0.01, "meta_decay": "constant", "meta_clip": 1.0}
SETTINGS |= {"meta_average": 0.0, "num_functions": 4, "num_steps": 10, "validate_every": 10}
SETTINGS |= {"validation_functions": 2, "checkpoint_every": 10, "meta_steps": 10}


def trained(task: QuadraticTask, folder: Path) -> list[dict[str, Any]]:
    tracker = RunTracker(About(folder, "", {}), ("a", "b"))
    learned = optimizer("lstm", torch.float32)
    Trainer(task, 0, tracker).meta_train(
        learned, Unroll([5]), Replay(), MetaSettings(**SETTINGS), folder, {}
    )
    tracker.close()
    assert all(weight.isfinite().all() for weight in learned.parameters())
    return json_lines(folder / "metrics.jsonl")


def test_a_meta_training_goes_on_without_it_and_says_so(tmp_path: Path) -> None:
    lines = [line for line in trained(SickTask(), tmp_path) if "diverged" in line]
    assert [line["diverged"] for line in lines] == [1] * 10
    assert lines[-1]["skipped"] == 0
    assert all(math.isfinite(line["mean_loss"]) for line in lines)
    assert lines[-1]["trajectory"] == 4, "trajectories are as long as ever"


def test_where_none_is_finite_the_meta_step_is_skipped_and_counted(tmp_path: Path) -> None:
    task = SickTask()
    task.all_of_them = True
    lines = [line for line in trained(task, tmp_path) if "diverged" in line]
    assert lines[-1]["skipped"] == 10
    assert lines[-1]["diverged"] == 4
