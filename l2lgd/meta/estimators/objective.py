"""What all estimators share: the meta-loss of a record, and how smoothing is measured."""

from collections.abc import Callable

import torch
from torch import Tensor

from l2lgd.meta.rollout import Record
from l2lgd.optimizers.base import LearnedRule, Optimizer

TYPICAL_SIZE_DECAY = 0.9  # of the running mean of squared gradients, about the last ten

MetaObjective = Callable[[Tensor, range], Tensor]


def rule_of(optimizer: Optimizer) -> LearnedRule:
    if not isinstance(optimizer, LearnedRule):
        raise TypeError(f"{type(optimizer).__name__} has no weights to meta-train")
    return optimizer


class TypicalSize:
    """Running root mean square of each coordinate's gradients, times ``smoothing``."""

    def __init__(self, smoothing: float) -> None:
        self._smoothing, self._weight = smoothing, 0.0
        self._mean: Tensor | None = None  # of squares (B, n), times the weight

    def after(self, gradient: Tensor) -> Tensor | None:
        """The width (B, n) when ``gradient`` (B, n) has been seen; None without smoothing."""
        if not self._smoothing:
            return None
        keep, squares = TYPICAL_SIZE_DECAY, gradient.detach().square()
        before = 0.0 if self._mean is None else self._mean
        self._mean = keep * before + (1 - keep) * squares
        self._weight = keep * self._weight + (1 - keep)
        return self._smoothing * (self._mean / self._weight).sqrt()


def weigh(record: Record, objective: MetaObjective) -> tuple[Tensor, Tensor]:
    """The meta-loss and w_s = ∂(meta-loss)/∂f(θ_s), (U, B)."""
    losses = record.losses.detach().requires_grad_()
    with torch.enable_grad():
        summands = objective(record.of_alive(losses, 1), record.steps)
        meta_loss = summands.mean(1).sum()
        (weights,) = torch.autograd.grad(meta_loss, losses)
    return meta_loss.detach(), weights
