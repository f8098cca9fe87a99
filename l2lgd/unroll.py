"""The meta-gradient: rollout and replay, and the textbook unroll they are tested against.

The paper drops ∂∇_t/∂φ (the dashed edges of its figure 2). The updates of an unroll of U steps are
then a function of the recorded gradients, the state at its start and φ alone, and the meta-loss
Σ_s w_s f(θ_s) reaches update g_t only through the later parameters: ∂L/∂g_t = Σ_{s>t} w_s ∇_s.
So the optimizees are rolled out without a graph, and the meta-gradient is one vector–Jacobian
product of the optimizer's own recurrence, a block of coordinates at a time.

Where these second derivatives are kept, the rollout also records its path, and the replay goes
back along it a step at a time: ∂L/∂∇_t from the optimizer, times the Hessian of f at θ_t, is one
more way in which θ_t matters. The exact derivative of a working optimizer is useless over many
steps: the loop is chaotic, and tiny gradients go through a logarithm. So the optimizer's derivative
with respect to ∇_t can be smoothed over the size that a coordinate's gradients typically have.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from l2lgd.optimizers.base import (
    BLOCK_SIZE,
    LearnedOptimizer,
    Optimizer,
    State,
    map_state,
    tensors_of,
)
from l2lgd.tasks.base import Optimizee

STATE_BYTES = 2**29  # for the states of an optimizer along a path
TYPICAL_SIZE_DECAY = 0.9  # of the running mean of squared gradients, about the last ten

MetaObjective = Callable[[Tensor, range], Tensor]
"""Losses (U, B) at steps → summands of the meta-loss (U, B)."""


@dataclass
class Position:
    """Where the optimization of B stacked optimizees stands: at step t, before update g_t."""

    optimizee: Optimizee
    optimizer: Optimizer  # for the optimizee's parameter tensors
    blocks: list[tuple[slice, slice]]
    parameters: Tensor  # θ_t (B, n)
    states: list[State]  # one a block
    step: int
    loss: Tensor  # f(θ_t) (B,)
    gradient: Tensor  # ∇_t (B, n)


@dataclass
class Record:
    """What a rollout of U steps leaves behind."""

    optimizer: Optimizer
    states: list[State]  # at its start, one a block
    blocks: list[tuple[slice, slice]]
    steps: range  # t + 1 … t + U
    losses: Tensor  # f(θ_{t+1}) … f(θ_{t+U}), (U, B)
    gradients: Tensor  # ∇_t … ∇_{t+U}, (U + 1, B, n)
    update_squares: Tensor  # mean squares of g_t … g_{t+U−1}, (B,)
    path: list[Position] | None = None  # at t … t + U − 1, where second derivatives are wanted;
    # some of them with no states, if these would take too much memory
    alive: Tensor | None = None  # functions that count (B,); None for all

    @property
    def update_size(self) -> Tensor:
        """Root mean square of the updates of functions that count, ()."""
        return self.of_alive(self.update_squares).mean().sqrt()

    def of_alive(self, values: Tensor, dim: int = 0) -> Tensor:
        """Those parts of ``values`` along a dimension that are of functions that count."""
        return values if self.alive is None else values[(slice(None),) * dim + (self.alive,)]


def start(optimizer: Optimizer, optimizee: Optimizee, block_size: int = BLOCK_SIZE) -> Position:
    """The beginning of a trajectory."""
    parameters = optimizee.initial_parameters
    optimizer = optimizer.named(optimizee.shapes)
    blocks = optimizer.blocks(*parameters.shape, block_size)
    states = [optimizer.initial_state(parameters[block]) for block in blocks]
    loss, gradient = optimizee.loss_and_gradient(parameters, 0)
    return Position(optimizee, optimizer, blocks, parameters, states, 0, loss, gradient)


@torch.no_grad()
def advance(at: Position) -> Position:
    """One step: θ_{t+1} = θ_t + g_t, with loss and gradient there."""
    parameters = at.parameters.clone()
    states = []
    for block, state in zip(at.blocks, at.states, strict=True):
        update, state = at.optimizer.step(at.gradient[block], state)
        parameters[block] += update
        states.append(state)
    loss, gradient = at.optimizee.loss_and_gradient(parameters, at.step + 1)
    return Position(
        at.optimizee, at.optimizer, at.blocks, parameters, states, at.step + 1, loss, gradient
    )


def rollout(
    at: Position, num_steps: int, keep_path: bool = False, state_bytes: int = STATE_BYTES
) -> tuple[Record, Position]:
    """Run ``num_steps`` steps without a graph and record the gradients.

    Args:
        keep_path: record parameters and states, too, for a replay with second derivatives.
        state_bytes: where the states of all steps need more, only some √U of them are recorded.
            The replay computes the others again from the gradients.
    """
    begin = at
    spacing = 1 if num_steps * _size(at.states) <= state_bytes else math.isqrt(num_steps - 1) + 1
    path, losses, gradients, squares = [], [], [at.gradient], []
    for i in range(num_steps):
        if keep_path:
            path.append(at if i % spacing == 0 else replace(at, states=[]))
        before, at = at.parameters, advance(at)
        losses.append(at.loss)
        gradients.append(at.gradient)
        squares.append((at.parameters - before).square().mean(1))
    record = Record(
        begin.optimizer,
        begin.states,
        begin.blocks,
        range(begin.step + 1, at.step + 1),
        torch.stack(losses),
        torch.stack(gradients),
        torch.stack(squares).mean(0),
        path if keep_path else None,
    )
    return record, at


def _size(states: list[State]) -> int:
    """Bytes."""
    return sum(tensor.nbytes for state in states for tensor in tensors_of(state))


def replay(
    record: Record,
    objective: MetaObjective,
    smoothing: float = 0.0,
    difference: float = 0.0,
) -> Tensor:
    """Add the meta-gradient of a record to ``.grad`` of its optimizer's weights φ.

    It has second derivatives where the record has a path.

    Args:
        smoothing: as for :func:`textbook`.
        difference: 0 for exact products with the Hessian; else they are differences between two
            gradients, so far apart, in lengths of θ.

    Returns:
        The meta-loss: the objective's summands, summed over steps and averaged over functions.
    """
    optimizer = _learned(record.optimizer)
    meta_loss, weights = _objective_and_weights(record, objective)
    if record.path is None:
        total = _first_order(optimizer, record, weights)
    else:
        total = _along_the_path(optimizer, record, record.path, weights, smoothing, difference)
    for weight, gradient in zip(optimizer.phi(), total, strict=True):
        weight.grad = gradient if weight.grad is None else weight.grad + gradient
    return meta_loss


def _learned(optimizer: Optimizer) -> LearnedOptimizer:
    if not isinstance(optimizer, LearnedOptimizer):
        raise TypeError(f"{type(optimizer).__name__} has no weights to meta-train")
    return optimizer


def _first_order(optimizer: LearnedOptimizer, record: Record, weights: Tensor) -> list[Tensor]:
    """∂L/∂φ where the recorded gradients are constants."""
    total = [torch.zeros_like(weight) for weight in optimizer.phi()]
    for (rows, columns), state in zip(record.blocks, record.states, strict=True):
        gradients = record.gradients[:, rows, columns]
        weighted = weights[:, rows, None] * gradients[1:]
        cotangents = weighted.flip(0).cumsum(0).flip(0)  # ∂L/∂g_t, (U, …)
        parts = optimizer.vector_jacobian_product(gradients[:-1], state, cotangents)
        for into, part in zip(total, parts, strict=True):
            into += part
    return total


def _along_the_path(
    optimizer: LearnedOptimizer,
    record: Record,
    path: list[Position],
    weights: Tensor,
    smoothing: float,
    difference: float,
) -> list[Tensor]:
    """∂L/∂φ with second derivatives, one step after the other, from the last to the first."""
    total = [torch.zeros_like(weight) for weight in optimizer.phi()]
    typical = _TypicalSize(smoothing)
    widths = [typical.after(at.gradient) for at in path]
    cotangent = torch.zeros_like(path[0].parameters)  # ∂L/∂θ of the step that is worked on
    d_gradient: Tensor | None = None  # ∂L/∂∇ there; the last gradient has moved nothing
    d_states: list[State | None] = [None] * len(record.blocks)
    states = _StatesBackwards(path)
    for i in reversed(range(len(path))):
        cotangent += weights[i].unsqueeze(1) * record.gradients[i + 1]
        if d_gradient is not None:
            product = _hessian_product(path[i + 1], d_gradient, difference)
            if record.alive is not None:
                product = product.where(record.alive.unsqueeze(1), 0.0)
            cotangent += product
        at, width = path[i], widths[i]
        d_gradient = torch.empty_like(cotangent)
        for k, (block, state) in enumerate(zip(at.blocks, states.at(i), strict=True)):
            parts, d_gradient[block], d_states[k] = optimizer.step_back(
                at.gradient[block],
                state,
                cotangent[block],
                d_states[k],
                None if width is None else width[block],
            )
            for into, part in zip(total, parts, strict=True):
                into += part
    return total


class _StatesBackwards:
    """The states along a path, asked for from its end to its beginning."""

    def __init__(self, path: list[Position]) -> None:
        self._path = path
        self._again: dict[int, list[State]] = {}  # between two that were recorded

    def at(self, i: int) -> list[State]:
        if not self._path[i].states and i not in self._again:
            self._compute_up_to(i)
        return self._path[i].states or self._again.pop(i)

    @torch.no_grad()
    def _compute_up_to(self, i: int) -> None:
        begin = next(j for j in range(i, -1, -1) if self._path[j].states)
        states = self._path[begin].states
        for j in range(begin, i):
            at = self._path[j]
            states = [
                at.optimizer.step(at.gradient[block], state)[1]
                for block, state in zip(at.blocks, states, strict=True)
            ]
            self._again[j + 1] = states


def _hessian_product(at: Position, vector: Tensor, difference: float) -> Tensor:
    """∇²f(θ_t) v for a vector v (B, n)."""
    if not difference:
        return at.optimizee.hessian_product(at.parameters, at.step, vector)
    length = vector.norm(dim=1, keepdim=True).clamp(min=torch.finfo(vector.dtype).tiny)
    step = difference * at.parameters.norm(dim=1, keepdim=True) / length
    _, gradient = at.optimizee.loss_and_gradient(at.parameters + step * vector, at.step)
    return (gradient - at.gradient) / step


class _TypicalSize:
    """Running root mean square of each coordinate's gradients, times ``smoothing``."""

    def __init__(self, smoothing: float) -> None:
        self._smoothing, self._mean, self._weight = smoothing, 0.0, 0.0

    def after(self, gradient: Tensor) -> Tensor | None:
        """The width (B, n) when ``gradient`` (B, n) has been seen; None without smoothing."""
        if not self._smoothing:
            return None
        keep = TYPICAL_SIZE_DECAY
        self._mean = keep * self._mean + (1 - keep) * gradient.detach().square()
        self._weight = keep * self._weight + (1 - keep)
        return self._smoothing * (self._mean / self._weight).sqrt()


