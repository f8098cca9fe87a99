"""Gradient preprocessing for learned optimizers (appendix A of the paper)."""

import math

import torch
from torch import Tensor

PREPROCESSINGS = {"none": 1, "log_sign": 2}  # and how many features a coordinate gets


def log_sign(gradient: Tensor, p: float) -> Tensor:
    """Magnitude and direction apart: (…) → (2, …).

    (log|∇|/p, sign ∇) where |∇| ≥ e^−p, else (−1, e^p ∇). Both features are continuous.
    """
    tiny = torch.finfo(gradient.dtype).tiny
    magnitude = (gradient.abs().clamp(min=tiny).log() / p).clamp(min=-1.0)
    direction = (gradient * math.exp(p)).clamp(-1.0, 1.0)
    return torch.stack((magnitude, direction))


def smoothed_log_sign(gradient: Tensor, p: float, width: Tensor) -> Tensor:
    """The values of :func:`log_sign`, with the derivatives of its average around the gradient.

    The derivative of log|∇| grows without bound where ∇ is small, that of sign ∇ is zero where
    ∇ changes its sign: neither says what a change as large as those between two steps does.
    Averaged over ∇ + width · ε with ε from a Cauchy distribution they are ∇/(∇² + width²) and
    2/π · width/(∇² + width²).

    Args:
        width: (…), raised to where the second agrees with the slope e^p at ∇ = 0.
    """
    constant = gradient.detach()
    return log_sign(constant, p) + _smoothed_slopes(constant, p, width) * (gradient - constant)


def preprocess(gradient: Tensor, kind: str, p: float, width: Tensor | None = None) -> Tensor:
    """Features (F, …) of a gradient (…); kind is a key of :data:`PREPROCESSINGS`.

    With a width (…), derivatives are those of :func:`smoothed_log_sign`.
    """
    if kind == "none":
        return gradient.unsqueeze(0)
    return log_sign(gradient, p) if width is None else smoothed_log_sign(gradient, p, width)


def slopes(gradient: Tensor, kind: str, p: float, width: Tensor | None = None) -> Tensor:
    """The derivatives (F, …) of the features that :func:`preprocess` makes of a gradient (…)."""
    if kind == "none":
        return torch.ones_like(gradient).unsqueeze(0)
    return _slopes(gradient, p) if width is None else _smoothed_slopes(gradient, p, width)


def _slopes(gradient: Tensor, p: float) -> Tensor:
    size, tiny = gradient.abs(), torch.finfo(gradient.dtype).tiny
    has_logarithm = (size >= tiny) & (size.clamp(min=tiny).log() / p > -1.0)
    scale = math.exp(p)
    direction = scale * ((gradient * scale).abs() < 1.0).to(gradient.dtype)
    return torch.stack(((1 / (p * gradient)).where(has_logarithm, 0.0), direction))


def _smoothed_slopes(gradient: Tensor, p: float, width: Tensor) -> Tensor:
    square_is_normal = 2 * math.sqrt(torch.finfo(gradient.dtype).tiny)
    width = width.clamp(min=max(2 / math.pi * math.exp(-p), square_is_normal))
    numerators = torch.stack((gradient / p, 2 / math.pi * width))
    return numerators / (gradient.square() + width.square())


def clipped_share(gradient: Tensor, p: float) -> float:
    """Share of the non-zero entries that :func:`log_sign` treats as too small for a logarithm."""
    nonzero = gradient != 0
    small = nonzero & (gradient.abs() < math.exp(-p))
    return small.sum().item() / max(1, nonzero.sum().item())
