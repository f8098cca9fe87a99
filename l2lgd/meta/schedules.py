"""What changes in the course of meta-training: unroll length, loss weights, meta-learning-rate."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from l2lgd.errors import ConfigError

LOSS_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {  # w_t as a function of t/T
    "uniform": torch.ones_like,
    "linear": lambda fraction: 2.0 * fraction,
    "last": lambda fraction: (fraction == 1.0).to(fraction),
}
META_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {"loss": lambda f: f, "log": torch.log}
DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "exponential": lambda progress: 0.01 ** min(1.0, progress),
    "cosine": lambda progress: 0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, progress))) / 2,
}


class Unroll:
    """How trajectories are cut into unrolls, and what their meta-loss is.

    Args:
        lengths: U. Several lengths share the meta-training in equal parts, one after the other.
        horizons: T of the trajectories, likewise; None for ``num_steps`` throughout. Trajectories
            under way go on where it grows.
        loss_weights: w_t of the meta-loss Σ_t w_t f(θ_t): ``uniform`` (the paper), ``linear`` in t,
            or ``last`` (only t = T counts, which needs unrolls as long as the trajectory).
        meta_loss: sum the ``loss`` f (the paper) or its ``log``, which gives early and late steps,
            easy and hard functions the same say.
        restart_above: begin another trajectory when the mean loss of an unroll is above this
            multiple of the trajectory's lowest; what comes after an explosion teaches nothing about
            good trajectories. None never does.
    """

    def __init__(
        self,
        lengths: list[int],
        loss_weights: str = "uniform",
        meta_loss: str = "loss",
        horizons: list[int] | None = None,
        restart_above: float | None = None,
    ) -> None:
        for name, steps in (("lengths", lengths), ("horizons", horizons)):
            if steps is not None and (not steps or min(steps) < 1):
                raise ConfigError(f"{name}={list(steps)}: needs one or more numbers of at least 1")
        for name, value, choices in (
            ("loss_weights", loss_weights, LOSS_WEIGHTS),
            ("meta_loss", meta_loss, META_LOSSES),
        ):
            if value not in choices:
                raise ConfigError(f"{name}={value}: choose one of {', '.join(choices)}")
        if restart_above is not None and not restart_above > 1:
            raise ConfigError(f"restart_above={restart_above}: must be above 1, or null")
        self.lengths = list(lengths)
        self.horizons = None if horizons is None else list(horizons)
        self.loss_weights, self.meta_loss = loss_weights, meta_loss
        self.restart_above = math.inf if restart_above is None else restart_above

    def length(self, progress: float) -> int:
        """U when the fraction ``progress`` of the meta-training is done."""
        return _at(self.lengths, progress)

    def horizon(self, progress: float, num_steps: int) -> int:
        """T when the fraction ``progress`` of the meta-training is done."""
        return num_steps if self.horizons is None else _at(self.horizons, progress)

    def refuse_empty(self, num_steps: int) -> None:
        """Raise ConfigError where some unroll of a trajectory of T steps would have no summand."""
        if self.loss_weights == "last" and min(self.lengths) < num_steps:
            raise ConfigError(
                f"loss_weights=last needs unrolls of num_steps={num_steps}: earlier ones would "
                f"have no meta-gradient, and lengths={self.lengths}"
            )

    def objective(self, num_steps: int) -> Callable[[Tensor, range], Tensor]:
        """The summands w_t f(θ_t) of a trajectory of T = ``num_steps``: (U, B), steps → (U, B).

        Raises:
            ConfigError: some unroll would have no summand.
        """
        self.refuse_empty(num_steps)

        def summands(losses: Tensor, steps: range) -> Tensor:
            when = losses.new_tensor(steps, dtype=torch.float64).unsqueeze(1)
            return self.summands(losses, when, num_steps)

        return summands

    def summands(self, losses: Tensor, steps: Tensor, horizon: int | Tensor) -> Tensor:
        """w_t f(θ_t) for losses at steps t of trajectories of T = ``horizon``, which broadcast."""
        weight, transform = LOSS_WEIGHTS[self.loss_weights], META_LOSSES[self.meta_loss]
        weights = weight(steps.double() / horizon)  # in float64, rounded once
        return weights.to(losses) * transform(losses)


def _at(values: Sequence[int], progress: float) -> int:
    """The one of several values, in equal parts, that is due."""
    return values[min(int(progress * len(values)), len(values) - 1)]


def decay_factor(kind: str, progress: float) -> float:
    """Factor on the meta-learning-rate when the fraction ``progress`` is done."""
    if kind not in DECAYS:
        raise ConfigError(f"meta_decay={kind}: choose one of {', '.join(DECAYS)}")
    return DECAYS[kind](progress)
