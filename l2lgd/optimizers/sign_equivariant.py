"""An optimizer that is an odd function: gradients turned round turn the updates round.

Nothing keeps the output of a learned optimizer from having a part that does not depend on the
gradients' signs, and moves all coordinates together. Where a layer sees numbers that are never
negative, such as pixels or what a ReLU lets through, such movements add up over hundreds of
weights: nine tenths of the meta-gradient of a convnet are about a bias of the output, and
meta-training is at odds with it throughout. Here only the odd part is left: half the difference of
what an optimizer proposes for the gradients and for their negatives, at twice the cost. It is
equivariant under reflections: for f(Sθ), S a diagonal of ±1, it does the same, reflected. This is
not in the paper.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import Cotangents, LearnedRule, State, given
from l2lgd.optimizers.observation import Observation


class SignEquivariant(LearnedRule[State]):
    """The odd part of a learned optimizer m: (m(∇) − m(−∇)) / 2.

    Its state is that of 2B functions, the second half of which see negative gradients.

    Args:
        optimizer: a learned one.

    Raises:
        ConfigError: it is not.
    """

    def __init__(self, optimizer: LearnedRule[Any]) -> None:
        super().__init__()
        if not isinstance(optimizer, LearnedRule):
            raise ConfigError("optimizer: needs the _target_ of a learned optimizer")
        self.optimizer = optimizer
        self._named: tuple[LearnedRule[Any], ...] = ()  # that one for tensors of known shapes

    def named(self, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        own = self.optimizer.named(shapes)
        if own is self._ready:  # tensors are all alike to it
            return self
        bound = copy.copy(self)  # shallow: meta-training has to change the same weights
        bound._named = (own,)
        return bound

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.optimizer.reset_parameters(generator)

    def scale_updates(self, factor: float) -> None:
        self.optimizer.scale_updates(factor)

    def initial_state(self, parameters: Tensor) -> State:
        state: State = self._ready.initial_state(_both(parameters, 1))
        return state

    @property
    def smooths(self) -> bool:  # type: ignore[override]
        return self._ready.smooths

    @property
    def observes(self) -> tuple[str, ...]:  # type: ignore[override]
        return self._ready.observes

    def step(
        self,
        gradient: Tensor,
        state: State,
        width: Tensor | None = None,
        seen: Observation | None = None,
    ) -> tuple[Tensor, State]:
        doubled = None if width is None else _both(width, 1)
        own = given(_reflected(seen))
        update, state = self._ready.step(_both(gradient, -1), state, doubled, **own)
        return _odd_part(update), state

    def step_in_place(
        self, gradient: Tensor, state: State, seen: Observation | None = None
    ) -> Tensor:
        own = given(_reflected(seen))
        return _odd_part(self._ready.step_in_place(_both(gradient, -1), state, **own))

    @property
    def takes_views(self) -> bool:
        return self._ready.takes_views

    def vector_jacobian_product(
        self,
        gradients: Tensor,
        state: State,
        cotangents: Tensor,
        seen: Sequence[Observation] = (),
    ) -> Sequence[Tensor]:
        own = [both for each in seen if (both := _reflected(each))]
        product = self._ready.vector_jacobian_product
        return product(_both(gradients, -1), state, _both(cotangents / 2, -1), **given(own))

    def step_back(
        self,
        gradient: Tensor,
        state: State,
        cotangent: Tensor,
        state_cotangent: State | None,
        width: Tensor | None = None,
        seen: Observation | None = None,
    ) -> Cotangents[State]:
        found = self._ready.step_back(
            _both(gradient, -1),
            state,
            _both(cotangent / 2, -1),
            state_cotangent,
            None if width is None else _both(width, 1),
            **given(_reflected(seen)),
        )
        d_theta, d_loss = found.parameters, found.loss
        return Cotangents(
            found.weights,
            2 * _odd_part(found.gradient),
            found.state,
            None if d_theta is None else 2 * _odd_part(d_theta),
            None if d_loss is None else d_loss.view(2, -1).sum(0),
        )

    @property
    def coordinatewise(self) -> bool:
        return self._ready.coordinatewise

    @property
    def tensorwise(self) -> bool:
        return self._ready.tensorwise

    def blocks(self, num_functions: int, n: int, size: int) -> list[tuple[slice, slice]]:
        return self._ready.blocks(num_functions, n, max(1, size // 2))

    def implementation(self) -> str:
        return self._ready.implementation()

    def input_statistics(self, gradient: Tensor) -> dict[str, float]:
        return self._ready.input_statistics(gradient)

    @property
    def _ready(self) -> LearnedRule[Any]:
        return self._named[0] if self._named else self.optimizer


def _both(tensor: Tensor, sign: int) -> Tensor:
    """(…, B, n) → (…, 2B, n), the second half times ``sign``."""
    return torch.cat((tensor, sign * tensor), dim=-2)


def _reflected(seen: Observation | None) -> Observation | None:
    """What is seen of f(θ), and of f(Sθ) at −θ, which has the same value."""
    if seen is None:
        return None
    both = _both(seen.parameters, -1)
    return seen._replace(parameters=both, loss=torch.cat((seen.loss, seen.loss)))


def _odd_part(tensor: Tensor) -> Tensor:
    """(2B, n) → (B, n)"""
    first, second = tensor.chunk(2)
    return (first - second) / 2