def _objective_and_weights(record: Record, objective: MetaObjective) -> tuple[Tensor, Tensor]:
    """The meta-loss and w_s = ∂(meta-loss)/∂f(θ_s), (U, B)."""
    losses = record.losses.detach().requires_grad_()
    with torch.enable_grad():
        summands = objective(record.of_alive(losses, 1), record.steps)
        meta_loss = summands.mean(1).sum()
        (weights,) = torch.autograd.grad(meta_loss, losses)
    return meta_loss.detach(), weights


def textbook(
    at: Position,
    num_steps: int,
    objective: MetaObjective,
    second_derivatives: bool = False,
    smoothing: float = 0.0,
) -> tuple[Tensor, Record, Position]:
    """Backpropagation through the unrolled loop; the same result as rollout and replay.

    The reference for the fast way. Holds the graph of the whole unroll in memory.

    Args:
        smoothing: 0 for exact second derivatives; else the optimizer's derivative with respect to
            a gradient is averaged over this multiple of the coordinate's typical gradient in this
            unroll.

    Returns:
        The meta-loss, and what :func:`rollout` returns; the meta-gradient is added to ``.grad``.
    """
    optimizer = _learned(at.optimizer)
    first, start_states, states = at.step, at.states, at.states
    parameters, gradient = at.parameters, at.gradient
    losses, gradients, squares = [], [at.gradient], []
    typical = _TypicalSize(smoothing)
    with torch.enable_grad():
        if second_derivatives:
            parameters = parameters.detach().requires_grad_()
        for step in range(first + 1, first + num_steps + 1):
            update, width = torch.zeros_like(parameters), typical.after(gradient)
            following = []
            for block, state in zip(at.blocks, states, strict=True):
                part = None if width is None else width[block]
                update[block], state = optimizer.step(gradient[block], state, part)
                following.append(state)
            parameters, states = parameters + update, following
            squares.append(update.detach().square().mean(1))
            loss = at.optimizee.loss(parameters, step)
            (gradient,) = torch.autograd.grad(
                loss.sum(), parameters, create_graph=second_derivatives, retain_graph=True
            )
            losses.append(loss)
            gradients.append(gradient)
        steps = range(first + 1, first + num_steps + 1)
        meta_loss = objective(torch.stack(losses), steps).mean(1).sum()
        meta_loss.backward(inputs=optimizer.phi())
    record = Record(
        optimizer,
        start_states,
        at.blocks,
        steps,
        torch.stack(losses).detach(),
        torch.stack(gradients).detach(),
        torch.stack(squares).mean(0),
    )
    end = Position(
        at.optimizee,
        optimizer,
        at.blocks,
        parameters.detach(),
        [map_state(Tensor.detach, state) for state in states],
        first + num_steps,
        losses[-1].detach(),
        gradient.detach(),
    )
    return meta_loss.detach(), record, end
