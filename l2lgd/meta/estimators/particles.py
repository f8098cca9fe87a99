"""Evolution strategies: the meta-gradient from the losses of particles, perturbed copies of φ.

A pair of particles has the weights φ + ε and φ − ε, with ε ~ N(0, σ²I), and runs on one function
with one stream of minibatches. With D the difference of their meta-losses, ε D / (2σ²) is an
estimate of the gradient of the meta-loss that is averaged over such perturbations (Nesterov and
Spokoiny, Random gradient-free minimization of convex functions, 2017). Neither the optimizer nor
the loop is differentiated. All particles of a process are stepped at once.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.meta.estimators.base import Course, Ended, Estimator, MetaProblem, Unrolled
from l2lgd.meta.estimators.trips import Trips
from l2lgd.meta.estimators.window import Window
from l2lgd.meta.rollout import Position, advance, start
from l2lgd.meta.trajectories import kept, put_back
from l2lgd.optimizers.base import Optimizer, like_state, map_state, tensors_of
from l2lgd.optimizers.vectorised import stack
from l2lgd.seeding import generator

LARGEST_LOSS = 1.5  # initial losses; the bound of Celo's meta-training (Moudgil et al. 2025)


@dataclass(frozen=True)
class Differences:
    """Of the meta-losses of the two particles of each pair, summed over steps of an unroll (P,)."""

    old: Tensor  # on trajectories that were under way when it began
    new: Tensor  # on those that have begun since


class ParticleEstimator(Estimator):
    """What estimators with particles share. Each of the B functions has a pair of particles.

    Args:
        sigma: standard deviation σ of the perturbations.
        largest_loss: losses above this multiple of the function's initial loss, and those that are
            not finite, count as that multiple; None: a pair with one that is not finite is left
            out of the meta-gradient. Either way the pair is counted as diverged. It begins another
            trajectory where a loss is not finite, or both are above the bound, after the unroll.
        shortest_horizon: T of every trajectory is drawn log-uniformly from this to the horizon;
            None for always that.

    Raises:
        ConfigError: an option is out of range.
    """

    staggered = False  # are the first trajectories cut short, so that they end one by one?
    restarts = True  # does another trajectory begin where one ends within an unroll?

    def __init__(
        self,
        sigma: float = 0.01,
        largest_loss: float | None = LARGEST_LOSS,
        shortest_horizon: int | None = None,
    ) -> None:
        if not 0 < sigma < math.inf:
            raise ConfigError(f"sigma={sigma}: must be positive")
        if largest_loss is not None and not largest_loss >= 1:
            raise ConfigError(f"largest_loss={largest_loss}: must be at least 1, or null")
        if shortest_horizon is not None and shortest_horizon < 1:
            raise ConfigError(f"shortest_horizon={shortest_horizon}: must be at least 1, or null")
        self.sigma, self.largest_loss = sigma, largest_loss
        self.shortest_horizon = shortest_horizon

    def begin(self, problem: MetaProblem, trajectory: int = 0) -> Course:
        return Particles(self, problem, trajectory)

    @abstractmethod
    def prepare(self, particles: "Particles", fraction: float) -> int:
        """Have the particles where an unroll is to begin; returns its length U.

        Args:
            fraction: of the meta-training that is done.

        Raises:
            ConfigError: the unrolls do not suit the estimator.
        """

    @abstractmethod
    def credit(self, found: Differences, epsilon: Tensor, accumulated: Tensor) -> Tensor:
        """The estimate of each pair, times 2σ²: (P, m), for the m numbers in φ.

        Args:
            epsilon: ε (P, m).
            accumulated: ξ (P, m), the sum of ε over earlier unrolls of the trajectory.
        """


class Particles(Course):
    """P pairs of particles under way: stacked functions, the P positive ones first."""

    def __init__(self, estimator: ParticleEstimator, problem: MetaProblem, trajectory: int) -> None:
        self.problem, self.trajectory = problem, trajectory
        self._estimator = estimator
        count = problem.num_functions
        share = problem.ranks.share(count)
        self._share, pairs = share, range(count)[share]
        self._trips = Trips(problem, pairs, estimator.shortest_horizon, estimator.staggered)
        optimizee = self._trips.optimizee()
        self._rule = problem.rule.named(optimizee.shapes)
        phi = torch.cat([weight.detach().flatten() for weight in self._rule.phi()])
        self._accumulated = phi.new_zeros(len(pairs), len(phi))  # ξ
        at = start(self._perturbed(self._accumulated), optimizee)
        self._at = replace(at, begun=self._trips.begun(), horizon=self._trips.horizons())
        self._initial = at.loss
        self._lowest = at.loss.new_full((len(pairs),), math.inf)  # mean loss of an unroll so far

    @property
    def step(self) -> int:  # type: ignore[override]
        return self._at.step

    def unroll(self, fraction: float) -> Unrolled:
        problem, estimator = self.problem, self._estimator
        length = estimator.prepare(self, fraction)
        epsilon = self._draw()
        window, ratios = self._run(length, epsilon, fraction)
        differences, new = window.differences, window.is_new
        found = Differences(differences.where(~new, 0.0).sum(0), differences.where(new, 0.0).sum(0))
        estimates = estimator.credit(found, epsilon, self._accumulated)
        self._accumulate(epsilon, window)
        alive = differences.isfinite().all(0)
        numbers = self._numbers(window, alive)
        said, count = self._mean_over_ranks(estimates[alive] / (2 * estimator.sigma**2), numbers)
        self._restart_hopeless(window, fraction)
        ended, diverged = self._told(ratios, window)
        coordinate_steps = 2 * length * problem.num_functions * self._at.parameters.shape[1]
        step, horizon = self._trips.first(self.step)
        return Unrolled(said, count, diverged, length, coordinate_steps, step, horizon, ended)

    def settle(self, used: bool) -> None:
        pass  # pairs that diverged have been replaced

    def tensors(self) -> dict[str, Tensor]:
        return {
            "initial": self._initial,
            "lowest": self._lowest,
            "accumulated": self._accumulated,
            "trips": self._trips.tensor(),
            **kept(self._at),
        }

    def restore(self, step: int, marks: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self._trips.restore(tensors["trips"])
        self._at = replace(
            put_back(self._at, step, tensors),
            optimizee=self._trips.optimizee(),
            begun=self._trips.begun(),
            horizon=self._trips.horizons(),
        )
        device = self._at.parameters.device
        self._initial, self._lowest, self._accumulated = (
            tensors[name].to(device) for name in ("initial", "lowest", "accumulated")
        )

    def restart_all(self, fraction: float) -> None:
        """Have every pair begin another trajectory."""
        self._at = self._restarted(self._at, range(len(self._lowest)), fraction)

    def join_signs(self) -> None:
        """Have the negative particles go on from where the positive ones are."""
        at, count = self._at, len(self._lowest)
        rows = torch.arange(count, device=at.loss.device).repeat(2)
        self._at = replace(
            at,
            parameters=at.parameters[rows],
            loss=at.loss[rows],
            gradient=at.gradient[rows],
            states=[map_state(lambda part: part[rows], state) for state in at.states],
        )

    def _draw(self) -> Tensor:
        """ε (P, m) of this process's pairs; which depends on the step alone."""
        shape = (self.problem.num_functions, self._accumulated.shape[1])
        draw = generator(self.problem.seed, "perturbations", self.step)
        drawn = torch.randn(shape, generator=draw, dtype=self._accumulated.dtype)[self._share]
        return self._estimator.sigma * drawn.to(self._accumulated.device)

    def _perturbed(self, epsilon: Tensor) -> Optimizer[Any]:
        """The rule with the weights φ ± ε."""
        weights = self._rule.phi()
        flat = torch.cat([weight.detach().flatten() for weight in weights])
        both = torch.cat([flat + epsilon, flat - epsilon])
        pieces = both.split([weight.numel() for weight in weights], 1)
        pairs = zip(pieces, weights, strict=True)
        phi = [piece.reshape(-1, *weight.shape).contiguous() for piece, weight in pairs]
        return stack(self._rule, phi)

    def _run(self, length: int, epsilon: Tensor, fraction: float) -> tuple[Window, list[Tensor]]:
        """Do the steps; also returns last to first losses of trajectories that have ended."""
        at, ratios = replace(self._at, optimizer=self._perturbed(epsilon)), []
        window, last = Window(at.step, self._estimator.largest_loss), at.step + length
        at.optimizee.prefetch(range(at.step + 1, last + 1))
        while at.step < last:
            before, at = at, advance(at)
            window.note(before, at, self._initial)
            due = self._trips.due(at.step)
            if due and (self._estimator.restarts or at.step == last):
                ratios.append((at.loss / self._initial).view(2, -1).mean(0)[due])
            if due and self._estimator.restarts:
                at = self._restarted(at, due, fraction)
                at.optimizee.prefetch(range(at.step + 1, last + 1))
        window.close(self.problem.unroll)
        self._at = at
        return window, ratios

    def _restarted(self, at: Position, which: Sequence[int], fraction: float) -> Position:
        """Where some pairs begin another trajectory, and all others stay."""
        trips, count = self._trips, len(self._lowest)
        trips.renew(which, at.step, fraction)
        fresh = [trips.functions[p] for p in which]
        theta = torch.cat([own.initial_parameters for own in fresh])
        found = [own.loss_and_gradient(own.initial_parameters, 0) for own in fresh]
        loss, gradient = (torch.cat(parts) for parts in zip(*found, strict=True))
        rows = torch.tensor([*which, *(p + count for p in which)], device=theta.device)
        parameters = at.parameters.index_copy(0, rows, theta.repeat(2, 1))

        def begun_again(state: Any, block: tuple[slice, slice]) -> Any:
            initial = tensors_of(at.optimizer.initial_state(parameters[block]))
            pairs = zip(tensors_of(state), initial, strict=True)
            return like_state(state, [old.index_copy(0, rows, new[rows]) for old, new in pairs])

        self._initial = self._initial.index_copy(0, rows, loss.repeat(2))
        self._lowest = self._lowest.index_fill(0, rows[: len(which)], math.inf)
        return replace(
            at,
            optimizee=trips.optimizee(),
            parameters=parameters,
            loss=at.loss.index_copy(0, rows, loss.repeat(2)),
            gradient=at.gradient.index_copy(0, rows, gradient.repeat(2, 1)),
            states=[begun_again(*pair) for pair in zip(at.states, at.blocks, strict=True)],
            begun=trips.begun(),
            horizon=trips.horizons(),
        )

    def _restart_hopeless(self, window: Window, fraction: float) -> None:
        """Have pairs begin anew that have diverged, or strayed far above their lowest loss."""
        mean = window.losses.mean(0).view(2, -1).mean(0)
        mean = mean.where(~window.is_new.any(0), math.inf)  # of one trajectory alone
        strayed = mean.isfinite() & (mean > self.problem.unroll.restart_above * self._lowest)
        self._lowest = self._lowest.minimum(mean)
        lost = ~(self._at.loss.isfinite() & self._at.gradient.isfinite().all(1))
        under_way = self._trips.begun()[: len(strayed)] < self.step
        lost = lost.view(2, -1).any(0) | (window.lost & under_way)
        which = (strayed | lost).nonzero().flatten().tolist()
        if which:
            self._at = self._restarted(self._at, which, fraction)
            self._accumulated[which] = 0.0

    def _accumulate(self, epsilon: Tensor, window: Window) -> None:
        """ξ of the trajectories that are under way now: only of steps that they have made."""
        since = self.step - self._trips.begun()[: len(epsilon)]
        whole = since >= self.step - window.began
        carried = (self._accumulated + epsilon).where(whole.unsqueeze(1), epsilon)
        self._accumulated = carried.where((since > 0).unsqueeze(1), 0.0)

    def _numbers(self, window: Window, alive: Tensor) -> dict[str, Tensor]:
        """For the log, means over the pairs that count."""
        rows = alive.repeat(2)
        updates, gradients = window.mean_squares[:, rows].mean(1)
        numbers = {
            "meta_loss": window.summands[..., alive].sum(0).mean(),
            "mean_loss": window.losses[:, rows].mean(),
            "update_size": updates,
            "gradient_size": gradients,
        }
        for name, value in self._rule.input_statistics(self._at.gradient[rows]).items():
            numbers[name] = updates.new_tensor(value)
        return numbers

    def _mean_over_ranks(
        self, estimates: Tensor, numbers: Mapping[str, Tensor]
    ) -> tuple[dict[str, float], int]:
        """Make ``.grad`` the mean of estimates (…, m), of pairs of all processes.

        Returns:
            Numbers for the log, and how many pairs these are means over.
        """
        size = estimates.square().sum(1).mean()
        parts = [estimates.mean(0), size, *numbers.values()]
        (mean, size, *others), count = self.problem.ranks.mean(parts, len(estimates))
        weights = self._rule.phi()
        pieces = mean.split([weight.numel() for weight in weights])
        for weight, piece in zip(weights, pieces, strict=True):
            weight.grad = piece.view_as(weight).clone()
        said = {name: value.item() for name, value in zip(numbers, others, strict=True)}
        for name in ("update_size", "gradient_size"):
            said[name] = math.sqrt(said[name])
        if count > 1:
            said["meta_gradient_variance"] = (size - mean.square().sum()).item() / (count - 1)
        return said, count

    def _told(self, ratios: list[Tensor], window: Window) -> tuple[Ended | None, int]:
        """What trajectories came to, over all processes; and how many pairs diverged."""
        own = torch.cat([self._initial.new_empty(0), *ratios]).double()
        finite, diverged = own[own.isfinite()], int(window.diverged.sum())
        counted = (len(own), len(finite), diverged, sum(self._trips.drawn()))
        pairs = len(self._lowest)
        sums = torch.cat([finite.sum().view(1), own.new_tensor(counted)]) / pairs
        (means,), total = self.problem.ranks.mean([sums], pairs)
        ratio, over, finite_ones, lost, drawn = (means * total).tolist()
        self.trajectory = round(drawn)
        ended = None
        if round(over + lost) > 0:
            ended = Ended(ratio / finite_ones if finite_ones else math.nan, diverged=False)
        return ended, round(lost)
