"""The contract between an optimizer, learned or hand-designed, and everything else.

An optimizer is a function (gradient (B, n), state) → (update (B, n), state) with an initial state.
The update is added to the parameters: θ_{t+1} = θ_t + g_t.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Self, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from l2lgd.errors import ConfigError

BLOCK_SIZE = 16384  # coordinates; bounds the memory of a replay, whatever n is
State: TypeAlias = Tensor | tuple["State", ...]  # nobody but its optimizer looks inside
StateT = TypeVar("StateT")  # an optimizer's own: a tensor, or nested (named) tuples of them


class Optimizer(ABC, Generic[StateT]):
    """What proposes the updates of B stacked optimizees."""

    differentiable = True  # are its states tensors, and its steps differentiable by autograd?

    @property
    def coordinatewise(self) -> bool:
        """Is every coordinate treated apart, so that any of them can be stepped alone?"""
        return False

    @abstractmethod
    def initial_state(self, parameters: Tensor) -> StateT:
        """The state before the first step.

        Args:
            parameters: θ_0 (B, n); its device and type are those of the state.

        Returns:
            A tensor, or nested (named) tuples of tensors, as ``torch.zeros_like(parameters)`` for
            a momentum.
        """

    @abstractmethod
    def step(
        self, gradient: Tensor, state: StateT, width: Tensor | None = None
    ) -> tuple[Tensor, StateT]:
        """One step. It changes neither its arguments nor the optimizer.

        Momentum, for example, is
        ``state = 0.9 * state + gradient; return -0.1 * state, state``.

        Args:
            gradient: ∇_t (B, n).
            state: h_t, as the step before has returned it.
            width: (B, n), or None. Where it is given, the derivative with respect to ∇_t is an
                average over gradients about as far away, as the true one is too steep to be of
                use; the values are the same. An optimizer may ignore it.

        Returns:
            The update g_t (B, n), which is added to θ_t, and the next state h_{t+1}.
        """

    @property
    def takes_views(self) -> bool:
        """May the tensors that :meth:`step_in_place` gets be views of larger ones?

        Dimensions that are multiples of B·n are then (B, n), strided if they are the last.
        """
        return False

    def step_in_place(self, gradient: Tensor, state: StateT) -> Tensor:
        """The update of :meth:`step`; the next state is written over ``state``. Has no graph."""
        update, following = self.step(gradient, state)
        for kept, new in zip(tensors_of(state), tensors_of(following), strict=True):
            kept.copy_(new)
        return update

    def named(self, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        """The optimizer for coordinates that are parameter tensors of these names and shapes.

        It is this one by default: right for any optimizer that treats all tensors alike.
        """
        return self

    def phi(self) -> list[nn.Parameter]:
        """φ, what meta-training changes; none by default."""
        return []

    def blocks(self, num_functions: int, n: int, size: int) -> list[tuple[slice, slice]]:
        """Parts (functions, coordinates) that can be optimized apart, of at most ``size`` numbers.

        Whole by default: right for any optimizer. One that treats coordinates separately can
        return :func:`coordinate_blocks` and is then run one block at a time.
        """
        return [(slice(0, num_functions), slice(0, n))]

    def step_back(
        self,
        gradient: Tensor,
        state: StateT,
        cotangent: Tensor,
        state_cotangent: StateT | None,
        width: Tensor | None = None,
    ) -> tuple[Sequence[Tensor], Tensor, StateT]:
        """The vector–Jacobian product of one step with respect to all that it depends on.

        Args:
            gradient, state, width: as for :meth:`step`.
            cotangent: ∂L/∂g_t (B, n).
            state_cotangent: ∂L/∂h_{t+1}, a state; None where it is zero. It may be written over.

        Returns:
            ∂L/∂φ for each weight, ∂L/∂∇_t (B, n) and ∂L/∂h_t, through this step.
        """
        with torch.enable_grad():
            # Leaves of a graph of this step alone: what is returned is handed to the step before.
            gradient = gradient.detach().requires_grad_()
            state = map_state(lambda part: part.detach().requires_grad_(), state)
            update, following = self.step(gradient, state, width)
            outputs, cotangents = [update], [cotangent]
            if state_cotangent is not None:
                outputs += tensors_of(following)
                cotangents += tensors_of(state_cotangent)
            phi, before = self.phi(), tensors_of(state)
            differentiable = [k for k, output in enumerate(outputs) if output.requires_grad]
            found = torch.autograd.grad(
                [outputs[k] for k in differentiable],  # a count of steps, for one, is not
                [*phi, gradient, *before],
                [cotangents[k] for k in differentiable],
                materialize_grads=True,
            )
        return found[: len(phi)], found[len(phi)], like_state(state, found[len(phi) + 1 :])

    def input_statistics(self, gradient: Tensor) -> dict[str, float]:
        """Numbers about the inputs (…, B, n) that tell why a meta-training is stuck."""
        return {}


class TunedOptimizer(Optimizer[StateT]):
    """An optimizer with one learning rate, which is tuned for each problem.

    Args:
        learning_rate: None until it is tuned.

    Raises:
        ConfigError: it is not positive.
    """

    def __init__(self, learning_rate: float | None) -> None:
        if learning_rate is not None and not learning_rate > 0:
            raise ConfigError(f"learning_rate={learning_rate}: must be positive")
        self.learning_rate = learning_rate

    def tuned_rate(self) -> float:
        """The learning rate; ConfigError where there is none yet."""
        if self.learning_rate is None:
            raise ConfigError("learning_rate is not set: tune it first or give opt.learning_rate=")
        return self.learning_rate


class LearnedRule(nn.Module, Optimizer[StateT]):
    """A rule: an optimizer m with weights φ, [g_t; h_{t+1}] = m(∇_t, h_t, φ) in the paper."""

    def phi(self) -> list[nn.Parameter]:
        return list(self.parameters())

    @abstractmethod
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the initial φ, in place.

        ``torch.nn.init.trunc_normal_(self.weight, std=0.1, generator=generator)``, for example;
        the same generator gives the same φ.

        Args:
            generator: on the CPU, the only source of randomness.
        """

    def scale_updates(self, factor: float) -> None:
        """Change φ such that every update is ``factor`` times what it would have been.

        Raises:
            ConfigError: this optimizer has no way to.
        """
        raise ConfigError(f"{type(self).__name__} has no weights that all its updates scale with")

    def vector_jacobian_product(
        self, gradients: Tensor, state: StateT, cotangents: Tensor
    ) -> Sequence[Tensor]:
        """Σ_t ⟨∂L/∂g_t, ∂g_t/∂φ⟩ for each weight, through the recurrence.

        Args:
            gradients: ∇_0 … ∇_{U−1} (U, B, n), constants.
            state: before the first of these steps, a constant.
            cotangents: ∂L/∂g_0 … ∂L/∂g_{U−1} (U, B, n).
        """
        updates = []
        with torch.enable_grad():
            for gradient in gradients:
                update, state = self.step(gradient, state)
                updates.append(update)
            weights = self.phi()
            return torch.autograd.grad(updates, weights, list(cotangents), materialize_grads=True)

    def implementation(self) -> str:
        """What runs :meth:`step` and its products with the Jacobian, for the log."""
        return "PyTorch"


