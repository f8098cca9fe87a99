"""Hand-designed optimizers: PyTorch's own, run on the stacked parameters."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import TunedOptimizer


class TorchState(NamedTuple):
    """The state is changed in place by a step, so each one may be used once."""

    parameters: Tensor  # (B, n), θ_t as PyTorch's optimizer has it
    optimizer: torch.optim.Optimizer


class HandDesigned(TunedOptimizer):
    """An optimizer of ``torch.optim`` that treats every coordinate alike and apart.

    ``HandDesigned("SGD", 0.1, {"momentum": 0.9, "nesterov": True})`` is the NAG of the paper:
    PyTorch keeps the look-ahead point as the parameter, so the loss is the one there.

    Args:
        algorithm: a class of ``torch.optim``; elementwise, as all B functions share a tensor.
        learning_rate: None until it is tuned.
        arguments: further arguments of that class.

    Raises:
        ConfigError: no such class, or it does not take these arguments.
    """

    def __init__(
        self,
        algorithm: str,
        learning_rate: float | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        kind = getattr(torch.optim, algorithm, None)
        if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
            raise ConfigError(f"algorithm={algorithm}: torch.optim has no such optimizer")
        super().__init__(learning_rate)
        self.algorithm = kind
        self.arguments = dict(arguments or {})
        try:
            whole, apart = self._two_steps(slice(0, 2)), self._two_steps(slice(0, 1))
        # Each class has its own ways of refusing arguments, shapes or a step without a closure.
        except Exception as error:
            raise ConfigError(f"algorithm={algorithm}: {' '.join(str(error).split())}") from error
        if not torch.equal(whole[:1, :1], apart):
            raise ConfigError(
                f"algorithm={algorithm}: coordinates are not treated apart, so functions that are "
                "stacked would influence each other"
            )

    def _two_steps(self, part: slice) -> Tensor:
        """Where two steps lead from zero, for a part of a stack of two functions."""
        gradient = torch.tensor([[1.0, -2.0], [3.0, 0.5]])[part, part]
        parameters = torch.zeros_like(gradient)
        optimizer = self.algorithm([parameters], lr=self.learning_rate or 0.1, **self.arguments)
        for _ in range(2):
            parameters.grad = gradient.clone()
            optimizer.step()
        return parameters

    def initial_state(self, parameters: Tensor) -> TorchState:
        rate = self.tuned_rate()
        own = parameters.detach().clone()
        return TorchState(own, self.algorithm([own], lr=rate, **self.arguments))

    def step(self, gradient: Tensor, state: TorchState) -> tuple[Tensor, TorchState]:
        before = state.parameters.clone()
        state.parameters.grad = gradient
        state.optimizer.step()
        return state.parameters - before, state
