"""The trained optimizers of an assignment where the parameters are."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from l2lgd.optimizers.base import LearnedRule, Optimizer
from l2lgd.pretrained.assignment import Assignment, Function
from l2lgd.pretrained.layout import Entry
from l2lgd.pretrained.sharding import real_shape
from l2lgd.pretrained.stepping import Scratch, Stepper

Kind = tuple[torch.device, torch.dtype]
Tensors = tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]  # names and shapes


class Steppers:
    """Copies of the optimizers, for the devices and types of parameters, made when needed.

    Args:
        assignment: which has the optimizers.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._placed: dict[tuple[str, Kind], tuple[Optimizer, Scratch]] = {}
        self._steppers: dict[tuple[str, Kind, Tensors | None], Stepper] = {}

    def on(self, function: Function, parameters: Sequence[Tensor]) -> Stepper:
        """An optimizer for parameters of that kind; of their names and shapes where these count.

        Args:
            parameters: those of the function.
        """
        optimizer = self._assignment.optimizers[function.key]
        kind = parameters[0].device, _computed_in(parameters[0].dtype)
        tensors = None
        if optimizer.tensorwise or type(optimizer).named is not Optimizer.named:
            tensors = function.names, tuple(tuple(real_shape(p)) for p in parameters)
        place = (function.key, kind, tensors)
        if place not in self._steppers:
            self._steppers[place] = self._made(function.key, kind, tensors)
        return self._steppers[place]

    def entries_of(self, group: Mapping[str, Any]) -> dict[int, list[Entry]]:
        """What is kept for each parameter of a group."""
        found = {}
        for function in self._assignment.functions(group):
            stepper = self.on(function, [group["params"][index] for index in function.indices])
            found.update(dict.fromkeys(function.indices, stepper.entries))
        return found

    def _made(self, key: str, kind: Kind, tensors: Tensors | None) -> Stepper:
        optimizer, scratch = self._on_device(key, kind)
        if tensors is None:
            return Stepper(optimizer, *kind, scratch=scratch)
        shapes = dict(zip(*tensors, strict=True))
        if optimizer.tensorwise or optimizer.named(shapes) is not optimizer:
            return Stepper(optimizer, *kind, shapes, scratch)
        # It may have been asked only for what is inside it. One stepper does for all tensors.
        return self._steppers.setdefault((key, kind, None), self._made(key, kind, None))

    def _on_device(self, key: str, kind: Kind) -> tuple[Optimizer, Scratch]:
        """A copy of an optimizer, and memory for what all its steppers do in turn."""
        if (key, kind) not in self._placed:
            optimizer = self._assignment.optimizers[key]
            if isinstance(optimizer, LearnedRule):
                optimizer = copy.deepcopy(optimizer).to(*kind)
            self._placed[key, kind] = optimizer, {}
        return self._placed[key, kind]


def _computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32
