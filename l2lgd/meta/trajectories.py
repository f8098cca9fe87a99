"""The trajectory that a meta-training is in the middle of, and its tensors for a checkpoint."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from l2lgd.meta.graphed import step_of
from l2lgd.meta.rollout import Position, Step, advance, start
from l2lgd.optimizers.base import LearnedRule, like_state, tensors_of
from l2lgd.tasks.base import Optimizee


@dataclass
class Trajectory:
    """B optimizees on their way from θ_0 to θ_T."""

    initial_loss: float  # mean over the functions
    position: Position
    step: Step = advance
    lowest: float = math.inf  # mean loss of an unroll so far
    strayed: bool = False  # far above that
    diverged: bool = False  # a meta-gradient was not finite

    @property
    def hopeless(self) -> bool:
        """Going on is no use."""
        return self.strayed or self.diverged

    def went_on(self, mean_loss: float, restart_above: float) -> None:
        """Note the mean loss of an unroll, and whether the trajectory has strayed."""
        self.lowest = min(self.lowest, mean_loss)
        self.strayed = mean_loss > restart_above * self.lowest

    @classmethod
    def begin(cls, optimizer: LearnedRule, optimizee: Optimizee) -> "Trajectory":
        """At step 0."""
        position = start(optimizer, optimizee)
        return cls(position.loss.mean().item(), position, step_of(position))

    def tensors(self) -> dict[str, Tensor]:
        """θ, f(θ), ∇ and the optimizer's states."""
        return kept(self.position)

    def marks(self) -> dict[str, Any]:
        """How it has fared."""
        return {name: getattr(self, name) for name in ("lowest", "strayed", "diverged")}

    def restore(self, step: int, marks: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go to where a trajectory of the same functions was when its tensors were taken."""
        for name, value in marks.items():
            setattr(self, name, value)
        self.position = put_back(self.position, step, tensors)


def kept(at: Position) -> dict[str, Tensor]:
    """θ, f(θ), ∇ and the optimizer's states, by names."""
    states = {f"state.{index}": tensor for index, tensor in enumerate(tensors_of(at.states))}
    return {"parameters": at.parameters, "loss": at.loss, "gradient": at.gradient, **states}


def put_back(at: Position, step: int, tensors: Mapping[str, Tensor]) -> Position:
    """Where a position of the same functions was when :func:`kept` was told of it."""
    device = at.parameters.device
    saved = (tensors[f"state.{index}"].to(device) for index in itertools.count())
    return replace(
        at,
        parameters=tensors["parameters"].to(device),
        states=[like_state(state, saved) for state in at.states],
        step=step,
        loss=tensors["loss"].to(device),
        gradient=tensors["gradient"].to(device),
    )
