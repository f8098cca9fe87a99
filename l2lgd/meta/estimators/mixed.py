"""The course of a meta-training on a task of several parts: one part in each meta-step."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.meta.estimators.base import Course, Estimator, MetaProblem, Unrolled
from l2lgd.meta.schedules import Unroll
from l2lgd.seeding import derive_seed, generator
from l2lgd.tasks.base import Task


def begin(estimator: Estimator, problem: MetaProblem, trajectory: int = 0) -> Course:
    """The first trajectories of a meta-training, on every part of its task.

    Args:
        trajectory: the number that the first has, where the task has one part.

    Raises:
        ConfigError: the estimator has no way with the rule or a part, or horizons are given twice.
    """
    parts = problem.task.parts()
    check_horizons(problem.task, problem.unroll)
    if len(parts) > 1:
        return Mixed(estimator, problem)
    (part,) = parts.values()
    steps = part.num_steps or problem.num_steps
    return estimator.begin(replace(problem, task=part.task, num_steps=steps), trajectory)


def check_horizons(task: Task, unroll: Unroll) -> None:
    """Raise ConfigError where both say how long trajectories are."""
    if unroll.horizons and any(part.num_steps for part in task.parts().values()):
        raise ConfigError(
            f"task={task.name} says itself how long trajectories are, in its horizons; leave "
            "unroll.horizons=null, or those at null"
        )


class Mixed(Course):
    """A course for each part, of which one goes on in each meta-step.

    The parts' functions may differ in everything: each part has trajectories and a horizon of its
    own, and randomness that depends on its name.
    """

    def __init__(self, estimator: Estimator, problem: MetaProblem) -> None:
        self.step = 0  # unrolls so far, of all parts
        self._estimator, self._seed = estimator, problem.seed
        parts = problem.task.parts()
        self._weights = torch.tensor([p.weight for p in parts.values()], dtype=torch.float64)
        self._problems = {
            name: replace(
                problem,
                task=part.task,
                num_steps=part.num_steps or problem.num_steps,
                seed=derive_seed(problem.seed, "part", name),
            )
            for name, part in parts.items()
        }
        # All at once, so that what has no way fails before anything is meta-trained.
        self._courses = {name: estimator.begin(own) for name, own in self._problems.items()}
        self._last = next(iter(parts))  # the part of the last unroll

    @property
    def trajectory(self) -> int:  # type: ignore[override]
        return sum(course.trajectory for course in self._courses.values())

    def unroll(self, fraction: float) -> Unrolled:
        self._last = self._drawn()
        unrolled = self._courses[self._last].unroll(fraction)
        self.step += 1
        own = {f"meta_loss/{self._last}": unrolled.numbers["meta_loss"]}
        return replace(unrolled, numbers={**unrolled.numbers, **own})

    def settle(self, used: bool) -> None:
        self._courses[self._last].settle(used)

    def tensors(self) -> dict[str, Tensor]:
        return {
            f"{part}.{name}": tensor
            for part, course in self._courses.items()
            for name, tensor in course.tensors().items()
        }

    def marks(self) -> dict[str, Any]:
        return {
            part: {"trajectory": own.trajectory, "step": own.step, "marks": own.marks()}
            for part, own in self._courses.items()
        }

    def restore(self, step: int, marks: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.step = step
        for part, problem in self._problems.items():
            told, prefix = marks[part], f"{part}."
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            course = self._estimator.begin(problem, told["trajectory"])
            course.restore(told["step"], told["marks"], own)
            self._courses[part] = course

    def _drawn(self) -> str:
        """The part of this meta-step, which depends on its number alone."""
        draw = generator(self._seed, "part", self.step)
        index = int(torch.multinomial(self._weights, 1, generator=draw))
        return list(self._courses)[index]
