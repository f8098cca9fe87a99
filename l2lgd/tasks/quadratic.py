"""Random quadratics f(θ) = ‖Wθ − y‖² (section 3.1 of the paper).

The text says that W and y are i.i.d. Gaussian; the published figure agrees with the authors' code,
which draws them uniformly from [0, 1). Both are here, ``uniform`` is the default. Two others are
extensions: ``rotated`` quadratics have a given condition number and axes in random directions,
so that no coordinate's gradient alone says where to go. Those that are ``near`` have their minimum
at a distance of about 1, too, however flat they are.
"""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.tasks.base import Optimizee, Split, Task

Draw = Callable[[int, int, float, torch.Generator], tuple[Tensor, Tensor]]
"""B, n, the condition number and a generator → W (B, n, n) and y (B, n)."""


def uniform(
    num_functions: int, n: int, condition_number: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Entries of W and y on [0, 1); the condition number is left to chance."""
    matrices = torch.rand(num_functions, n, n, generator=generator)
    return matrices, torch.rand(num_functions, n, generator=generator)


def gaussian(
    num_functions: int, n: int, condition_number: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Standard normal entries of W and y; the condition number is left to chance."""
    matrices = torch.randn(num_functions, n, n, generator=generator)
    return matrices, torch.randn(num_functions, n, generator=generator)


def rotated(
    num_functions: int, n: int, condition_number: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """W = √Λ Qᵀ with Q uniform among the orthogonal matrices, and y standard normal.

    The eigenvalues Λ of WᵀW lie geometrically between 1 / condition_number and 1.
    """
    rotations, upper = torch.linalg.qr(
        torch.randn(num_functions, n, n, generator=generator, dtype=torch.float64)
    )
    rotations = rotations * upper.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)
    roots = condition_number ** -torch.linspace(0, 0.5, n, dtype=torch.float64)
    matrices = (roots.unsqueeze(1) * rotations.mT).float()
    return matrices, torch.randn(num_functions, n, generator=generator)


def near(
    num_functions: int, n: int, condition_number: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """W as of ``rotated``, and y = Wθ* with a normal minimum θ*, of a mean square norm of 1."""
    matrices, normal = rotated(num_functions, n, condition_number, generator)
    minima = normal.to(matrices.dtype) / n**0.5
    return matrices, torch.bmm(matrices, minima.unsqueeze(2)).squeeze(2)


DISTRIBUTIONS: dict[str, Draw] = {
    "uniform": uniform,
    "gaussian": gaussian,
    "rotated": rotated,
    "near": near,
}


class Quadratics(Optimizee):
    """B quadratics with matrices W (B, n, n), targets y (B, n)."""

    stochastic = False

    def __init__(self, matrices: Tensor, targets: Tensor, initial_parameters: Tensor) -> None:
        self.matrices, self.targets = matrices, targets
        self.initial_parameters = initial_parameters
        self.shapes = {"theta": (initial_parameters.shape[1],)}

    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return self.residual(parameters).square().sum(1)

    def residual(self, parameters: Tensor) -> Tensor:
        """Wθ − y, (B, n)."""
        return torch.bmm(self.matrices, parameters.unsqueeze(2)).squeeze(2) - self.targets

    def select(self, rows: slice) -> Self:
        return type(self)(self.matrices[rows], self.targets[rows], self.initial_parameters[rows])

    def joined(self, parts: Sequence[Self], begun: Sequence[int]) -> Self | None:
        each = [(p.matrices, p.targets, p.initial_parameters) for p in parts]
        return type(self)(*(torch.cat(tensors) for tensors in zip(*each, strict=True)))


class QuadraticTask(Task):
    """Quadratics of a given dimension; every split draws fresh ones.

    Args:
        dimension: n, the number of coordinates of each function.
        distribution: ``uniform`` on [0, 1) or ``gaussian``, for the entries of W and y;
            ``rotated``; or ``near``, rotated with minima near the start.
        condition_number: of the Hessians where they are rotated.
        scale_spread: each function's Hessian is multiplied with a number between
            1/√scale_spread and √scale_spread, drawn log-uniformly.
        initial_std: standard deviation of θ_0.
    """

    def __init__(
        self,
        name: str = "quadratic",
        dimension: int = 10,
        distribution: str = "uniform",
        initial_std: float = 0.01,
        condition_number: float = 100.0,
        scale_spread: float = 1.0,
    ) -> None:
        if distribution not in DISTRIBUTIONS:
            raise ConfigError(
                f"distribution={distribution}: choose one of {', '.join(DISTRIBUTIONS)}"
            )
        if condition_number < 1:
            raise ConfigError(f"condition_number={condition_number}: must be at least 1")
        if scale_spread < 1:
            raise ConfigError(f"scale_spread={scale_spread}: must be at least 1")
        if dimension < 1:
            raise ConfigError(f"dimension={dimension}: must be at least 1")
        if initial_std < 0:
            raise ConfigError(f"initial_std={initial_std}: must not be negative")
        self.name, self.dimension = name, dimension
        self.distribution, self.initial_std = distribution, initial_std
        self.condition_number, self.scale_spread = condition_number, scale_spread

    def sample(self, split: Split, num_functions: int, generator: torch.Generator) -> Quadratics:
        draw, n = DISTRIBUTIONS[self.distribution], self.dimension
        matrices, targets = draw(num_functions, n, self.condition_number, generator)
        if self.scale_spread > 1:
            exponents = torch.rand(num_functions, 1, 1, generator=generator) - 0.5
            matrices = matrices * self.scale_spread ** (exponents / 2)  # W, the Hessian's root
        initial = self.initial_std * torch.randn(num_functions, n, generator=generator)
        drawn = (part.to(self.device, self.dtype) for part in (matrices, targets, initial))
        return Quadratics(*drawn)
