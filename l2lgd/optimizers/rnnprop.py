"""RNNprop: an LSTM that sees gradients in the scale of their running moments.

Lv, Jiang and Li, Learning gradient descent: better generalization and longer horizons, 2017.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from l2lgd.optimizers.base import LearnedRule
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM, LSTMState
from l2lgd.optimizers.initial_weights import truncated_normal
from l2lgd.optimizers.observation import Observation

INPUTS = 2  # g / √v̂ and m̂ / √v̂
INITIAL_STD = 0.1  # of the weights of both linear layers


class RNNpropState(NamedTuple):
    """Of B functions of n coordinates."""

    first: Tensor  # m, running mean of gradients (B, n)
    second: Tensor  # v, of their squares (B, n)
    recurrent: LSTMState


class RNNprop(CoordinatewiseLSTM):
    """A linear layer with ELU, LSTMs, and a linear layer whose tanh bounds the update.

    The inputs are g/S and m̂/S, with S = √(v̂ + ε²) and moments without bias; so the update does not
    depend on the scale of the gradients. (The authors' S is √v̂ + ε, which has no derivative at
    zero.) g_t = −output_scale · tanh(a).

    Args:
        num_layers, hidden_size: the paper has 2 layers of 20 units.
        output_scale: the largest update.
        decay: β of both moments.
        epsilon: ε.
        forget_bias: added to the forget gate's input, not trained.
    """

    observes = ("step",)
    smooths = False

    def __init__(
        self,
        num_layers: int = 2,
        hidden_size: int = 20,
        output_scale: float = 0.1,
        decay: float = 0.95,
        epsilon: float = 1e-8,
        forget_bias: float = 1.0,
    ) -> None:
        super().__init__(
            num_layers,
            hidden_size,
            preprocessing="none",
            output_scale=output_scale,
            forget_bias=forget_bias,
            backend="torch",  # the compiled network has no layer before the first LSTM
        )
        self.decay, self.epsilon = decay, epsilon
        self.weights[0] = nn.Parameter(torch.empty(4 * hidden_size, 2 * hidden_size))
        self.input_weight = nn.Parameter(torch.empty(hidden_size, INPUTS))
        self.input_bias = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters(torch.Generator().manual_seed(0))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        super().reset_parameters(generator)
        if not hasattr(self, "input_weight"):  # not yet
            return
        for weight in (self.input_weight, self.output_weight):
            truncated_normal(weight, INITIAL_STD, generator)
        self.input_bias.zero_()

    def scale_updates(self, factor: float) -> None:
        LearnedRule.scale_updates(self, factor)  # has no way to: they are bounded

    # The state is another one than that of the LSTM, which is why types are ignored.
    def initial_state(self, parameters: Tensor) -> RNNpropState:  # type: ignore[override]
        zeros = torch.zeros_like(parameters)
        return RNNpropState(zeros, zeros, super().initial_state(parameters))

    def step(  # type: ignore[override]
        self,
        gradient: Tensor,
        state: RNNpropState,
        width: Tensor | None = None,
        seen: Observation | None = None,
    ) -> tuple[Tensor, RNNpropState]:
        assert seen is not None
        first = torch.lerp(state.first, gradient, 1 - self.decay)
        second = torch.lerp(state.second, gradient.square(), 1 - self.decay)
        unbiased = 1 - self.decay**seen.number
        size = (second / unbiased + self.epsilon**2).sqrt()
        inputs = torch.stack((gradient / size, first / (unbiased * size))).flatten(1)  # (2, B·n)
        projected = torch.addmm(self.input_bias.unsqueeze(1), self.input_weight, inputs)
        activation, recurrent = self._recur(
            nn.functional.elu(projected), state.recurrent, gradient.shape
        )
        output = torch.addmm(self.output_bias.unsqueeze(1), self.output_weight, activation)
        update = -self.output_scale * output.tanh()
        return update.view_as(gradient), RNNpropState(first, second, recurrent)
