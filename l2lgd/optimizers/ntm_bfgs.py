"""NTM-BFGS and NTM-L-BFGS: an LSTM that reads and writes a matrix (appendix D of the paper).

BFGS multiplies the gradient with a matrix and changes that matrix by a low rank. Here a controller,
the coordinatewise LSTM with global averaging cells, decides which vectors are multiplied (read
heads) and which outer products are added (write heads). The paper publishes neither a result nor
the numbers of heads it used; what it leaves open is chosen here:

* Outer products are divided by n (``write_scale=mean``), so that each product with the memory is a
  mean over coordinates, as an averaging cell is, and nothing depends on n.
* The memory begins as the identity, and the left vectors of all writes as zero. So meta-training
  begins at the LSTM with averaging cells, and moves from there because the right vectors are not.
* What was read is handed to the controller as it is (``read_preprocessing=none``), for the
  controller decides how large the vector was that it had multiplied: a number of the size of an
  activation, where gradients span many orders. The features of appendix A would be steep, e^p,
  where a product passes through zero, and unlike the gradient's their slope counts.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from l2lgd.errors import ConfigError
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM, LSTMState
from l2lgd.optimizers.memory import Dense, Factored, Memory, MemoryState
from l2lgd.optimizers.preprocessing import PREPROCESSINGS, preprocess

MEMORIES = ("dense", "factored")
WRITE_SCALES = ("mean", "sum")
INITIAL_HEADS = 0.1  # standard deviation of the heads' initial weights, times √H


class NTMState(NamedTuple):
    """Before a step."""

    controller: LSTMState
    read: Tensor  # r_t, what is to be multiplied, (R, B, n)
    memory: MemoryState


class NTMBFGS(CoordinatewiseLSTM):
    """The controller's LSTM, heads, and a memory.

    In a step the memory is multiplied with the read vectors of the step before; features of the
    gradient and of these products go through the LSTM; its top activation gives the update, the
    next read vectors, and the pairs that are written.

    Args:
        num_layers … output: as for :class:`CoordinatewiseLSTM`.
        memory: ``dense``, O(n²) time and memory a step, or ``factored``, O(n), which is NTM-L-BFGS.
        read_heads, write_heads: R and W; 1 and 3 suffice for BFGS.
        history: steps whose pairs a factored memory keeps.
        write_scale: ``mean`` divides outer products by n, ``sum`` is the paper's text.
        read_preprocessing: of what was read, ``none`` or ``log_sign``.
        read_gradient: one more product, M∇ of the same step, preprocessed like gradients; this is
            the read of BFGS itself.
        multiply_update: the update is M g instead of g, as that of BFGS is a product.
    """

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
        averaging_cells: int = 5,
        output: str = "linear",
        memory: str = "dense",
        read_heads: int = 1,
        write_heads: int = 3,
        history: int = 10,
        write_scale: str = "mean",
        read_preprocessing: str = "none",
        read_gradient: bool = False,
        multiply_update: bool = False,
    ) -> None:
        for name, value, choices in (
            ("memory", memory, MEMORIES),
            ("write_scale", write_scale, WRITE_SCALES),
            ("read_preprocessing", read_preprocessing, tuple(PREPROCESSINGS)),
        ):
            if value not in choices:
                raise ConfigError(f"{name}={value}: choose one of {', '.join(choices)}")
        for name, number, least in (
            ("read_heads", read_heads, 0),
            ("write_heads", write_heads, 0),
            ("history", history, 1),
        ):
            if number < least:
                raise ConfigError(f"{name}={number}: must be at least {least}")
        super().__init__(
            num_layers,
            hidden_size,
            preprocessing,
            p,
            output_scale,
            forget_bias,
            initial_output,
            backend,
            averaging_cells,
            output,
        )
        self.read_heads, self.write_heads = read_heads, write_heads
        self.write_scale, self.read_preprocessing = write_scale, read_preprocessing
        self.read_gradient, self.multiply_update = read_gradient, multiply_update
        self._memory: Memory = Dense() if memory == "dense" else Factored(history)
        rows, width = self.weights[0].shape
        width += read_heads * PREPROCESSINGS[read_preprocessing]
        width += PREPROCESSINGS[preprocessing] if read_gradient else 0
        self.weights[0] = nn.Parameter(torch.empty(rows, width))
        if read_heads + write_heads:
            self.head_weight = nn.Parameter(torch.empty(self._num_vectors, hidden_size))
            self.head_bias = nn.Parameter(torch.empty(self._num_vectors))
        self.reset_parameters(torch.Generator().manual_seed(0))

    @property
    def _num_vectors(self) -> int:
        return self.read_heads + 2 * self.write_heads

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        super().reset_parameters(generator)
        if not hasattr(self, "head_weight"):  # none, or not yet
            return
        std = INITIAL_HEADS / math.sqrt(self.hidden_size)
        drawn = torch.randn(self.head_weight.shape, generator=generator)
        self.head_weight.copy_(std * drawn)
        self.head_bias.zero_()
        self.head_weight[self.read_heads : self.read_heads + self.write_heads].zero_()

    # The state is another one than that of the controller, which is why types are ignored.
    def initial_state(self, parameters: Tensor) -> NTMState:  # type: ignore[override]
        return NTMState(
            super().initial_state(parameters),
            parameters.new_zeros(self.read_heads, *parameters.shape),
            self._memory.initial(parameters, self.write_heads),
        )

    def step(  # type: ignore[override]
        self, gradient: Tensor, state: NTMState, width: Tensor | None = None
    ) -> tuple[Tensor, NTMState]:
        found = self._memory.read(state.memory, state.read)  # M r, (R, B, n)
        read = preprocess(found.flatten(1), self.read_preprocessing, self.p).flatten(0, 1)
        features = [self._features(gradient, width), read]
        if self.read_gradient:
            features.append(self._features(self._product(state, gradient), width))
        activation, controller = self._recur(torch.cat(features), state.controller, gradient.shape)
        update = self._update(activation).view_as(gradient)
        if self.multiply_update:
            update = self._product(state, update)
        if not self._num_vectors:
            return update, state._replace(controller=controller)
        vectors = torch.addmm(self.head_bias.unsqueeze(1), self.head_weight, activation)
        sizes = (self.read_heads, self.write_heads, self.write_heads)
        reading, left, right = vectors.view(-1, *gradient.shape).split(sizes)
        scale = 1 / gradient.shape[1] if self.write_scale == "mean" else 1.0
        memory = self._memory.write(state.memory, left, right, scale)
        return update, NTMState(controller, reading, memory)

    def _product(self, state: NTMState, vector: Tensor) -> Tensor:
        """M v for a vector v (B, n) of each function."""
        return self._memory.read(state.memory, vector.unsqueeze(0)).squeeze(0)

    @property
    def coordinatewise(self) -> bool:
        return False
