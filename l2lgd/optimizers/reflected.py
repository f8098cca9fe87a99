"""An optimizer that does not see in which direction a parameter points, nor moves all the same way.

Nothing keeps the output of a learned optimizer from having a bias, which moves all coordinates
together, whatever their gradients. Where a layer sees numbers that are never negative, such as
pixels or what a ReLU lets through, such movements add up over hundreds of weights: nine tenths of
the meta-gradient of a convnet are about that bias, and meta-training is at odds with it throughout.

Here every coordinate is turned so that it begins positive. Initial parameters point in random
directions, so movements in common cancel out. And an optimizer becomes equivariant under
reflections: for f(Sθ), S a diagonal of ±1, it does the same, reflected. This is not in the paper.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import LearnedOptimizer, State


class ReflectedState(NamedTuple):
    """Before a step."""

    own: State  # of the optimizer inside
    sign: Tensor  # 1 or −1, 0 where it is not known yet, (B, n)


class Reflected(LearnedOptimizer):
    """A learned optimizer in whose eyes every parameter begins positive.

    Where a parameter begins at zero, its first gradient is made positive instead, and it does not
    move before it has had one.

    Args:
        optimizer: a learned one.

    Raises:
        ConfigError: it is not.
    """

    def __init__(self, optimizer: Any) -> None:
        super().__init__()
        if not isinstance(optimizer, LearnedOptimizer):
            raise ConfigError("optimizer: needs the _target_ of a learned optimizer")
        self.optimizer = optimizer

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.optimizer.reset_parameters(generator)

    def initial_state(self, parameters: Tensor) -> ReflectedState:
        own = self.optimizer.initial_state(parameters)
        return ReflectedState(own, parameters.detach().sign())

    def step(
        self, gradient: Tensor, state: ReflectedState, width: Tensor | None = None
    ) -> tuple[Tensor, ReflectedState]:
        sign = _known(state.sign, gradient)
        update, own = self.optimizer.step(gradient * sign, state.own, width)
        return update * sign, ReflectedState(own, sign)

    def vector_jacobian_product(
        self, gradients: Tensor, state: ReflectedState, cotangents: Tensor
    ) -> Sequence[Tensor]:
        signs, sign = [], state.sign
        for gradient in gradients:
            sign = _known(sign, gradient)
            signs.append(sign)
        turn = torch.stack(signs)
        product = self.optimizer.vector_jacobian_product
        return product(gradients * turn, state.own, cotangents * turn)

    def step_back(
        self,
        gradient: Tensor,
        state: ReflectedState,
        cotangent: Tensor,
        state_cotangent: ReflectedState | None,
        width: Tensor | None = None,
    ) -> tuple[Sequence[Tensor], Tensor, ReflectedState]:
        sign = _known(state.sign, gradient)
        later = None if state_cotangent is None else state_cotangent.own
        found, d_gradient, d_own = self.optimizer.step_back(
            gradient * sign, state.own, cotangent * sign, later, width
        )
        return found, d_gradient * sign, ReflectedState(d_own, torch.zeros_like(sign))

    def blocks(self, num_functions: int, n: int, size: int) -> list[tuple[slice, slice]]:
        return self.optimizer.blocks(num_functions, n, size)

    def implementation(self) -> str:
        return self.optimizer.implementation()

    def input_statistics(self, gradient: Tensor) -> dict[str, float]:
        return self.optimizer.input_statistics(gradient)


def _known(sign: Tensor, gradient: Tensor) -> Tensor:
    """The sign of each coordinate, where it is not known yet, that of its gradient."""
    return torch.where(sign == 0, gradient.detach().sign(), sign.detach())
