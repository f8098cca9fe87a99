"""Rosenbrock's function in many dimensions, a starting point for a task of your own.

Replace the loss, what tells one function from another, and what the constructor takes.
"""

from typing import Self

import torch
from torch import Tensor

from l2lgd import ConfigError, Optimizee, Split, Task


class RosenbrockFunctions(Optimizee):
    """B functions Σ_i a_i (θ_{i+1} − θ_i²)² + (1 − θ_i)², with steepnesses a (B, n − 1)."""

    stochastic = False  # does the loss depend on a minibatch?

    def __init__(self, steepness: Tensor, initial_parameters: Tensor) -> None:
        self.steepness = steepness
        self.initial_parameters = initial_parameters  # (B, n)
        self.shapes = {"theta": (initial_parameters.shape[1],)}  # tensors, by name

    def loss(self, parameters: Tensor, step: int) -> Tensor:
        """(B, n) → (B,). With minibatches: on the one that belongs to ``step``."""
        here, following = parameters[:, :-1], parameters[:, 1:]
        valley = self.steepness * (following - here.square()).square()
        return (valley + (1 - here).square()).sum(1)

    def select(self, rows: slice) -> Self:
        """The same functions, only those of ``rows``."""
        return type(self)(self.steepness[rows], self.initial_parameters[rows])


class RosenbrockTask(Task):
    """A distribution over such functions.

    Args:
        dimension: n, the number of coordinates of each function.
        steepness: of the valley, at most.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self, name: str = "rosenbrock", dimension: int = 10, steepness: float = 10.0
    ) -> None:
        if dimension < 2:
            raise ConfigError(f"dimension={dimension}: must be at least 2")
        if steepness <= 0:
            raise ConfigError(f"steepness={steepness}: must be positive")
        self.name, self.dimension, self.steepness = name, dimension, steepness

    def sample(
        self, split: Split, num_functions: int, generator: torch.Generator
    ) -> RosenbrockFunctions:
        """Draw functions. With data, ``split`` says which of them may be used."""
        n = self.dimension
        steepness = self.steepness * torch.rand(num_functions, n - 1, generator=generator)
        initial = 0.5 * torch.randn(num_functions, n, generator=generator)
        where = {"device": self.device, "dtype": self.dtype}
        return RosenbrockFunctions(steepness.to(**where), initial.to(**where))
