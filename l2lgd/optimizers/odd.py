"""An optimizer that treats both directions alike: gradients turned round turn the updates round.

A learned optimizer need not: a bias of its output moves all coordinates the same way, whatever the
gradients say. Where layers see numbers that are never negative, such as pixels or what a ReLU lets
through, this adds up over hundreds of inputs. Most of the meta-gradient of a convnet is then about
that bias. This is not in the paper.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import LearnedOptimizer, State


class OddState(NamedTuple):
    """Before a step."""

    own: State  # of the optimizer inside
    sign: Tensor  # of the first gradient that was not zero, or 0 where there was none (B, n)


class Odd(LearnedOptimizer):
    """A learned optimizer for which the first gradient of every coordinate is positive.

    Later gradients are turned as the first one has to be, and updates are turned back. So a
    coordinate does not move before it has had a gradient.

    Args:
        optimizer: a learned one.
    """

    def __init__(self, optimizer: Any) -> None:
        super().__init__()
        if not isinstance(optimizer, LearnedOptimizer):
            raise ConfigError("optimizer: needs the _target_ of a learned optimizer")
        self.optimizer = optimizer

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.optimizer.reset_parameters(generator)

    def initial_state(self, parameters: Tensor) -> OddState:
        return OddState(self.optimizer.initial_state(parameters), torch.zeros_like(parameters))

    def step(
        self, gradient: Tensor, state: OddState, width: Tensor | None = None
    ) -> tuple[Tensor, OddState]:
        sign = _first_sign(gradient, state.sign)
        update, own = self.optimizer.step(gradient * sign, state.own, width)
        return update * sign, OddState(own, sign)

    def vector_jacobian_product(
        self, gradients: Tensor, state: OddState, cotangents: Tensor
    ) -> Sequence[Tensor]:
        signs, sign = [], state.sign
        for gradient in gradients:
            sign = _first_sign(gradient, sign)
            signs.append(sign)
        turn = torch.stack(signs)
        return self.optimizer.vector_jacobian_product(
            gradients * turn, state.own, cotangents * turn
        )

    def step_back(
        self,
        gradient: Tensor,
        state: OddState,
        cotangent: Tensor,
        state_cotangent: OddState | None,
        width: Tensor | None = None,
    ) -> tuple[Sequence[Tensor], Tensor, OddState]:
        sign = _first_sign(gradient, state.sign)
        later = None if state_cotangent is None else state_cotangent.own
        found, d_gradient, d_own = self.optimizer.step_back(
            gradient * sign, state.own, cotangent * sign, later, width
        )
        return found, d_gradient * sign, OddState(d_own, torch.zeros_like(sign))

    def blocks(self, num_functions: int, n: int, size: int) -> list[tuple[slice, slice]]:
        return self.optimizer.blocks(num_functions, n, size)

    def implementation(self) -> str:
        return self.optimizer.implementation()

    def input_statistics(self, gradient: Tensor) -> dict[str, float]:
        return self.optimizer.input_statistics(gradient)


def _first_sign(gradient: Tensor, sign: Tensor) -> Tensor:
    """The sign that is known, or that of this gradient."""
    return torch.where(sign == 0, gradient.detach().sign(), sign).detach()
