"""Functions evaluated at other parameters than θ_t within a step, as a line search asks for."""

from torch import Tensor

from l2lgd.optimizers.observation import Evaluate
from l2lgd.tasks.base import Optimizee


class Elsewhere:
    """The losses and gradients of some of B stacked functions, wherever an optimizer wants them.

    Args:
        optimizee: all of them.
    """

    def __init__(self, optimizee: Optimizee) -> None:
        self._optimizee = optimizee
        self._parts: dict[tuple[int, int, int], Optimizee] = {}  # selected once

    def at(self, step: int) -> Evaluate:
        """(parameters (b, n), rows) → losses (b,) and gradients (b, n), on its minibatch."""

        def evaluate(parameters: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
            part = self._part(rows)
            part.prefetch(range(step, step + 1))  # drawn once, however often a step evaluates
            return part.loss_and_gradient(parameters, step)

        return evaluate

    def _part(self, rows: slice) -> Optimizee:
        count = len(self._optimizee.initial_parameters)
        key = rows.indices(count)
        if key not in self._parts:
            self._parts[key] = self._optimizee.select(slice(*key))
        return self._parts[key]
