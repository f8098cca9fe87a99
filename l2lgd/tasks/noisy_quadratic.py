"""Quadratics whose gradients are noisy: f(θ) = ‖Wθ − y − σξ‖², with another ξ at every step.

The expected loss is that without noise, and the noise's own square. Gradients have noise with the
Hessian for covariance, up to a factor (Zhang et al. 2019, section 3.1).
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.seeding import derive_seed, generator
from l2lgd.tasks.base import Split
from l2lgd.tasks.minibatches import JoinedMinibatches, Minibatches, OneMinibatch, Streams
from l2lgd.tasks.quadratic import Quadratics, QuadraticTask

ROWS = 2**12  # of the table that each step's ξ is drawn from


class NoisyQuadratics(Quadratics):
    """B quadratics whose targets are displaced at every step.

    Args:
        matrices: W (B, n, n).
        targets: y (B, n).
        initial_parameters: (B, n).
        table: of all displacements σξ (rows, n).
        rows: which of them is a step's, B streams of one row each.
    """

    stochastic = True

    def __init__(
        self,
        matrices: Tensor,
        targets: Tensor,
        initial_parameters: Tensor,
        table: Tensor,
        rows: Streams,
    ) -> None:
        super().__init__(matrices, targets, initial_parameters)
        self.table, self.rows = table, rows

    def prefetch(self, steps: range) -> None:
        self.rows.prefetch(steps)

    def inputs(self, step: int) -> tuple[Tensor]:
        return (self.rows.index(step),)

    def on(self, inputs: tuple[Tensor, ...]) -> "NoisyQuadratics":
        rows = OneMinibatch(*inputs)
        return NoisyQuadratics(
            self.matrices, self.targets, self.initial_parameters, self.table, rows
        )

    def loss(self, parameters: Tensor, step: int) -> Tensor:
        displacements = self.table[self.rows.index(step)].squeeze(1)
        return (self.residual(parameters) - displacements).square().sum(1)

    def select(self, rows: slice) -> Self:
        own = (self.matrices[rows], self.targets[rows], self.initial_parameters[rows])
        return type(self)(*own, self.table, self.rows.select(rows))

    def joined(self, parts: Sequence[Self], begun: Sequence[int]) -> Self | None:
        if any(part.table is not self.table for part in parts):
            return None
        return type(self)(
            torch.cat([part.matrices for part in parts]),
            torch.cat([part.targets for part in parts]),
            torch.cat([part.initial_parameters for part in parts]),
            self.table,
            JoinedMinibatches([part.rows for part in parts], begun),
        )


class NoisyQuadraticTask(QuadraticTask):
    """Quadratics with noise, the same for every optimizer.

    Args:
        dimension: n, the number of coordinates of each function.
        distribution: see :class:`l2lgd.tasks.quadratic.QuadraticTask`.
        initial_std: standard deviation of θ_0.
        condition_number: of the Hessians where they are rotated.
        scale_spread: see :class:`l2lgd.tasks.quadratic.QuadraticTask`.
        noise: σ, the standard deviation of what each entry of y is displaced by. The expected loss
            is never below n σ².
    """

    def __init__(
        self,
        name: str = "quadratic_noisy",
        dimension: int = 100,
        distribution: str = "near",
        initial_std: float = 0.01,
        condition_number: float = 100.0,
        scale_spread: float = 1.0,
        noise: float = 0.03,
    ) -> None:
        if noise <= 0:
            raise ConfigError(f"noise={noise}: must be positive; task=quadratic has none")
        super().__init__(name, dimension, distribution, initial_std, condition_number, scale_spread)
        self.noise = noise

    def setup(
        self, data_dir: str, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        super().setup(data_dir, device, dtype)
        draw = generator(0, "displacements")
        table = torch.randn(ROWS, self.dimension, generator=draw, dtype=torch.float64)
        # With a mean of 0 and a variance of 1, the expected loss is known.
        table -= table.mean(0)
        table /= table.square().mean(0).sqrt()
        self._table = (self.noise * table).to(device, dtype)

    def sample(
        self, split: Split, num_functions: int, generator: torch.Generator
    ) -> NoisyQuadratics:
        drawn = super().sample(split, num_functions, generator)
        seed = derive_seed(int(torch.randint(2**62, (), generator=generator)), split)
        rows = Minibatches(ROWS, 1, seed, num_functions, device=self.device)
        own = (drawn.matrices, drawn.targets, drawn.initial_parameters)
        return NoisyQuadratics(*own, self._table, rows)
