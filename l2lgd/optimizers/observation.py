"""What a rule may see besides the gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeGuard

from torch import Tensor

from l2lgd.errors import ConfigError

# (parameters (b, n), rows) → losses (b,) and gradients (b, n) there, of those b of the B functions.
Evaluate: TypeAlias = Callable[[Tensor, slice], tuple[Tensor, Tensor]]


class Observation(NamedTuple):
    """Where the optimization of B functions stands, before update g_t."""

    parameters: Tensor  # θ_t (B, n)
    loss: Tensor  # f(θ_t) (B,), on the minibatch of the gradient
    step: int | Tensor  # t, from 0 on; a tensor () in a CUDA graph, (B,) where functions differ
    horizon: int | Tensor | None = None  # T, where it is known; a tensor as t
    evaluate: Evaluate | None = None  # the functions elsewhere, on the minibatch of the gradient;
    # costs what a step does, and is there only where an optimizer observes it

    @property
    def number(self) -> Tensor:
        """How many steps there are with this one, t + 1, of the type of θ: (), or (B, 1)."""
        return self._number(self.step) + 1

    @property
    def length(self) -> Tensor | None:
        """The horizon T, of the type of θ: (), or (B, 1); None where it is unknown."""
        return None if self.horizon is None else self._number(self.horizon)

    def of(self, rows: slice, columns: Any) -> "Observation":
        """That of some functions, and of some of their coordinates."""
        step, horizon = self.step, self.horizon
        return Observation(
            self.parameters[rows][:, columns],
            self.loss[rows],
            step[rows] if _one_each(step) else step,
            horizon[rows] if _one_each(horizon) else horizon,
            self.evaluate and self._evaluate_part(self.evaluate, rows, columns),
        )

    def _evaluate_part(self, evaluate: Evaluate, rows: slice, columns: Any) -> Evaluate:
        """The functions ``rows`` as those of the coordinates ``columns``; others stay at θ_t."""

        def part(parameters: Tensor, inner: slice) -> tuple[Tensor, Tensor]:
            chosen = range(len(self.parameters))[rows][inner]
            outer = slice(chosen.start, chosen.stop, chosen.step)
            whole = self.parameters[outer].detach().clone()
            whole[:, columns] = parameters
            loss, gradient = evaluate(whole, outer)
            return loss, gradient[:, columns]

        return part

    def _number(self, number: int | Tensor) -> Tensor:
        if not isinstance(number, Tensor):
            return self.parameters.new_full((), number)
        known = number.to(self.parameters)
        return known.unsqueeze(1) if _one_each(number) else known

    def with_leaves(self) -> "Observation":
        """The same numbers, as leaves of a new graph."""
        return self._replace(
            parameters=self.parameters.detach().requires_grad_(),
            loss=self.loss.detach().requires_grad_(),
        )


def known_fields(optimizer: str, observes: object) -> tuple[str, ...]:
    """What an optimizer observes.

    Args:
        optimizer: its class, for the error.

    Raises:
        ConfigError: these are not fields of an :class:`Observation`.
    """
    fields = ", ".join(Observation._fields)
    if not isinstance(observes, tuple | list):
        raise ConfigError(f"{optimizer}.observes={observes!r}: must be a tuple of some of {fields}")
    for name in observes:
        if name not in Observation._fields:
            raise ConfigError(f"{optimizer}.observes: there is no {name}; choose among {fields}")
    return tuple(observes)


def _one_each(number: int | Tensor | None) -> TypeGuard[Tensor]:
    """Has each function a number of its own?"""
    return isinstance(number, Tensor) and number.dim() == 1
