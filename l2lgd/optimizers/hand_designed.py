"""Hand-designed optimizers: PyTorch's own, run on the stacked parameters."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from l2lgd.errors import ConfigError, one_line
from l2lgd.optimizers.base import Cotangents, TunedOptimizer
from l2lgd.optimizers.library import LibraryOptimizer
from l2lgd.optimizers.observation import Observation


class TorchState(NamedTuple):
    """Before a step."""

    parameters: Tensor  # (B, n), θ_t as PyTorch's optimizer has it
    steps: Tensor  # steps done, (), on the CPU
    moments: tuple[Tensor, ...]  # what PyTorch's optimizer keeps


class HandDesigned(TunedOptimizer[TorchState]):
    """An optimizer of ``torch.optim`` that treats every coordinate alike and apart.

    ``HandDesigned("SGD", 0.1, {"momentum": 0.9, "nesterov": True})`` is the NAG of the paper:
    PyTorch keeps the look-ahead point as the parameter, so the loss is the one there.

    Args:
        algorithm: a class of ``torch.optim``; elementwise, as all B functions share a tensor.
            :class:`~l2lgd.optimizers.library.LibraryOptimizer` takes the others, too.
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
            self._moments = list(self._kept(torch.zeros(1, 1), torch.ones(1, 1)))
            self._starts_at_zero = self._first_step(at_zero=True).equal(self._first_step(False))
        except OSError:  # PyTorch's imports want a temporary folder
            raise
        # Each class has its own ways of refusing arguments, shapes or a step without a closure.
        except Exception as error:
            raise ConfigError(f"algorithm={algorithm}: {self._refused(error)}") from error
        if not torch.equal(whole[:1, :1], apart):
            raise ConfigError(
                f"algorithm={algorithm}: coordinates are not treated apart, so functions that are "
                f"stacked would influence each other; take opt=torch opt.algorithm={algorithm}"
            )

    def _refused(self, error: Exception) -> str:
        """Why a class does not run, and what it runs with where that is so."""
        name = self.algorithm.__name__
        try:
            LibraryOptimizer(name, arguments=self.arguments)
        except ConfigError:
            return one_line(error)
        return (
            "it does not treat every coordinate alike and apart by its gradient, as is needed "
            f"here; take opt=torch opt.algorithm={name}, which runs it"
        )

    @property
    def coordinatewise(self) -> bool:
        return True

    @torch.no_grad()
    def _two_steps(self, part: slice) -> Tensor:
        """Where two steps lead from zero, for a part of a stack of two functions."""
        gradient = torch.tensor([[1.0, -2.0], [3.0, 0.5]])[part, part]
        parameters = torch.zeros_like(gradient)
        moments = None
        for _ in range(2):
            moments = self._kept(parameters, gradient.clone(), moments)
        return parameters

    @torch.no_grad()
    def _first_step(self, at_zero: bool) -> Tensor:
        """Where it leads from zero; is it the same when all moments are zero before it?"""
        parameters, gradient = torch.zeros(1, 2), torch.tensor([[1.0, -2.0]])
        moments = None
        if at_zero:
            shown = self._kept(parameters.clone(), gradient.clone())
            moments = {name: torch.zeros_like(value) for name, value in shown.items()}
        self._kept(parameters, gradient, moments)
        return parameters

    def initial_state(self, parameters: Tensor) -> TorchState:
        self.tuned_rate()  # fails now rather than in the first step
        # PyTorch makes moments in the first step. One for show tells which there are.
        with torch.no_grad():
            shown = self._kept(parameters.detach().clone(), torch.zeros_like(parameters))
        moments = tuple(torch.zeros_like(value) for value in shown.values())
        return TorchState(parameters.detach(), torch.zeros(()), moments)

    def step(
        self, gradient: Tensor, state: TorchState, width: Tensor | None = None
    ) -> tuple[Tensor, TorchState]:
        own = state.parameters.clone()
        if own.requires_grad:
            own.retain_grad()  # PyTorch's optimizer refuses it otherwise
        moments = None
        if state.steps or self._starts_at_zero:
            moments = dict(zip(self._moments, state.moments, strict=True))
        kept = self._kept(own, gradient, moments)
        return own - state.parameters, TorchState(own, state.steps + 1, tuple(kept.values()))

    def step_back(
        self,
        gradient: Tensor,
        state: TorchState,
        cotangent: Tensor,
        state_cotangent: TorchState | None,
        width: Tensor | None = None,
        seen: Observation | None = None,
    ) -> Cotangents[TorchState]:
        found = super().step_back(gradient, state, cotangent, state_cotangent, width)
        d_state = found.state
        # A coordinate that never had a gradient: the root of its mean square has no derivative.
        moments = zip(state.moments, d_state.moments, strict=True)
        d_moments = tuple(_where_there_is_one(*pair) for pair in moments)
        d_gradient = _where_there_is_one(gradient, found.gradient)
        return found._replace(gradient=d_gradient, state=d_state._replace(moments=d_moments))

    def _kept(
        self, parameters: Tensor, gradient: Tensor, moments: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Do a step in place; the moments after it, by name."""
        arguments = {**self.arguments, "lr": self.learning_rate or 0.1}
        if torch.is_grad_enabled():
            arguments["differentiable"] = True
        optimizer = self.algorithm([parameters], **arguments)
        if moments is not None:
            own = {name: m.clone() for name, m in moments.items()}
            if "step" in own:  # a count: PyTorch takes powers to it, and wants no derivative
                own["step"] = own["step"].detach().to(parameters.dtype)
            optimizer.state[parameters] = own
        parameters.grad = gradient
        optimizer.step()
        kept = optimizer.state[parameters].items()
        return {name: value for name, value in sorted(kept) if isinstance(value, Tensor)}


def _where_there_is_one(value: Tensor, derivative: Tensor) -> Tensor:
    """``derivative`` by ``value``, zero where the value is zero and there is none."""
    return torch.where((value == 0) & ~derivative.isfinite(), 0.0, derivative)