def map_state(function: Callable[[Tensor], Tensor], state: StateT) -> StateT:
    """A state, a tensor or nested tuples of them, with ``function`` applied to each tensor."""
    known: Any = state  # of a type that only its optimizer knows
    if isinstance(known, Tensor):
        return function(known)  # type: ignore[return-value]
    parts = [map_state(function, part) for part in known]
    made: StateT = type(known)(*parts) if hasattr(known, "_fields") else type(known)(parts)
    return made


def like_state(state: StateT, tensors: Iterable[Tensor]) -> StateT:
    """A state of these tensors, in the order of :func:`tensors_of`."""
    rest = iter(tensors)
    return map_state(lambda _: next(rest), state)


def tensors_of(state: Any) -> list[Tensor]:
    """The tensors of a state, in the order of :func:`map_state`."""
    if isinstance(state, Tensor):
        return [state]
    return [tensor for part in state for tensor in tensors_of(part)]


def coordinate_blocks(num_functions: int, n: int, size: int) -> list[tuple[slice, slice]]:
    """Cut (B, n) into rectangles of at most ``size`` coordinates, whole functions if they fit."""
    rows = max(1, size // n)
    columns = min(n, size)
    return [
        (slice(b, min(b + rows, num_functions)), slice(i, min(i + columns, n)))
        for b in range(0, num_functions, rows)
        for i in range(0, n, columns)
    ]
