"""The BFGS reference."""

import pytest
import torch
from helpers import quadratics, run_steps

from l2lgd.errors import ConfigError
from l2lgd.optimizers.bfgs import BFGS


def test_steps_are_those_of_the_textbook() -> None:
    functions, rate = quadratics(), 0.5
    visited = run_steps(BFGS(rate), functions, 6)
    for row, matrix in enumerate(functions.matrices):

        def gradient(theta: torch.Tensor, row: int = row, matrix: torch.Tensor = matrix):
            return 2 * matrix.T @ (matrix @ theta - functions.targets[row])

        theta, n = functions.initial_parameters[row].clone(), len(matrix)
        inverse = torch.eye(n, dtype=torch.float64)
        for step in range(5):
            before = gradient(theta)
            length = rate * min(1.0, 1 / before.abs().sum().item()) if step == 0 else rate
            s = -length * inverse @ before
            theta = theta + s
            torch.testing.assert_close(visited[step + 1, row], theta, rtol=1e-8, atol=1e-10)
            y = gradient(theta) - before
            if step == 0:
                inverse *= (s @ y) / (y @ y)
            rho = 1 / (s @ y)
            side = torch.eye(n, dtype=torch.float64) - rho * torch.outer(s, y)
            inverse = side @ inverse @ side.T + rho * torch.outer(s, s)


def test_ill_conditioned_quadratics_are_nearly_solved() -> None:
    functions = quadratics()
    visited = run_steps(BFGS(1.0), functions, 60)
    first, last = (functions.loss(visited[step], 0) for step in (0, -1))
    assert (last < 1e-3 * first).all()


def test_a_diverged_function_does_not_spread() -> None:
    gradients = torch.tensor([[1.0, 2.0], [float("nan"), 1.0]], dtype=torch.float64)
    chosen = BFGS(0.1)
    state = chosen.initial_state(gradients)
    for _ in range(3):
        update, state = chosen.step(gradients, state)
    assert update[0].isfinite().all()
    assert update[1].isnan().any()


def test_the_learning_rate_is_positive_and_needed() -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        BFGS(0.0)
    with pytest.raises(ConfigError, match="learning_rate is not set"):
        BFGS().initial_state(torch.zeros(1, 2))


def test_what_would_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="bfgs for n=15,910 coordinates would take"):
        BFGS(1.0).initial_state(torch.zeros(1, 15910))
