"""Estimators that go back along one trajectory after the other."""

import logging
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.meta.estimators.base import Course, Ended, Estimator, MetaProblem, Unrolled
from l2lgd.meta.estimators.objective import MetaObjective
from l2lgd.meta.rollout import Position, Record, Step
from l2lgd.meta.trajectories import Trajectory
from l2lgd.seeding import generator

log = logging.getLogger(__name__)


class Backpropagation(Estimator):
    """The derivative of an unroll, truncated at its beginning (section 2 of the paper).

    Args:
        second_derivatives: keep ∂∇_t/∂φ, which the paper drops.
        second_derivatives_from: share of the meta-training before they are kept; it is
            cheaper without them, and they matter when the optimizer already works.
        smoothing: 0 for exact second derivatives; else the optimizer's derivative with respect to
            a gradient is averaged over this multiple of the coordinate's typical gradient, without
            which long unrolls are chaotic.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self,
        second_derivatives: bool = False,
        second_derivatives_from: float = 0.0,
        smoothing: float = 0.0,
    ) -> None:
        if not 0 <= second_derivatives_from <= 1:
            raise ConfigError(
                f"second_derivatives_from={second_derivatives_from}: must be between 0 and 1"
            )
        if not 0 <= smoothing < math.inf:
            raise ConfigError(f"smoothing={smoothing}: must not be negative")
        self.second_derivatives = second_derivatives
        self.second_derivatives_from = second_derivatives_from
        self.smoothing = smoothing

    def begin(self, problem: MetaProblem, trajectory: int = 0) -> Course:
        if self.second_derivatives and self.smoothing and not problem.rule.smooths:
            name = type(problem.rule).__name__
            log.warning("estimator.smoothing: %s has exact second derivatives only", name)
        return OneTrajectory(self, problem, trajectory)

    @abstractmethod
    def estimate(
        self, at: Position, length: int, objective: MetaObjective, second: bool, step: Step
    ) -> tuple[Tensor, Record, Position]:
        """Go on by ``length`` steps and add the meta-gradient to ``.grad`` of φ.

        Args:
            second: keep second derivatives.
            step: does a step, where there is no graph.

        Returns:
            The meta-loss; the record, with the functions that diverged marked; and the new
            position.
        """


class OneTrajectory(Course):
    """B functions on their way from θ_0 to θ_T; then B others."""

    def __init__(self, estimator: Backpropagation, problem: MetaProblem, trajectory: int) -> None:
        self._estimator, self._problem, self.trajectory = estimator, problem, trajectory
        self._under_way = self._begun()

    @property
    def step(self) -> int:  # type: ignore[override]
        return self._under_way.position.step

    def unroll(self, fraction: float) -> Unrolled:
        problem, estimator = self._problem, self._estimator
        horizon = problem.unroll.horizon(fraction, problem.num_steps)
        ended = None
        if self._under_way.hopeless or self.step >= horizon:
            ratio = self._mean_loss(self._under_way) / self._under_way.initial_loss
            ended = Ended(ratio, self._under_way.diverged)
            self.trajectory += 1
            self._under_way = self._begun()
        under_way = self._under_way
        at = replace(under_way.position, horizon=horizon)
        length = min(problem.unroll.length(fraction), horizon - at.step)
        second = estimator.second_derivatives and fraction >= estimator.second_derivatives_from
        problem.rule.zero_grad(set_to_none=True)
        meta_loss, record, at = estimator.estimate(
            at, length, problem.unroll.objective(horizon), second, under_way.step
        )
        under_way.position = at
        numbers, count = self._mean_over_ranks(record, meta_loss)
        under_way.went_on(numbers["mean_loss"], problem.unroll.restart_above)
        coordinates = problem.num_functions * at.parameters.shape[1]
        diverged = problem.num_functions - count
        return Unrolled(
            numbers, count, diverged, length, length * coordinates, at.step, horizon, ended
        )

    def settle(self, used: bool) -> None:
        self._under_way.diverged |= not used

    def tensors(self) -> dict[str, Tensor]:
        return self._under_way.tensors()

    def marks(self) -> dict[str, Any]:
        return self._under_way.marks()

    def restore(self, step: int, marks: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self._under_way.restore(step, marks, tensors)

    def _begun(self) -> Trajectory:
        """Fresh functions; which ones depends on the trajectory's number alone."""
        problem = self._problem
        draw = generator(problem.seed, "train", self.trajectory)
        optimizee = problem.task.sample("train", problem.num_functions, draw)
        own = optimizee.select(problem.ranks.share(problem.num_functions))
        trajectory = Trajectory.begin(problem.rule, own)
        trajectory.initial_loss = self._mean_loss(trajectory)
        return trajectory

    def _mean_loss(self, trajectory: Trajectory) -> float:
        """Where the trajectory stands, over all functions that have not diverged."""
        losses = trajectory.position.loss
        finite = losses[losses.isfinite()]
        (mean,), count = self._problem.ranks.mean([finite.mean()], len(finite))
        return mean.item() if count else math.nan

    def _mean_over_ranks(self, record: Record, meta_loss: Tensor) -> tuple[dict[str, float], int]:
        """Make ``.grad`` the meta-gradient over all functions that have not diverged.

        Returns:
            Numbers for the log, and how many functions these are means over.
        """
        gradients, losses = record.of_alive(record.gradients, 1), record.of_alive(record.losses, 1)
        squares = {
            "update_size": record.update_size.square(),
            "gradient_size": gradients.square().mean(),
        }
        numbers = {"meta_loss": meta_loss, "mean_loss": losses.mean(), **squares}
        for name, value in record.optimizer.input_statistics(gradients).items():
            numbers[name] = meta_loss.new_tensor(value)
        weights = self._problem.rule.phi()
        for weight in weights:
            if weight.grad is None:  # nothing of it is used
                weight.grad = torch.zeros_like(weight)
        parts = [*(weight.grad for weight in weights), *numbers.values()]
        means, count = self._problem.ranks.mean(parts, losses.shape[1])  # type: ignore[arg-type]
        found = iter(means)
        for weight in weights:
            weight.grad = next(found)
        said = {name: value.item() for name, value in zip(numbers, found, strict=True)}
        return said | {name: math.sqrt(said[name]) for name in squares}, count
