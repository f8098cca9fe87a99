"""An optimizer that is equivariant under reflections of coordinates."""

import pytest
import torch
from helpers import optimizer
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.optimizers.hand_designed import HandDesigned
from l2lgd.optimizers.reflected import Reflected

N = 6


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def updates(initial: Tensor, gradients: Tensor) -> Tensor:
    chosen = optimizer("lstm_reflected")
    state, found = chosen.initial_state(initial), []
    with torch.no_grad():
        for gradient in gradients:
            update, state = chosen.step(gradient, state)
            found.append(update)
    return torch.stack(found)


@pytest.mark.parametrize("zeros", [0, 3, N])
def test_reflected_coordinates_are_moved_the_other_way(zeros: int) -> None:
    initial, gradients = random(2, N), random(5, 2, N, seed=1)
    initial[:, :zeros] = 0
    reflection = torch.tensor([1.0, -1, -1, 1, -1, 1], dtype=torch.float64)
    torch.testing.assert_close(
        updates(reflection * initial, reflection * gradients),
        reflection * updates(initial, gradients),
        rtol=0,
        atol=0,
    )


def test_what_begins_at_zero_waits_for_its_first_gradient() -> None:
    gradients = random(5, 1, N)
    gradients[:2] = 0
    found = updates(torch.zeros(1, N, dtype=torch.float64), gradients)
    assert (found[:2] == 0).all()
    assert (found[2:] != 0).all()


def test_coordinates_with_one_gradient_do_not_drift_together() -> None:
    initial, gradient = random(1, 4000), torch.full((20, 1, 4000), 1e-9, dtype=torch.float64)
    plain = optimizer("lstm")
    state, moved = plain.initial_state(initial), torch.zeros_like(initial)
    with torch.no_grad():
        for step in gradient:
            update, state = plain.step(step, state)
            moved += update
    turned = updates(initial, gradient).sum(0)
    assert turned.mean().abs() < 0.1 * moved.mean().abs()


def test_only_a_learned_optimizer_can_be_inside() -> None:
    with pytest.raises(ConfigError, match="learned"):
        Reflected(HandDesigned("SGD", 0.1))
