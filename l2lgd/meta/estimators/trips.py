"""Which functions particles are on, since when, and for how long."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.meta.estimators.base import MetaProblem
from l2lgd.seeding import generator, log_uniform
from l2lgd.tasks.base import Optimizee
from l2lgd.tasks.joined import join


@dataclass(frozen=True)
class Trip:
    """A trajectory that both particles of a pair are on."""

    drawn: int  # trajectories that the pair had before
    begun: int  # step of the course at which it began
    horizon: int  # T
    end: int  # t at which it ends: T, unless it is cut short


class Trips:
    """The trajectories of P pairs, each on a function of its own.

    Args:
        pairs: numbers of the P pairs, among all of the meta-training.
        shortest_horizon: T is drawn log-uniformly from this to the horizon; None for always that.
        staggered: cut the first trajectories short, so that they end one after the other.

    Raises:
        ConfigError: the functions have different parameter tensors, or horizons cannot be drawn.
    """

    def __init__(
        self,
        problem: MetaProblem,
        pairs: Sequence[int],
        shortest_horizon: int | None,
        staggered: bool,
    ) -> None:
        self._problem, self._pairs, self._shortest = problem, pairs, shortest_horizon
        self._own = [self._trip(pair, 0, 0, 0.0) for pair in pairs]
        if staggered:
            count = problem.num_functions
            self._own = [
                replace(trip, end=-(-trip.horizon * (pair + 1) // count))
                for pair, trip in zip(pairs, self._own, strict=True)
            ]
        self._draw()
        another = self._function(pairs[0], replace(self._own[0], drawn=1))
        first = dict(another.shapes)
        if any(dict(own.shapes) != first for own in self.functions):
            raise ConfigError(
                f"the functions of task={problem.task.name} differ in their parameter tensors, so "
                "particles cannot go on from one to another; take estimator=task"
            )

    def renew(self, which: Iterable[int], step: int, fraction: float) -> None:
        """Have some of the P pairs, from 0, begin another trajectory at a step of the course."""
        for p in which:
            pair = self._pairs[p]
            self._own[p] = self._trip(pair, self._own[p].drawn + 1, step, fraction)
            self.functions[p] = self._function(pair, self._own[p])

    def optimizee(self) -> Optimizee:
        """The functions of all positive, then of all negative particles (2P)."""
        return join(self.functions * 2, [trip.begun for trip in self._own] * 2)

    def due(self, step: int) -> list[int]:
        """Which of the P pairs are at the end of their trajectory."""
        return [p for p, trip in enumerate(self._own) if step - trip.begun >= trip.end]

    def begun(self) -> Tensor:
        """The step at which each particle began (2P,)."""
        return self._of_particles([trip.begun for trip in self._own])

    def horizons(self) -> Tensor:
        """T of each particle (2P,)."""
        return self._of_particles([trip.horizon for trip in self._own])

    def first(self, step: int) -> tuple[int, int]:
        """Step t and horizon T of the first pair."""
        return step - self._own[0].begun, self._own[0].horizon

    def drawn(self) -> list[int]:
        """How many trajectories each pair has had before."""
        return [trip.drawn for trip in self._own]

    def tensor(self) -> Tensor:
        """All of it (P, 4)."""
        return torch.tensor([astuple(trip) for trip in self._own])

    def restore(self, kept: Tensor) -> None:
        """Have those that :meth:`tensor` told of."""
        self._own = [Trip(*row) for row in kept.tolist()]
        self._draw()

    def _draw(self) -> None:
        pairs = zip(self._pairs, self._own, strict=True)
        self.functions = [self._function(pair, trip) for pair, trip in pairs]

    def _function(self, pair: int, trip: Trip) -> Optimizee:
        draw = generator(self._problem.seed, "train", pair, trip.drawn)
        return self._problem.task.sample("train", 1, draw)

    def _trip(self, pair: int, drawn: int, step: int, fraction: float) -> Trip:
        longest = self._problem.unroll.horizon(fraction, self._problem.num_steps)
        if self._shortest is None:
            return Trip(drawn, step, longest, longest)
        if self._shortest > longest:
            raise ConfigError(
                f"estimator.shortest_horizon={self._shortest} is above the horizon of {longest}"
            )
        draw = generator(self._problem.seed, "horizon", pair, drawn)
        horizon = log_uniform(self._shortest, longest, draw)
        return Trip(drawn, step, horizon, horizon)

    def _of_particles(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers * 2, device=self.functions[0].initial_parameters.device)
