"""The coordinatewise LSTM optimizer (section 2.1 of the paper), and its global averaging cells.

One small recurrent network proposes the update of every coordinate. Weights are shared, hidden
states are not, so it can be applied to any number of coordinates in any order. With global
averaging cells (appendix D) the coordinates of one function tell each other a few means.
"""

import math
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from l2lgd.errors import ConfigError
from l2lgd.kernels import coordinatewise as kernel
from l2lgd.optimizers.base import (
    Cotangents,
    LearnedRule,
    coordinate_blocks,
    map_state,
    tensors_of,
)
from l2lgd.optimizers.initial_weights import truncated_normal
from l2lgd.optimizers.observation import Observation
from l2lgd.optimizers.preprocessing import PREPROCESSINGS, clipped_share, preprocess, slopes

OUTPUTS = {"linear": 1, "exponential": 2}  # and how many numbers the last layer gives
BACKENDS = ("auto", "torch")
LARGEST_P = 80.0  # e^p is still finite in float32
LARGEST_EXPONENT = 20.0  # of an exponential output


class LSTMState(NamedTuple):
    """One tensor a layer. Coordinates come last, so that each gate is one contiguous piece."""

    hidden: tuple[Tensor, ...]  # L × (H, B·n)
    cell: tuple[Tensor, ...]  # L × (H, B·n)


