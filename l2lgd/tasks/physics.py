"""A physics-informed network (Raissi et al. 2019): Poisson's equation on an interval.

Each function has a source term f of its own, and the network u solves −u″ = f on [0, 1] with
u(0) = u(1) = 0. The loss is 0 at the solution.
"""

import itertools
import math

import torch
from torch import Tensor, nn

from l2lgd import seeding
from l2lgd.data.examples import Examples
from l2lgd.data.splits import SPLITS
from l2lgd.errors import ConfigError
from l2lgd.seeding import derive_seed
from l2lgd.tasks.base import Split
from l2lgd.tasks.layers import at_least_one
from l2lgd.tasks.module import Modules, ModuleTask


def _tanh(value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found = value.tanh()
    slope = 1 - found.square()
    return found, slope, -2 * found * slope


def _sigmoid(value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found = value.sigmoid()
    slope = found * (1 - found)
    return found, slope, slope * (1 - 2 * found)


def _sine(value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found = value.sin()
    return found, value.cos(), -found


SMOOTH = {"tanh": _tanh, "sigmoid": _sigmoid, "sin": _sine}  # with two derivatives


class PoissonNetwork(nn.Module):
    """A perceptron u, and how far it is from solving its equation.

    u′ and u″ are carried forward beside u, so θ needs no derivatives of a higher order.

    Args:
        widths: units of hidden layers.
        activation: one of ``SMOOTH``.
        frequencies: K; f(x) is the sum of a_k sin(kπx) over k ≤ K, with standard normal a_k.
        boundary_weight: of u(0)² + u(1)² beside the mean squared residual.
    """

    amplitudes: Tensor  # a (K,)

    def __init__(
        self, widths: list[int], activation: str, frequencies: int, boundary_weight: float
    ) -> None:
        super().__init__()
        self.activation, self.boundary_weight = activation, boundary_weight
        pairs = itertools.pairwise([1, *widths, 1])
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairs)
        self.register_buffer("amplitudes", torch.randn(frequencies))

    def forward(self, points: Tensor) -> Tensor:
        """The loss, (), at collocation points (batch, 1)."""
        curvature = self.solution(points)[2]
        residual = (curvature + self.source(points)).square().mean()
        ends = torch.linspace(0, 1, 2, dtype=points.dtype, device=points.device).unsqueeze(1)
        return residual + self.boundary_weight * self.solution(ends)[0].square().sum()

    def solution(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """u, u′ and u″ at points (N, 1), each (N, 1)."""
        value, slope = points, torch.ones_like(points)
        curvature = torch.zeros_like(points)
        for depth, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            if depth:
                value, first, second = SMOOTH[self.activation](value)
                curvature = first * curvature + second * slope.square()
                slope = first * slope
            value = layer(value)
            slope, curvature = slope @ layer.weight.mT, curvature @ layer.weight.mT
        return value, slope, curvature

    def source(self, points: Tensor) -> Tensor:
        """The source term f at points (N, 1), (N, 1)."""
        return (self._waves(points) * self.amplitudes).sum(1, keepdim=True)

    def exact(self, points: Tensor) -> Tensor:
        """The solution at points (N, 1), (N, 1): the sum of a_k sin(kπx) / (kπ)²."""
        squares = self._frequencies(points).square()
        return (self._waves(points) * self.amplitudes / squares).sum(1, keepdim=True)

    def _waves(self, points: Tensor) -> Tensor:
        """(N, K)."""
        return (points * self._frequencies(points)).sin()

    def _frequencies(self, points: Tensor) -> Tensor:
        count = self.amplitudes.shape[-1]
        return math.pi * torch.arange(1, count + 1, dtype=points.dtype, device=points.device)


class PoissonTask(ModuleTask):
    """Physics-informed networks; each function has a source term of its own.

    Args:
        hidden_layers: units of each hidden layer.
        activation: ``tanh``, ``sigmoid`` or ``sin``; it needs two derivatives.
        frequencies: sine waves in a source term.
        boundary_weight: of the squares at both ends, beside the mean squared residual.
        points: collocation points of a split, uniform on [0, 1).
        batch_size: of them at a step, drawn anew; None for all of them at every step.
    """

    def __init__(
        self,
        name: str,
        hidden_layers: list[int],
        activation: str = "tanh",
        frequencies: int = 3,
        boundary_weight: float = 10.0,
        points: int = 1024,
        batch_size: int | None = 64,
    ) -> None:
        at_least_one(hidden_layers=hidden_layers, frequencies=frequencies, points=points)
        if not hidden_layers:
            raise ConfigError("hidden_layers=[]: a straight line solves no equation; give a layer")
        if activation not in SMOOTH:
            raise ConfigError(f"activation={activation}: choose one of {', '.join(SMOOTH)}")
        if boundary_weight < 0:
            raise ConfigError(f"boundary_weight={boundary_weight}: must not be negative")
        super().__init__(name, self.build, "module", dataset=self.places, batch_size=batch_size)
        self.hidden_layers, self.activation = list(hidden_layers), activation
        self.frequencies, self.boundary_weight = frequencies, boundary_weight
        self.points = points

    def build(self) -> PoissonNetwork:
        """A network and a source term from PyTorch's own generator."""
        options = (self.activation, self.frequencies, self.boundary_weight)
        return PoissonNetwork(self.hidden_layers, *options)

    def places(self) -> dict[str, Examples]:
        """Collocation points of each split, (points, 1)."""
        draws = {split: seeding.generator(0, "points", split) for split in SPLITS}
        return {s: (torch.rand(self.points, 1, generator=draw),) for s, draw in draws.items()}

    def sample(self, split: Split, num_functions: int, generator: torch.Generator) -> Modules:
        # Source terms are all that functions are made of; so they belong to a split.
        seed = int(torch.randint(2**62, (), generator=generator))
        own = seeding.generator(derive_seed(seed, split))
        return super().sample(split, num_functions, own)

    def data_description(self) -> None:
        return None
