"""BFGS, a reference for what optimizers that share information between coordinates could learn.

The inverse-Hessian approximation is SciPy's, scaled at the first update as in Nocedal and Wright
(6.20), and curvature that is not positive is passed over. There is no line search: an optimizer
sees gradients only. So a step is the learning rate times the quasi-Newton step, and the first one
at most that long (in the 1-norm).
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import TunedOptimizer

LARGEST_N = 3_000  # 72 MB a function


class BFGSState(NamedTuple):
    """Approximations are changed in place by a step, so each state may be used once."""

    approximations: list[Any]  # scipy.optimize.BFGS, one a function
    gradient: np.ndarray | None = None  # ∇_{t−1} (B, n)
    update: np.ndarray | None = None  # g_{t−1} (B, n)


class BFGS(TunedOptimizer[BFGSState]):
    """θ_{t+1} = θ_t − learning_rate · H_t ∇_t; O(n²) time and memory a function, on the CPU.

    For up to 3,000 coordinates.

    Args:
        learning_rate: None until it is tuned; near 1 where the functions are quadratic.
    """

    differentiable = False

    def __init__(self, learning_rate: float | None = None) -> None:
        super().__init__(learning_rate)

    def initial_state(self, parameters: Tensor) -> BFGSState:
        from scipy.optimize import BFGS as Approximation

        self.tuned_rate()  # fails now rather than in the first step
        n = parameters.shape[1]
        if n > LARGEST_N:
            raise ConfigError(
                f"bfgs for n={n:,} coordinates would take {8 * n * n / 1e9:.1f} GB a function; "
                f"it is for up to {LARGEST_N:,}"
            )
        approximations = [Approximation() for _ in parameters]
        for approximation in approximations:
            approximation.initialize(n, "inv_hess")
        return BFGSState(approximations)

    def step(
        self, gradient: Tensor, state: BFGSState, width: Tensor | None = None
    ) -> tuple[Tensor, BFGSState]:
        gradients = gradient.detach().cpu().double().numpy()
        update = np.empty_like(gradients)
        for row, (own, approximation) in enumerate(
            zip(gradients, state.approximations, strict=True)
        ):
            length = self.tuned_rate()
            if state.gradient is None or state.update is None:
                length = length * min(1.0, 1 / max(np.abs(own).sum(), np.finfo(float).tiny))
            else:
                change = own - state.gradient[row]
                if change.any() and np.isfinite(change).all():
                    approximation.update(state.update[row], change)
            update[row] = -length * approximation.dot(own)
        following = BFGSState(state.approximations, gradients, update)
        return torch.from_numpy(update).to(gradient), following
