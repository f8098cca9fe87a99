"""An optimizer that is an odd function of the gradients."""

import pytest
import torch
from helpers import optimizer, updates
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.optimizers.hand_designed import HandDesigned
from l2lgd.optimizers.sign_equivariant import SignEquivariant

N = 6


def stream(steps: int = 5, num_functions: int = 2) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(steps, num_functions, N, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("which", [slice(0, N), slice(2, 4), slice(5, 6)])
def test_coordinates_whose_gradients_turn_round_move_the_other_way(which: slice) -> None:
    reflection = torch.ones(N, dtype=torch.float64)
    reflection[which] = -1
    chosen = optimizer("lstm_odd")
    expected = reflection * updates(chosen, stream())
    torch.testing.assert_close(
        updates(chosen, reflection * stream()), expected, rtol=1e-12, atol=1e-16
    )


def test_without_gradients_nothing_moves() -> None:
    learned = optimizer("lstm_odd")
    with torch.no_grad():
        learned.optimizer.output_bias += 1
    assert updates(learned, torch.zeros(4, 2, N, dtype=torch.float64)).abs().max() < 1e-15
    assert updates(learned.optimizer, torch.zeros(4, 2, N, dtype=torch.float64)).abs().min() > 0.05


def test_it_is_half_the_difference_of_two_optimizers() -> None:
    learned = optimizer("lstm_odd")
    there, back = (updates(learned.optimizer, sign * stream()) for sign in (1, -1))
    torch.testing.assert_close(updates(learned, stream()), (there - back) / 2)


def test_only_a_learned_optimizer_can_be_inside() -> None:
    with pytest.raises(ConfigError, match="learned"):
        SignEquivariant(HandDesigned("SGD", 0.1))
