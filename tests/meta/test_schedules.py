"""Unroll lengths, loss weights, meta-losses and the decay of the meta-learning-rate."""

import pytest
import torch

from l2lgd.errors import ConfigError
from l2lgd.meta.schedules import DECAYS, Unroll, decay_factor


def test_lengths_share_the_training_in_equal_parts_in_their_order() -> None:
    unroll = Unroll([20, 50, 100])
    found = [unroll.length(part / 300) for part in range(301)]
    assert found == [20] * 100 + [50] * 100 + [100] * 101
    assert {Unroll([7]).length(part / 10) for part in range(11)} == {7}


@pytest.mark.parametrize(
    ("loss_weights", "expected"),
    [("uniform", [1, 1, 1]), ("linear", [1.6, 1.8, 2.0]), ("last", [0, 0, 1])],
)
def test_loss_weights_belong_to_the_step_of_the_trajectory(
    loss_weights: str, expected: list[float]
) -> None:
    losses = torch.tensor([[1.0, 3.0], [1.0, 3.0], [1.0, 3.0]], dtype=torch.float64)
    summands = Unroll([10], loss_weights=loss_weights).objective(10)(losses, range(8, 11))
    torch.testing.assert_close(summands, losses * torch.tensor(expected).double().unsqueeze(1))


@pytest.mark.parametrize("num_steps", [3, 100, 128])
def test_last_counts_exactly_one_step(num_steps: int) -> None:
    objective = Unroll([num_steps], loss_weights="last").objective(num_steps)
    summands = objective(torch.ones(num_steps, 1), range(1, num_steps + 1))
    assert summands.squeeze(1).tolist() == [0.0] * (num_steps - 1) + [1.0]


def test_last_refuses_unrolls_that_would_have_no_meta_gradient() -> None:
    with pytest.raises(ConfigError, match="num_steps=100"):
        Unroll([20, 100], loss_weights="last").objective(100)


def test_the_log_meta_loss_is_the_log() -> None:
    losses = torch.tensor([[0.5, 2.0]])
    found = Unroll([1], meta_loss="log").objective(1)(losses, range(1, 2))
    torch.testing.assert_close(found, losses.log())


@pytest.mark.parametrize("kind", DECAYS)
def test_decays_start_at_one_and_never_rise(kind: str) -> None:
    factors = [decay_factor(kind, part / 100) for part in range(101)]
    assert factors[0] == 1
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] > 0


def test_the_cosine_ends_at_a_hundredth() -> None:
    assert decay_factor("cosine", 0.5) == pytest.approx(0.505)
    assert decay_factor("cosine", 1.0) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lengths", {"lengths": []}),
        ("lengths", {"lengths": [20, 0]}),
        ("loss_weights", {"lengths": [1], "loss_weights": "first"}),
        ("meta_loss", {"lengths": [1], "meta_loss": "sqrt"}),
        ("restart_above", {"lengths": [1], "restart_above": 1.0}),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict) -> None:
    with pytest.raises(ConfigError, match=f"^{name}="):
        Unroll(**options)


def test_an_unknown_decay_is_refused() -> None:
    with pytest.raises(ConfigError, match="meta_decay=step"):
        decay_factor("step", 0.0)


def test_horizons_share_the_meta_training() -> None:
    unroll = Unroll([20], horizons=[100, 200, 1000, 1000])
    found = [unroll.horizon(progress, 50) for progress in (0.0, 0.24, 0.25, 0.5, 0.99, 1.0)]
    assert found == [100, 100, 200, 1000, 1000, 1000]
    assert Unroll([20]).horizon(0.3, 50) == 50
