"""The contract between an optimizer, learned or hand-designed, and everything else.

An optimizer is a function (gradient (B, n), state) → (update (B, n), state) with an initial state.
The update is added to the parameters: θ_{t+1} = θ_t + g_t.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Self, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from l2lgd.errors import ConfigError
from l2lgd.optimizers.observation import Observation

BLOCK_SIZE = 16384  # coordinates; bounds the memory of a replay, whatever n is
# Nobody but its optimizer looks inside. A whole number is a count.
State: TypeAlias = Tensor | int | tuple["State", ...] | dict[str, "State"]
StateT = TypeVar("StateT")  # an optimizer's own State, which may have named tuples


class Cotangents(NamedTuple, Generic[StateT]):
    """∂L/∂ all that a step depends on, through this step."""

    weights: Sequence[Tensor]  # one for each of φ
    gradient: Tensor  # (B, n)
    state: StateT  # h_t
    parameters: Tensor | None = None  # (B, n), where θ_t is observed
    loss: Tensor | None = None  # (B,), where f(θ_t) is observed


class Optimizer(ABC, Generic[StateT]):
    """What proposes the updates of B stacked optimizees."""

    differentiable = True  # are its states tensors, and its steps differentiable by autograd?
    smooths = False  # does it heed the ``width`` of a step?
    observes: tuple[str, ...] = ()
    """Fields of an :class:`Observation` that a step needs. Where there are any, :meth:`step`,
    :meth:`step_back` and ``vector_jacobian_product`` get observations as ``seen``. Another name is
    a ConfigError where the optimizer is used."""

    @property
    def coordinatewise(self) -> bool:
        """Is every coordinate treated apart, so that any of them can be stepped alone?"""
        return False

    @property
    def tensorwise(self) -> bool:
        """Is every tensor of parameters treated apart, by its shape, and whole?

        ``LearnedOptimizer`` then turns PyTorch's weights (outputs, inputs, …) into
        (…, inputs, outputs), which is how JAX and our tasks have those of dense layers.
        """
        return False

    @abstractmethod
    def initial_state(self, parameters: Tensor) -> StateT:
        """The state before the first step.

        Args:
            parameters: θ_0 (B, n); its device and type are those of the state.

        Returns:
            A tensor, as ``torch.zeros_like(parameters)`` for a momentum, or tuples, named tuples
            and dicts of tensors and of whole numbers that count something. Tensors need not go
            along the coordinates. Where functions differ in a count, it is a tensor () to a step.
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

    def step_in_place(
        self, gradient: Tensor, state: StateT, seen: Observation | None = None
    ) -> Tensor:
        """The update of :meth:`step`; the next state is written over ``state``. Has no graph.

        The state has no counts.
        """
        update, following = self.step(gradient, state, **given(seen))
        for kept, new in zip(tensors_of(state), tensors_of(following), strict=True):
            kept.copy_(new)
        return update

    def evaluated(self, parameters: Tensor, state: StateT) -> Tensor:
        """Where the loss is reported, and what a user would keep of θ_t: θ_t itself, by default.

        An optimizer that averages, as Schedule-Free does, asks for gradients in one place and
        answers with another. Gradients, and the loss that goes with them, stay those of θ_t.

        Args:
            parameters: θ_t (B, n).
            state: h_t.

        Returns:
            Parameters (B, n), or ``parameters`` itself, which costs nothing.
        """
        return parameters

    def named(self, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        """The optimizer for coordinates that are parameter tensors of these names and shapes.

        It is this one by default: right for any optimizer that treats all tensors alike. Another
        is a shallow copy, of the same weights. ``LearnedOptimizer`` has one for each tensor where
        tensors are treated apart, and hands it all coordinates of its tensors at once.
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
        seen: Observation | None = None,
    ) -> Cotangents[StateT]:
        """The vector–Jacobian product of one step with respect to all that it depends on.

        Args:
            gradient, state, width: as for :meth:`step`.
            cotangent: ∂L/∂g_t (B, n).
            state_cotangent: ∂L/∂h_{t+1}, a state; None where it is zero. It may be written over.
            seen: where the optimizer observes something.
        """
        with torch.enable_grad():
            # Leaves of a graph of this step alone: what is returned is handed to the step before.
            gradient = gradient.detach().requires_grad_()
            state = map_state(_leaf, state)
            seen = None if seen is None else seen.with_leaves()
            update, following = self.step(gradient, state, width, **given(seen))
            outputs, cotangents = [update], [cotangent]
            if state_cotangent is not None:
                outputs += tensors_of(following)
                cotangents += tensors_of(state_cotangent)
            phi, before = self.phi(), [part for part in tensors_of(state) if part.requires_grad]
            observed = [] if seen is None else [seen.parameters, seen.loss]
            differentiable = [k for k, output in enumerate(outputs) if output.requires_grad]
            found = torch.autograd.grad(
                [outputs[k] for k in differentiable],  # a count of steps, for one, is not
                [*phi, gradient, *observed, *before],
                [cotangents[k] for k in differentiable],
                materialize_grads=True,
            )
        d_phi, rest = found[: len(phi)], iter(found[len(phi) :])
        d_gradient, *d_observed = (next(rest) for _ in (gradient, *observed))
        d_state = map_state(lambda p: next(rest) if p.requires_grad else torch.zeros_like(p), state)
        return Cotangents(d_phi, d_gradient, d_state, *d_observed)

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
        self,
        gradients: Tensor,
        state: StateT,
        cotangents: Tensor,
        seen: Sequence[Observation] = (),
    ) -> Sequence[Tensor]:
        """Σ_t ⟨∂L/∂g_t, ∂g_t/∂φ⟩ for each weight, through the recurrence.

        Args:
            gradients: ∇_0 … ∇_{U−1} (U, B, n), constants.
            state: before the first of these steps, a constant.
            cotangents: ∂L/∂g_0 … ∂L/∂g_{U−1} (U, B, n).
            seen: at each step, constants; where the rule observes something.
        """
        updates = []
        with torch.enable_grad():
            for i, gradient in enumerate(gradients):
                update, state = self.step(gradient, state, **given(seen and seen[i]))
                updates.append(update)
            weights = self.phi()
            return torch.autograd.grad(updates, weights, list(cotangents), materialize_grads=True)

    def stacked(self, phi: Sequence[Tensor]) -> Optimizer[Any] | None:
        """The rule with weights of its own for each of P functions, which it steps at once.

        None, by default: it is then vectorised as :class:`~l2lgd.optimizers.vectorised.Vectorised`
        does, which takes longer.

        Args:
            phi: φ_1 … φ_P, for each of :meth:`phi` a tensor (P, *shape).

        Returns:
            An optimizer whose states have the functions as their first dimension.
        """
        return None

    def implementation(self) -> str:
        """What runs :meth:`step` and its products with the Jacobian, for the log."""
        return "PyTorch"


def given(seen: Observation | Sequence[Observation] | None) -> dict[str, Any]:
    """How observations are handed to an optimizer, which need not know of them."""
    return {"seen": seen} if seen else {}


def given_part(seen: Observation | None, block: tuple[slice, slice]) -> dict[str, Any]:
    """The same, of a block of coordinates."""
    return given(seen and seen.of(*block))


def _leaf(part: Tensor) -> Tensor:
    part = part.detach()
    return part.requires_grad_() if part.is_floating_point() else part


def map_state(function: Callable[[Tensor], Tensor], state: StateT) -> StateT:
    """A state with ``function`` applied to each of its tensors; counts stay as they are.

    Raises:
        ConfigError: it has a part that no state may have.
    """
    return _map_leaves(lambda leaf: leaf if isinstance(leaf, int) else function(leaf), state)


def like_state(state: StateT, tensors: Iterable[Tensor]) -> StateT:
    """A state of these tensors, in the order of :func:`tensors_of`."""
    rest = iter(tensors)

    def following(leaf: Tensor | int) -> Tensor | int:
        tensor = next(rest)
        return int(tensor) if isinstance(leaf, int) else tensor

    return _map_leaves(following, state)


def tensors_of(state: Any) -> list[Tensor]:
    """The tensors of a state, in the order of :func:`map_state`; of a count, one that holds it."""
    return [torch.tensor(leaf) if isinstance(leaf, int) else leaf for leaf in _leaves(state)]


def counts_as_tensors(state: StateT, device: torch.device) -> StateT:
    """A state with tensors () of whole numbers in place of counts."""

    def held(leaf: Tensor | int) -> Tensor:
        return torch.tensor(leaf, device=device) if isinstance(leaf, int) else leaf

    return _map_leaves(held, state)


def has_counts(state: Any) -> bool:
    """Has a state whole numbers, which cannot be written over?"""
    return any(isinstance(leaf, int) for leaf in _leaves(state))


def keys_of(part: dict[Any, Any]) -> list[Any]:
    """The keys of a dict in a state, in their order.

    Raises:
        ConfigError: they have none.
    """
    try:
        return sorted(part)
    except TypeError as error:
        kinds = ", ".join(sorted({type(key).__name__ for key in part}))
        raise ConfigError(
            f"the state of an optimizer has a dict with keys of {kinds}: they must have an order, "
            "as strings do"
        ) from error


def _leaves(state: Any) -> list[Tensor | int]:
    found: list[Tensor | int] = []

    def note(leaf: Tensor | int) -> Tensor | int:
        found.append(leaf)
        return leaf

    _map_leaves(note, state)
    return found


def _map_leaves(function: Callable[[Tensor | int], Tensor | int], state: StateT) -> StateT:
    known: Any = state  # of a type that only its optimizer knows
    if isinstance(known, Tensor) or type(known) is int:
        return function(known)  # type: ignore[return-value]
    made: Any
    if isinstance(known, dict):
        made = {key: _map_leaves(function, known[key]) for key in keys_of(known)}
    elif isinstance(known, tuple):
        parts = [_map_leaves(function, part) for part in known]
        made = type(known)(*parts) if hasattr(known, "_fields") else type(known)(parts)
    elif isinstance(known, list):
        made = [_map_leaves(function, part) for part in known]
    else:
        raise ConfigError(
            f"the state of an optimizer has a part of type {type(known).__name__}: it must be made "
            "of tensors, whole numbers that count, tuples, named tuples and dicts"
        )
    changed: StateT = made
    return changed


def coordinate_blocks(num_functions: int, n: int, size: int) -> list[tuple[slice, slice]]:
    """Cut (B, n) into rectangles of at most ``size`` coordinates, whole functions if they fit."""
    rows = max(1, size // n)
    columns = min(n, size)
    return [
        (slice(b, min(b + rows, num_functions)), slice(i, min(i + columns, n)))
        for b in range(0, num_functions, rows)
        for i in range(0, n, columns)
    ]
