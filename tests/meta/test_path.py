"""The path of an optimizer over functions: what it reports, and where it ends."""

import torch
from helpers import quadratics
from torch import Tensor

from l2lgd.meta.evaluator import AHEAD, Evaluator
from l2lgd.optimizers.base import Optimizer
from l2lgd.optimizers.hand_designed import HandDesigned
from l2lgd.tasks.quadratic import QuadraticTask
from l2lgd.tracking.tracker import NullTracker


class Breaking(Optimizer[Tensor]):
    """Gradient descent; functions ``rows`` are lost in the tenth step."""

    def __init__(self, rows: list[int]) -> None:
        self.rows, self.steps = rows, 0

    def initial_state(self, parameters: Tensor) -> Tensor:
        return torch.zeros_like(parameters)

    def step(
        self, gradient: Tensor, state: Tensor, width: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        self.steps += 1
        update = -0.01 * gradient
        if self.steps == 10:
            update[self.rows] = torch.nan
        return update, state


def path(optimizer: Optimizer[Tensor], steps: int) -> Tensor:
    evaluator = Evaluator(QuadraticTask(), 0, NullTracker())
    return evaluator.path(optimizer, quadratics(), steps)[0]


def test_functions_that_are_all_lost_are_not_run_on() -> None:
    lost = Breaking([0, 1, 2])
    losses = path(lost, 5 * AHEAD)
    assert losses.shape == (5 * AHEAD + 1, 3)
    assert losses[:10].isfinite().all()
    assert losses[10:].isnan().all()
    assert lost.steps == AHEAD


def test_one_that_is_not_lost_is_run_on_as_by_itself() -> None:
    losses, alone = path(Breaking([0, 2]), 3 * AHEAD), path(Breaking([]), 3 * AHEAD)
    assert losses[:, 1].equal(alone[:, 1])
    assert losses[10:, [0, 2]].isnan().all()


def test_a_path_ends_where_its_last_loss_is() -> None:
    functions = quadratics()
    evaluator = Evaluator(QuadraticTask(), 0, NullTracker())
    losses, at = evaluator.path(HandDesigned("Adam", 0.1), functions, 20)
    assert at.step == 20
    assert losses[-1].equal(functions.loss(at.parameters, 20))
