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


def preprocess(gradient: Tensor, kind: str, p: float) -> Tensor:
    """Features (F, …) of a gradient (…); kind is a key of :data:`PREPROCESSINGS`."""
    return log_sign(gradient, p) if kind == "log_sign" else gradient.unsqueeze(0)


def clipped_share(gradient: Tensor, p: float) -> float:
    """Share of the non-zero entries that :func:`log_sign` treats as too small for a logarithm."""
    nonzero = gradient != 0
    small = nonzero & (gradient.abs() < math.exp(-p))
    return small.sum().item() / max(1, nonzero.sum().item())
