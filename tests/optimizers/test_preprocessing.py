"""Gradient preprocessing against the formula of appendix A."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from l2lgd.optimizers.preprocessing import (
    PREPROCESSINGS,
    clipped_share,
    log_sign,
    preprocess,
    slopes,
    smoothed_log_sign,
)


def formula(gradient: float, p: float) -> tuple[float, float]:
    if abs(gradient) >= math.exp(-p):
        return math.log(abs(gradient)) / p, math.copysign(1.0, gradient)
    return -1.0, math.exp(p) * gradient


@settings(max_examples=200)
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


@pytest.mark.parametrize("gradient", [-0.03, -1e-3, 2e-4, 0.01, 0.5])
def test_smoothed_derivatives_are_those_of_the_average_over_a_cauchy_distribution(
    gradient: float,
) -> None:
    width, p, h = 0.01, 10.0, 1e-4
    quantiles = (torch.arange(2_000_000, dtype=torch.float64) + 0.5) / 2_000_000
    draws = width * torch.tan(math.pi * (quantiles - 0.5))
    low, high = (log_sign(gradient + shift + draws, p).mean(1) for shift in (-h, h))
    at = torch.tensor([gradient], dtype=torch.float64, requires_grad=True)
    features = smoothed_log_sign(at, p, torch.full_like(at, width))
    assert features.equal(log_sign(at.detach(), p)), "the values are not smoothed"
    found = [torch.autograd.grad(feature, at, retain_graph=True)[0].item() for feature in features]
    assert found == pytest.approx(((high - low) / (2 * h)).tolist(), rel=0.02, abs=0.05)


@pytest.mark.parametrize("p", [1.0, 44.0, 80.0])
def test_smoothed_features_are_finite_whatever_the_p(p: float) -> None:
    gradient = torch.tensor([0.0, 1e-42, -1e-20, 1e-3, 1e4], requires_grad=True)
    features = smoothed_log_sign(gradient, p, torch.zeros(5))
    assert features.equal(log_sign(gradient.detach(), p))
    assert torch.autograd.grad(features.sum(), gradient)[0].isfinite().all()


def test_smoothed_derivatives_are_bounded_where_gradient_and_width_vanish() -> None:
    zero = torch.zeros(1, requires_grad=True)
    magnitude, direction = smoothed_log_sign(zero, 10.0, torch.zeros(1))
    assert torch.autograd.grad(magnitude, zero, retain_graph=True)[0].item() == 0
    slope = torch.autograd.grad(direction, zero)[0].item()
    assert slope == pytest.approx(math.exp(10), rel=1e-5)


def test_clipped_share_counts_small_entries_among_the_non_zero_ones() -> None:
    gradient = torch.tensor([0.0, 0.0, 1e-6, -1e-6, 1e-3, -1.0, 2.0])
    assert clipped_share(gradient, 10.0) == pytest.approx(2 / 5)
    assert clipped_share(torch.zeros(3), 10.0) == 0.0


@pytest.mark.parametrize("smoothed", [False, True])
@pytest.mark.parametrize("kind", PREPROCESSINGS)
def test_slopes_are_the_derivatives_of_the_features(kind: str, smoothed: bool) -> None:
    sizes = torch.tensor([0.0, 1e-320, 1e-9, 4e-5, 5e-5, 1e-3, 1.0, 1e9], dtype=torch.float64)
    gradient = torch.cat((sizes, -sizes)).requires_grad_()
    width = torch.full_like(gradient, 1e-3).detach() if smoothed else None
    found = slopes(gradient.detach(), kind, 10.0, width)
    for feature, slope in zip(preprocess(gradient, kind, 10.0, width), found, strict=True):
        (expected,) = torch.autograd.grad(feature.sum(), gradient, retain_graph=True)
        torch.testing.assert_close(slope, expected, rtol=1e-12, atol=0)
