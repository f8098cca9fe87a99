"""Adam whose hyper-parameters are learned: the smallest learned optimizer."""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import LearnedRule
from l2lgd.optimizers.observation import Observation


class Moments(NamedTuple):
    """Running means."""

    first: Tensor  # of gradients (B, n)
    second: Tensor  # of their squares (B, n)


class NNAdam(LearnedRule[Moments]):
    """g = −α m̂ / √(v̂ + ε²), with α, β₁, β₂ and ε of φ, the same for all coordinates.

    φ has the logarithms of α, 1 − β₁, 1 − β₂ and ε. Decays are kept below 1, and ε stands within
    the root, where Adam has it behind, so that the step has a derivative at zero gradients.

    Args:
        learning_rate, beta1, beta2, epsilon: where φ starts.

    Raises:
        ConfigError: one of them is out of range.
    """

    observes = ("step",)

    def __init__(
        self,
        learning_rate: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__()
        for name, value in (("learning_rate", learning_rate), ("epsilon", epsilon)):
            if not 0 < value < math.inf:
                raise ConfigError(f"{name}={value}: must be positive")
        for name, value in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise ConfigError(f"{name}={value}: must be from 0 to below 1")
        start = (learning_rate, 1 - beta1, 1 - beta2, epsilon)
        self._stacked: Tensor | None = None
        self._start = torch.tensor([math.log(value) for value in start])
        self.log_hyper_parameters = nn.Parameter(self._start.clone())

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        self.log_hyper_parameters.copy_(self._start)

    @torch.no_grad()
    def scale_updates(self, factor: float) -> None:
        self.log_hyper_parameters[0] += math.log(factor)

    def initial_state(self, parameters: Tensor) -> Moments:
        zeros = torch.zeros_like(parameters)
        return Moments(zeros, zeros)

    def step(
        self,
        gradient: Tensor,
        state: Moments,
        width: Tensor | None = None,
        seen: Observation | None = None,
    ) -> tuple[Tensor, Moments]:
        assert seen is not None
        rate, *complements, epsilon = self._weights().exp().unsqueeze(-1).unbind(-2)
        one, two = (complement.clamp(max=1.0) for complement in complements)  # 1 − β₁, 1 − β₂
        first = torch.lerp(state.first, gradient, one)
        second = torch.lerp(state.second, gradient.square(), two)
        unbiased = first / (1 - (1 - one) ** seen.number)
        size = (second / (1 - (1 - two) ** seen.number) + epsilon.square()).sqrt()
        return -rate * unbiased / size, Moments(first, second)

    def stacked(self, phi: Sequence[Tensor]) -> "NNAdam":
        bound = copy.copy(self)
        (bound._stacked,) = phi
        return bound

    def _weights(self) -> Tensor:
        """(4,), or (P, 4) where each function has its own."""
        return self.log_hyper_parameters if self._stacked is None else self._stacked

    @property
    def coordinatewise(self) -> bool:
        return True
