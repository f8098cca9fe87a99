"""Functions of several draws in one stack, each at a step of its own."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.tasks.base import Optimizee


def join(parts: Sequence[Optimizee], begun: Sequence[int]) -> Optimizee:
    """The functions of ``parts``, which have the same parameter tensors, in one stack.

    Args:
        parts: some may be there twice.
        begun: the step of the stack at which each part is at its step 0.

    Raises:
        ConfigError: they have other parameter tensors.
    """
    first = parts[0]
    if any(dict(part.shapes) != dict(first.shapes) for part in parts):
        raise ConfigError(
            "functions that differ in their parameter tensors cannot be stacked, each at a step "
            "of its own"
        )
    together = None
    if all(type(part) is type(first) for part in parts):
        together = first.joined(parts, begun)
    return together or Joined(parts, begun)


class Joined(Optimizee):
    """Each part is evaluated by itself."""

    def __init__(self, parts: Sequence[Optimizee], begun: Sequence[int]) -> None:
        self.parts, self.begun = list(parts), list(begun)
        self.initial_parameters = torch.cat([part.initial_parameters for part in parts])
        self.shapes, self.stochastic = parts[0].shapes, parts[0].stochastic
        self._counts = [len(part.initial_parameters) for part in parts]

    def prefetch(self, steps: range) -> None:
        for part, begun in zip(self.parts, self.begun, strict=True):
            part.prefetch(range(max(0, steps.start - begun), steps.stop - begun))

    def loss(self, parameters: Tensor, step: int) -> Tensor:
        pieces = zip(self.parts, self.begun, parameters.split(self._counts), strict=True)
        return torch.cat([part.loss(theta, step - begun) for part, begun, theta in pieces])

    def loss_and_gradient(self, parameters: Tensor, step: int) -> tuple[Tensor, Tensor]:
        pieces = zip(self.parts, self.begun, parameters.split(self._counts), strict=True)
        found = [part.loss_and_gradient(theta, step - begun) for part, begun, theta in pieces]
        losses, gradients = zip(*found, strict=True)
        return torch.cat(losses), torch.cat(gradients)

    def select(self, rows: slice) -> Self:
        each = [
            (part.select(slice(row, row + 1)), begun)
            for part, begun, count in zip(self.parts, self.begun, self._counts, strict=True)
            for row in range(count)
        ]
        parts, begun = zip(*each[rows], strict=True)
        return type(self)(parts, begun)
