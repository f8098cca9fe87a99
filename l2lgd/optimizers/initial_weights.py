"""How the weights of rules are drawn."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def truncated_normal(weight: Tensor, std: float, generator: torch.Generator) -> None:
    """Fill ``weight``, of whatever type and device, with numbers within two of ``std``."""
    drawn = torch.empty(weight.shape)
    nn.init.trunc_normal_(drawn, std=std, a=-2 * std, b=2 * std, generator=generator)
    weight.copy_(drawn)