class CoordinatewiseLSTM(LearnedRule[LSTMState]):
    """A forget-gate LSTM of a few units, then a linear layer to one number a coordinate.

    Args:
        num_layers, hidden_size: the paper has 2 layers of 20 units.
        preprocessing: ``log_sign`` (appendix A) or ``none``.
        p: the p of appendix A.
        output_scale: constant that the output is multiplied with.
        forget_bias: added to the forget gate's input, not trained.
        initial_output: factor on the initial weights of the output layer; small values start
            with small updates.
        averaging_cells: so many units of each layer, the first ones, hand out the mean of their
            outgoing activations over the coordinates of a function, to the next layer and to
            their own layer's next step; their cells are not averaged.
        output: ``linear``, or ``exponential``: the last layer gives a second number o, zero at
            first, that the update is multiplied with e^o by, so that it can be precise at any size.
        backend: ``auto`` runs rollout and replay in compiled code where that can be had, ``torch``
            never; the numbers are the same to rounding.
    """

    smooths = True

    def __init__(
        self,
        num_layers: int = 2,
        hidden_size: int = 20,
        preprocessing: str = "log_sign",
        p: float = 10.0,
        output_scale: float = 0.1,
        forget_bias: float = 1.0,
        initial_output: float = 1.0,
        backend: str = "auto",
        averaging_cells: int = 0,
        output: str = "linear",
    ) -> None:
        super().__init__()
        if preprocessing not in PREPROCESSINGS:
            raise ConfigError(
                f"preprocessing={preprocessing}: choose one of {', '.join(PREPROCESSINGS)}"
            )
        if output not in OUTPUTS:
            raise ConfigError(f"output={output}: choose one of {', '.join(OUTPUTS)}")
        if backend not in BACKENDS:
            raise ConfigError(f"backend={backend}: choose one of {', '.join(BACKENDS)}")
        if min(num_layers, hidden_size) < 1:
            raise ConfigError("num_layers and hidden_size must be at least 1")
        if not 0 <= averaging_cells <= hidden_size:
            raise ConfigError(
                f"averaging_cells={averaging_cells}: must be from 0 to hidden_size={hidden_size}"
            )
        if not 0 < p <= LARGEST_P:
            raise ConfigError(f"p={p}: must be positive, and at most {LARGEST_P:g}")
        if output_scale <= 0:
            raise ConfigError(f"output_scale={output_scale}: must be positive")
        self.num_layers, self.hidden_size = num_layers, hidden_size
        self.preprocessing, self.p = preprocessing, p
        self.output_scale, self.forget_bias = output_scale, forget_bias
        self.initial_output, self.backend = initial_output, backend
        self.averaging_cells, self.output = averaging_cells, output
        self._settings = kernel.Settings(
            num_layers, hidden_size, preprocessing, p, output_scale, forget_bias
        )
        features = PREPROCESSINGS[preprocessing]
        self.weights = nn.ParameterList(  # gates in the order input, forget, output, candidate
            torch.empty(4 * hidden_size, (hidden_size if k else features) + hidden_size)
            for k in range(num_layers)
        )
        self.biases = nn.ParameterList(torch.empty(4 * hidden_size) for _ in range(num_layers))
        self.output_weight = nn.Parameter(torch.empty(OUTPUTS[output], hidden_size))
        self.output_bias = nn.Parameter(torch.empty(OUTPUTS[output]))
        self.reset_parameters(torch.Generator().manual_seed(0))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Truncated normal of standard deviation 1/√fan-in, biases zero (the authors' library)."""
        for weight in (*self.weights, self.output_weight):
            truncated_normal(weight, 1 / math.sqrt(weight.shape[1]), generator)
        self.output_weight[0].mul_(self.initial_output)
        self.output_weight[1:].zero_()
        for bias in (*self.biases, self.output_bias):
            bias.zero_()

    @torch.no_grad()
    def scale_updates(self, factor: float) -> None:
        self.output_weight[0].mul_(factor)
        self.output_bias[0].mul_(factor)

    def initial_state(self, parameters: Tensor) -> LSTMState:
        zeros = parameters.new_zeros(self.hidden_size, parameters.numel())
        return LSTMState((zeros,) * self.num_layers, (zeros,) * self.num_layers)

    def step(
        self, gradient: Tensor, state: LSTMState, width: Tensor | None = None
    ) -> tuple[Tensor, LSTMState]:
        compiled = None if torch.is_grad_enabled() else self._kernel(gradient, state)
        if compiled is not None:
            flat = gradient.reshape(-1).contiguous().resolve_neg()
            update, following = compiled.step(self._settings, self._phi(), flat, state)
            return update.view_as(gradient), LSTMState(*following)
        activation, following = self._recur(self._features(gradient, width), state, gradient.shape)
        return self._update(activation).view_as(gradient), following

    def step_in_place(
        self, gradient: Tensor, state: LSTMState, seen: Observation | None = None
    ) -> Tensor:
        if self._kernel(gradient, state) is not kernel:
            return super().step_in_place(gradient, state, seen)
        apart = state.hidden[0].dim() == 3  # views, a function at a time
        rows = list(gradient) if apart else [gradient.reshape(-1)]
        phi, updates = self._phi(), []
        for b, row in enumerate(rows):
            part = LSTMState(*(tuple(t[:, b] for t in ts) for ts in state)) if apart else state
            flat = row.contiguous().resolve_neg()
            updates.append(kernel.step(self._settings, phi, flat, part, in_place=True)[0])
        return torch.stack(updates).view_as(gradient)

    @property
    def takes_views(self) -> bool:
        return self._kernel() is kernel

    def _recur(
        self, activation: Tensor, state: LSTMState, shape: torch.Size
    ) -> tuple[Tensor, LSTMState]:
        """All layers, for features (F, B·n); the top activation (H, B·n) and the next state."""
        hidden, cell = [], []
        for weight, bias, h, c in zip(self.weights, self.biases, *state, strict=True):
            stacked = torch.cat((activation, h))
            gates = torch.addmm(bias.unsqueeze(1), weight, stacked)  # (4H, B·n)
            activation, c = self._cell(gates, c)
            activation = self._averaged(activation, shape)
            hidden.append(activation)
            cell.append(c)
        return activation, LSTMState(tuple(hidden), tuple(cell))

    def _update(self, activation: Tensor) -> Tensor:
        """(H, B·n) → (1, B·n)"""
        output = torch.addmm(self.output_bias.unsqueeze(1), self.output_weight, activation)
        if self.output == "exponential":
            output = output[:1] * output[1:].clamp(max=LARGEST_EXPONENT).exp()
        return self.output_scale * output

    def _averaged(self, activation: Tensor, shape: torch.Size) -> Tensor:
        """(H, B·n), averaging cells with their means over the n coordinates of each function."""
        if not self.averaging_cells:
            return activation
        shared = activation[: self.averaging_cells].view(-1, *shape)
        means = shared.mean(2, keepdim=True).expand_as(shared).flatten(1)
        return torch.cat((means, activation[self.averaging_cells :]))

    def _features(self, gradient: Tensor, width: Tensor | None) -> Tensor:
        """(B, n) → (F, B·n)"""
        flat_width = None if width is None else width.reshape(-1)
        return preprocess(gradient.reshape(-1), self.preprocessing, self.p, flat_width)

    def _cell(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """LSTM arithmetic on (4H, N) and (H, N); returns the outgoing activation and the cell."""
        i, f, o, candidate = gates.split(self.hidden_size)
        c = torch.sigmoid(f + self.forget_bias) * c + torch.sigmoid(i) * _tanh(candidate)
        return torch.sigmoid(o) * _tanh(c), c

    def vector_jacobian_product(
        self,
        gradients: Tensor,
        state: LSTMState,
        cotangents: Tensor,
        seen: Sequence[Observation] = (),
    ) -> Sequence[Tensor]:
        compiled = self._kernel()
        if compiled is None:
            return super().vector_jacobian_product(gradients, state, cotangents, seen)
        phi = self._phi()
        total = torch.zeros_like(phi)
        arrays = (part.flatten(1).contiguous() for part in (gradients, cotangents))
        compiled.replay(self._settings, phi, *arrays, state, total)
        return self._per_weight(total)

    def step_back(
        self,
        gradient: Tensor,
        state: LSTMState,
        cotangent: Tensor,
        state_cotangent: LSTMState | None,
        width: Tensor | None = None,
        seen: Observation | None = None,
    ) -> Cotangents[LSTMState]:
        compiled = self._kernel()
        if compiled is None:
            return super().step_back(gradient, state, cotangent, state_cotangent, width, seen)
        phi = self._phi()
        total = torch.zeros_like(phi)
        d_state = state_cotangent or map_state(torch.zeros_like, state)
        flat = [part.reshape(-1).contiguous() for part in (gradient, cotangent)]
        d_features = compiled.step_back(self._settings, phi, *flat, state, d_state, total)
        # The kernel ends at the features, each of which depends on its own gradient alone.
        flat_width = None if width is None else width.reshape(-1)
        d_gradient = (d_features * slopes(flat[0], self.preprocessing, self.p, flat_width)).sum(0)
        return Cotangents(self._per_weight(total), d_gradient.view_as(gradient), d_state)

    def blocks(self, num_functions: int, n: int, size: int) -> list[tuple[slice, slice]]:
        if not self.coordinatewise or self._kernel() is not None:  # which cuts its work itself
            return super().blocks(num_functions, n, size)
        return coordinate_blocks(num_functions, n, size)

    @property
    def coordinatewise(self) -> bool:
        """Unless they share information, when neither blocks nor the kernels will do."""
        return self.averaging_cells == 0

    def implementation(self) -> str:
        compiled = self._kernel()
        return super().implementation() if compiled is None else compiled.LANGUAGE

    def _kernel(
        self, gradient: Tensor | None = None, state: LSTMState | None = None
    ) -> ModuleType | None:
        """The compiled form of this network for its device, where that can be had."""
        weight = self.output_weight
        if gradient is not None and not all(map(kernel.can_read, (gradient, *tensors_of(state)))):
            return None
        if self.backend != "auto" or not self.coordinatewise or self.output != "linear":
            return None
        if weight.device.type == "cpu":
            return kernel if kernel.is_available() else None
        if weight.device.type == "cuda" and weight.dtype == torch.float32:
            from l2lgd.kernels import coordinatewise_triton

            return coordinatewise_triton if coordinatewise_triton.fits(self._settings) else None
        return None

    def _in_kernel_order(self) -> list[nn.Parameter]:
        layers = zip(self.weights, self.biases, strict=True)
        return [*(part for layer in layers for part in layer), self.output_weight, self.output_bias]

    def _per_weight(self, flat: Tensor) -> list[Tensor]:
        """The parts of a tensor like the flat φ of the kernel, in the order of parameters()."""
        weights = self._in_kernel_order()
        by_tensor = dict(zip(weights, kernel.unflatten(flat, weights), strict=True))
        return [by_tensor[weight] for weight in self.parameters()]

    def _phi(self) -> Tensor:
        return torch.cat([weight.detach().reshape(-1) for weight in self._in_kernel_order()])

    def input_statistics(self, gradient: Tensor) -> dict[str, float]:
        if self.preprocessing == "none":
            return {}
        return {"clipped_inputs": clipped_share(gradient, self.p)}


def _tanh(x: Tensor) -> Tensor:
    """tanh(x) = 2σ(2x) − 1: PyTorch's vectorized sigmoid is a third of the cost of its tanh."""
    return 2 * torch.sigmoid(2 * x) - 1
