"""The trained optimizers of an assignment where the parameters are."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from l2lgd.optimizers.base import LearnedRule
from l2lgd.pretrained.assignment import Assignment
from l2lgd.pretrained.layout import Entry
from l2lgd.pretrained.sharding import real_shape
from l2lgd.pretrained.stepping import Stepper


class Steppers:
    """Copies of the optimizers, for the devices and types of parameters, made when needed.

    Args:
        assignment: which has the optimizers.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._placed: dict[tuple[Any, ...], Stepper] = {}

    def on(self, key: str, parameter: Tensor) -> Stepper:
        """An optimizer for parameters of that kind."""
        optimizer = self._assignment.optimizers[key]
        kind = parameter.device, _computed_in(parameter.dtype)
        shape = tuple(real_shape(parameter)) if optimizer.tensorwise else None
        place = (key, *kind, shape)
        if place not in self._placed:
            if isinstance(optimizer, LearnedRule):
                optimizer = copy.deepcopy(optimizer).to(*kind)
            self._placed[place] = Stepper(optimizer, *kind, shape)
        return self._placed[place]

    def entries_of(self, group: Mapping[str, Any]) -> dict[int, list[Entry]]:
        """What is kept for each parameter of a group."""
        return {
            index: self.on(key, group["params"][indices[0]]).entries
            for key, indices in self._assignment.functions(group)
            for index in indices
        }

    def block_size(self, key: str, group: Mapping[str, Any], parameters: Sequence[Tensor]) -> int:
        """Coordinates that are stepped at once: all where they share information."""
        if self._assignment.optimizers[key].coordinatewise:
            size: int = group["block_size"]
            return size
        return max(1, sum(parameter.numel() for parameter in parameters))


def _computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32
