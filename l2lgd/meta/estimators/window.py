"""What the steps of an unroll leave behind, of pairs of particles."""

import math

import torch
from torch import Tensor

from l2lgd.meta.rollout import Position
from l2lgd.meta.schedules import Unroll


class Window:
    """U steps of P pairs of particles, the P positive ones first.

    Args:
        began: the step of the course before the first of these.
        largest_loss: losses above this multiple of the initial one, and those that are not finite,
            count as that multiple; None for no bound. Above a negative one it is as far away as
            above a positive one of that size.
    """

    def __init__(self, began: int, largest_loss: float | None) -> None:
        self.began, self._largest = began, largest_loss
        self._steps: list[tuple[Tensor, ...]] = []

    def note(self, before: Position, at: Position, initial: Tensor) -> None:
        """Add a step.

        Args:
            initial: f(θ_0) of each particle (2P,).
        """
        assert at.begun is not None
        assert isinstance(at.horizon, Tensor)
        sizes = [x.square().mean(1) for x in (at.parameters - before.parameters, at.gradient)]
        self._steps.append((at.loss, initial, at.step - at.begun, at.horizon, *sizes))

    def close(self, unroll: Unroll) -> None:
        """Have the numbers below, once all steps have been noted."""
        parts = zip(*self._steps, strict=True)
        losses, initial, steps, horizons, updates, gradients = map(torch.stack, parts)  # (U, 2P)
        counts = steps <= horizons
        within = losses.isfinite()
        if self._largest is not None:
            # Above a negative loss, too; there is no multiple of zero.
            cap = initial + (self._largest - 1) * initial.abs()
            cap = cap.where(initial != 0, math.inf)
            within &= losses <= cap
            losses = losses.where(within, cap)
        self.losses = losses
        pairs = (within | ~counts).unflatten(1, (2, -1))  # (U, 2, P)
        self.diverged = ~pairs.flatten(0, 1).all(0)  # at some step, a particle of the pair (P,)
        # Both at the end: whatever φ is, such a pair says the same.
        self.lost = ~within[-1].view(2, -1).any(0)
        counted = unroll.summands(losses, steps, horizons).where(counts, 0.0)
        self.summands: Tensor = counted.unflatten(1, (2, -1))  # of the meta-loss (U, 2, P)
        number = torch.arange(self.began + 1, self.began + 1 + len(steps), device=steps.device)
        began = number.unsqueeze(1) - steps
        # Is a pair's step on a trajectory that has begun since? (U, P)
        self.is_new = (began > self.began).unflatten(1, (2, -1))[:, 0]
        self.mean_squares = torch.stack([updates.mean(0), gradients.mean(0)])  # (2, 2P)

    @property
    def differences(self) -> Tensor:
        """Of the summands of the two particles of each pair (U, P)."""
        plus, minus = self.summands.unbind(1)
        return plus - minus
