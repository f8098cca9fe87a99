"""Gradient preprocessing against the formula of appendix A."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from l2lgd.optimizers.preprocessing import clipped_share, log_sign, preprocess


def formula(gradient: float, p: float) -> tuple[float, float]:
    if abs(gradient) >= math.exp(-p):
        return math.log(abs(gradient)) / p, math.copysign(1.0, gradient)
    return -1.0, math.exp(p) * gradient


@settings(deadline=None, max_examples=200)
@given(
    exponent=st.floats(-60, 30),
    sign=st.sampled_from([-1.0, 1.0]),
    p=st.floats(0.5, 20),
)
def test_log_sign_is_the_formula_on_both_branches(exponent: float, sign: float, p: float) -> None:
    gradient = sign * math.exp(exponent)
    magnitude, direction = log_sign(torch.tensor([gradient], dtype=torch.float64), p)
    expected = formula(gradient, p)
    assert magnitude.item() == pytest.approx(expected[0], abs=1e-12)
    assert direction.item() == pytest.approx(expected[1], abs=1e-12)


@pytest.mark.parametrize("p", [5.0, 10.0])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_log_sign_is_continuous_where_its_branches_meet(p: float, sign: float) -> None:
    border = sign * math.exp(-p)
    around = torch.tensor([border * (1 - 1e-9), border, border * (1 + 1e-9)], dtype=torch.float64)
    features = log_sign(around, p)
    torch.testing.assert_close(
        features,
        torch.tensor([[-1.0], [sign]], dtype=torch.float64).expand(2, 3),
        atol=1e-8,
        rtol=0,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_zero_gradient_counts_as_infinitely_small(dtype: torch.dtype) -> None:
    features = log_sign(torch.tensor([0.0, -0.0], dtype=dtype), 10.0)
    assert features.tolist() == [[-1.0, -1.0], [0.0, 0.0]]


def test_features_come_first_and_none_leaves_the_gradient_alone() -> None:
    gradient = torch.randn(3, 4)
    assert preprocess(gradient, "log_sign", 10.0).shape == (2, 3, 4)
    assert preprocess(gradient, "none", 10.0).equal(gradient.unsqueeze(0))


def test_clipped_share_counts_small_entries_among_the_non_zero_ones() -> None:
    gradient = torch.tensor([0.0, 0.0, 1e-6, -1e-6, 1e-3, -1.0, 2.0])
    assert clipped_share(gradient, 10.0) == pytest.approx(2 / 5)
    assert clipped_share(torch.zeros(3), 10.0) == 0.0
