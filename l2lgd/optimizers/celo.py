"""Celo: a per-parameter rule times one learned factor a step, which is a learned schedule.

Moudgil et al., Celo: training versatile learned optimizers on a compute diet, 2025.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import LearnedRule, given
from l2lgd.optimizers.initial_weights import truncated_normal
from l2lgd.optimizers.observation import Observation

TRAINED = ("all", "rule", "scheduler")
TIMES = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)  # parts of T
STEEPNESS = 10.0  # of the time features there
SHORTEST = 10.0  # steps that the shortest running mean of losses is over; the longest is over T
MEANS = 10
UNKNOWN = 999999999999.0  # the lowest mean before there is any
FEW = 2  # losses that tell nothing yet
CAP = 2.0  # a loss counts no more than so many of the largest mean
LEAST_SPREAD = 1e-8
SCALE = 0.1  # the factor of an output of zero


class SchedulerState(NamedTuple):
    """Of B functions."""

    hidden: Tensor  # (B, H); before the first step nothing, as it begins with weights
    cell: Tensor  # (B, H)
    means: Tensor  # running means of the loss (B, 10)
    lowest: Tensor  # that each of them but the last has been, without bias (B, 9)
    num_losses: Tensor  # that it has seen (B, 1)


class CeloState(NamedTuple):
    """Of B functions."""

    rule: Any
    scheduler: SchedulerState


class Scheduler(nn.Module):
    """An LSTM that sees how far the training is, and how the loss goes down.

    Args:
        units: H.
    """

    times: Tensor
    exponents: Tensor

    def __init__(self, units: int) -> None:
        super().__init__()
        num_inputs = len(TIMES) + MEANS - 1
        # Weights are (inputs, outputs); gates are input, candidate, forget, output.
        layers = {
            "direct": (num_inputs, units),
            "rectified": (num_inputs, units),
            "gates": (2 * units, 4 * units),
            "output": (units, 1),
        }
        self.weights = nn.ParameterDict({k: torch.empty(shape) for k, shape in layers.items()})
        self.biases = nn.ParameterDict({k: torch.empty(shape[1]) for k, shape in layers.items()})
        self.initial_hidden = nn.Parameter(torch.empty(1, units))
        self.initial_cell = nn.Parameter(torch.empty(1, units))
        exponents = torch.linspace(0, 1, MEANS)
        self.register_buffer("times", torch.tensor(TIMES), persistent=False)
        self.register_buffer("exponents", exponents, persistent=False)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Truncated normal of standard deviation 1/√fan-in; all else zero."""
        for weight in self.weights.values():
            truncated_normal(weight, 1 / math.sqrt(len(weight)), generator)
        for zero in (*self.biases.values(), self.initial_hidden, self.initial_cell):
            zero.zero_()

    def initial_state(self, parameters: Tensor) -> SchedulerState:
        """For parameters (B, n)."""
        count = len(parameters)
        units = self.initial_hidden.shape[1]
        return SchedulerState(
            parameters.new_zeros(count, units),
            parameters.new_zeros(count, units),
            parameters.new_zeros(count, MEANS),
            parameters.new_full((count, MEANS - 1), UNKNOWN),
            torch.zeros(count, 1, dtype=torch.int64, device=parameters.device),
        )

    def step(self, state: SchedulerState, seen: Observation) -> tuple[Tensor, SchedulerState]:
        """The factor f (B, 1) and the next state.

        Raises:
            ConfigError: nobody knows the horizon.
        """
        horizon = seen.length
        if horizon is None:
            raise ConfigError(
                "these weights need to know how many steps there will be; in PyTorch, give "
                "LearnedOptimizer(…, horizon=STEPS)"
            )
        by_loss, means, lowest = self.loss_features(state, seen.loss.unsqueeze(1), horizon)
        by_time = self.time_features(seen.number, horizon).expand(len(by_loss), -1)
        inputs = torch.cat((by_time, by_loss), 1)
        # The initial state is of φ, and what a meta-gradient goes through begins with a step.
        first = state.num_losses == 0
        hidden = torch.where(first, self.initial_hidden, state.hidden)
        cell = torch.where(first, self.initial_cell, state.cell)
        mixed = self._layer("direct", inputs) + torch.relu(self._layer("rectified", inputs))
        gates = self._layer("gates", torch.cat((mixed, hidden), 1))
        into, candidate, forget, out = gates.chunk(4, 1)
        cell = torch.sigmoid(forget + 1) * cell + torch.sigmoid(into) * torch.tanh(candidate)
        hidden = torch.sigmoid(out) * torch.tanh(cell)
        factor = SCALE * torch.exp(self._layer("output", hidden))
        return factor, SchedulerState(hidden, cell, means, lowest, state.num_losses + 1)

    def time_features(self, number: Tensor, horizon: Tensor) -> Tensor:
        """tanh(10 (t/T − c)) for nine c: (B, 9), or (1, 9) where both numbers are ()."""
        passed = ((number - 1) / horizon).reshape(-1, 1)
        return torch.tanh(STEEPNESS * (passed - self.times))

    def loss_features(
        self, state: SchedulerState, loss: Tensor, horizon: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Where each running mean lies between its lowest and the next longer mean.

        Returns:
            Features (B, 9) with that loss (B, 1), and the next means and lowest ones.
        """
        lengths = SHORTEST * (horizon.reshape(-1, 1) / SHORTEST) ** self.exponents  # in steps
        count = state.num_losses + 1
        known = -torch.expm1(-count / lengths)  # 1 − b^(n+1), by which means lose their bias
        largest = (state.means / known).amax(1, keepdim=True)
        loss = torch.where(count == 1, loss, torch.minimum(CAP * largest.abs(), loss))
        means = torch.lerp(state.means, loss, -torch.expm1(-1 / lengths))
        unbiased = means / known
        lowest = torch.minimum(state.lowest, unbiased[:, :-1])
        spread = (unbiased[:, 1:] - lowest).clamp(min=LEAST_SPREAD)
        features = ((unbiased[:, :-1] - lowest) / spread - 1).clamp(-1, 1)
        return torch.where(count > FEW, features, 0.0), means, lowest

    def _layer(self, name: str, inputs: Tensor) -> Tensor:
        outputs: Tensor = inputs @ self.weights[name] + self.biases[name]
        return outputs


class Celo(LearnedRule[CeloState]):
    """g = f · g', with the updates g' of another rule, and one f for all coordinates of a function.

    f depends on the losses so far, t and T. Celo's rule is an MLP for every parameter. It is
    meta-trained first, with ``trained=rule``, and the scheduler afterwards, with
    ``trained=scheduler`` from those weights.

    Args:
        rule: a learned one, whose updates the factor scales.
        units: of the scheduler's LSTM.
        trained: ``all`` weights, those of the ``scheduler`` alone, or those of the ``rule`` alone,
            whose updates are left as they are.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(self, rule: LearnedRule[Any], units: int = 64, trained: str = "all") -> None:
        super().__init__()
        if not isinstance(rule, LearnedRule):
            raise ConfigError("rule: needs the _target_ of a learned optimizer")
        if units < 1:
            raise ConfigError(f"units={units}: must be positive")
        if trained not in TRAINED:
            raise ConfigError(f"trained={trained}: choose one of {', '.join(TRAINED)}")
        self.rule, self.scheduler = rule, Scheduler(units)
        self._scheduled = trained != "rule"
        self._named: tuple[LearnedRule[Any], ...] = ()  # the rule for tensors of known shapes
        self.observes = rule.observes
        if self._scheduled:
            self.observes = tuple(dict.fromkeys((*rule.observes, "loss", "step", "horizon")))
        for name, part in (("rule", rule), ("scheduler", self.scheduler)):
            part.requires_grad_(trained in ("all", name))
        self.scheduler.reset_parameters(torch.Generator().manual_seed(0))

    def phi(self) -> list[nn.Parameter]:
        return [weight for weight in self.parameters() if weight.requires_grad]

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.rule.reset_parameters(generator)
        self.scheduler.reset_parameters(generator)

    def scale_updates(self, factor: float) -> None:
        self.rule.scale_updates(factor)

    @property
    def coordinatewise(self) -> bool:
        return self.rule.coordinatewise

    @property
    def tensorwise(self) -> bool:
        return self.rule.tensorwise

    def named(self, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        rule = self.rule.named(shapes)
        if rule is self._rule:  # tensors are all alike to it
            return self
        bound = copy.copy(self)  # shallow: meta-training has to change the same weights
        bound._named = (rule,)
        return bound

    def initial_state(self, parameters: Tensor) -> CeloState:
        own = self._rule.initial_state(parameters)
        return CeloState(own, self.scheduler.initial_state(parameters))

    def step(
        self,
        gradient: Tensor,
        state: CeloState,
        width: Tensor | None = None,
        seen: Observation | None = None,
    ) -> tuple[Tensor, CeloState]:
        watched = given(seen if self._rule.observes else None)
        update, following = self._rule.step(gradient, state.rule, width, **watched)
        if not self._scheduled:
            return update, state._replace(rule=following)
        assert seen is not None
        factor, scheduler = self.scheduler.step(state.scheduler, seen)
        return factor * update, CeloState(following, scheduler)

    @property
    def _rule(self) -> LearnedRule[Any]:
        return self._named[0] if self._named else self.rule
