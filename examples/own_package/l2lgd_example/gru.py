"""A coordinatewise GRU, a starting point for a learned optimizer of your own.

Replace the recurrence in ``step``, the weights, and what the constructor takes.
"""

import math

import torch
from torch import Tensor, nn

from l2lgd import ConfigError, LearnedRule, coordinate_blocks, log_sign


class Gru(LearnedRule[Tensor]):
    """One GRU of a few units for every coordinate, then a linear layer to its update.

    Args:
        hidden_size: H, units.
        p: of the preprocessing (appendix A of the paper).
        output_scale: constant that the output is multiplied with.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(self, hidden_size: int = 20, p: float = 10.0, output_scale: float = 0.1) -> None:
        super().__init__()
        if hidden_size < 1 or p <= 0 or output_scale <= 0:
            raise ConfigError("hidden_size, p and output_scale must be positive")
        self.hidden_size, self.p, self.output_scale = hidden_size, p, output_scale
        self.cell = nn.GRUCell(2, hidden_size)
        self.output = nn.Linear(hidden_size, 1)
        self.reset_parameters(torch.Generator().manual_seed(0))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the initial weights: uniform, as PyTorch's."""
        bound = 1 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            drawn = torch.rand(weight.shape, generator=generator)
            weight.copy_(bound * (2 * drawn - 1))

    @property
    def coordinatewise(self) -> bool:
        """Every coordinate goes its own way, so any of them can be stepped alone."""
        return True

    def blocks(self, num_functions: int, n: int, size: int) -> list[tuple[slice, slice]]:
        """Parts that can be optimized apart: then memory does not grow with n."""
        return coordinate_blocks(num_functions, n, size)

    def initial_state(self, parameters: Tensor) -> Tensor:
        """The state before the first step, (B, n, H)."""
        return parameters.new_zeros(*parameters.shape, self.hidden_size)

    def step(
        self, gradient: Tensor, state: Tensor, width: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """∇_t (B, n) and the state → g_t (B, n), which is added to θ_t, and the next state."""
        features = log_sign(gradient.reshape(-1), self.p).T  # (B·n, 2)
        hidden = self.cell(features, state.reshape(-1, self.hidden_size))
        update = self.output_scale * self.output(hidden)
        return update.view_as(gradient), hidden.view_as(state)
