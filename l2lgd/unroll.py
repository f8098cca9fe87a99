"""The meta-gradient: rollout and replay, and the textbook unroll they are tested against.

The paper drops ∂∇_t/∂φ (the dashed edges of its figure 2). The updates of an unroll of U steps are
then a function of the recorded gradients, the state at its start and φ alone, and the meta-loss
Σ_s w_s f(θ_s) reaches update g_t only through the later parameters: ∂L/∂g_t = Σ_{s>t} w_s ∇_s.
So the optimizees are rolled out without a graph, and the meta-gradient is one vector–Jacobian
product of the optimizer's own recurrence, a block of coordinates at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from l2lgd.optimizers.base import LearnedOptimizer, Optimizer, State
from l2lgd.tasks.base import Optimizee

BLOCK_SIZE = 4096  # coordinates; bounds the memory of a replay, whatever n is

MetaObjective = Callable[[Tensor, range], Tensor]
"""Losses (U, B) at steps → summands of the meta-loss (U, B)."""


@dataclass
class Position:
    """Where the optimization of B stacked optimizees stands: at step t, before update g_t."""

    optimizee: Optimizee
    blocks: list[tuple[slice, slice]]
    parameters: Tensor  # θ_t (B, n)
    states: list[State]  # one a block
    step: int
    loss: Tensor  # f(θ_t) (B,)
    gradient: Tensor  # ∇_t (B, n)


@dataclass
class Record:
    """What a rollout of U steps leaves behind."""

    states: list[State]  # at its start, one a block
    blocks: list[tuple[slice, slice]]
    steps: range  # t + 1 … t + U
    losses: Tensor  # f(θ_{t+1}) … f(θ_{t+U}), (U, B)
    gradients: Tensor  # ∇_t … ∇_{t+U}, (U + 1, B, n)
    update_size: Tensor  # root mean square of g_t … g_{t+U−1}, ()


def start(optimizer: Optimizer, optimizee: Optimizee, block_size: int = BLOCK_SIZE) -> Position:
    """The beginning of a trajectory."""
    parameters = optimizee.initial_parameters
    blocks = optimizer.blocks(*parameters.shape, block_size)
    states = [optimizer.initial_state(parameters[block]) for block in blocks]
    loss, gradient = optimizee.loss_and_gradient(parameters, 0)
    return Position(optimizee, blocks, parameters, states, 0, loss, gradient)


@torch.no_grad()
def advance(optimizer: Optimizer, at: Position) -> Position:
    """One step: θ_{t+1} = θ_t + g_t, with loss and gradient there."""
    parameters = at.parameters.clone()
    states = []
    for block, state in zip(at.blocks, at.states, strict=True):
        update, state = optimizer.step(at.gradient[block], state)
        parameters[block] += update
        states.append(state)
    loss, gradient = at.optimizee.loss_and_gradient(parameters, at.step + 1)
    return Position(at.optimizee, at.blocks, parameters, states, at.step + 1, loss, gradient)


def rollout(optimizer: Optimizer, at: Position, num_steps: int) -> tuple[Record, Position]:
    """Run ``num_steps`` steps without a graph and record the gradients."""
    begin = at
    losses, gradients, squares = [], [at.gradient], []
    for _ in range(num_steps):
        before, at = at.parameters, advance(optimizer, at)
        losses.append(at.loss)
        gradients.append(at.gradient)
        squares.append((at.parameters - before).square().mean())
    record = Record(
        begin.states,
        begin.blocks,
        range(begin.step + 1, at.step + 1),
        torch.stack(losses),
        torch.stack(gradients),
        torch.stack(squares).mean().sqrt(),
    )
    return record, at


def replay(optimizer: LearnedOptimizer, record: Record, objective: MetaObjective) -> Tensor:
    """Add the meta-gradient of a record to ``.grad`` of the optimizer's weights φ.

    Returns:
        The meta-loss: the objective's summands, summed over steps and averaged over functions.
    """
    meta_loss, weights = _objective_and_weights(record, objective)
    phi = list(optimizer.parameters())
    total = [torch.zeros_like(weight) for weight in phi]
    for (rows, columns), state in zip(record.blocks, record.states, strict=True):
        gradients = record.gradients[:, rows, columns]
        weighted = weights[:, rows, None] * gradients[1:]
        cotangents = weighted.flip(0).cumsum(0).flip(0)  # ∂L/∂g_t, (U, …)
        parts = optimizer.vector_jacobian_product(gradients[:-1], state, cotangents)
        for into, part in zip(total, parts, strict=True):
            into += part
    for weight, gradient in zip(phi, total, strict=True):
        weight.grad = gradient if weight.grad is None else weight.grad + gradient
    return meta_loss


def _objective_and_weights(record: Record, objective: MetaObjective) -> tuple[Tensor, Tensor]:
    """The meta-loss and w_s = ∂(meta-loss)/∂f(θ_s), (U, B)."""
    losses = record.losses.detach().requires_grad_()
    with torch.enable_grad():
        meta_loss = objective(losses, record.steps).mean(1).sum()
        (weights,) = torch.autograd.grad(meta_loss, losses)
    return meta_loss.detach(), weights


def textbook(
    optimizer: LearnedOptimizer,
    at: Position,
    num_steps: int,
    objective: MetaObjective,
    second_derivatives: bool = False,
) -> tuple[Tensor, Record, Position]:
    """Backpropagation through the unrolled loop; the same result as rollout and replay.

    The only way to keep second derivatives, and the reference for the fast way. Holds the graph of
    the whole unroll in memory.

    Returns:
        The meta-loss, and what :func:`rollout` returns; the meta-gradient is added to ``.grad``.
    """
    first, start_states, states = at.step, at.states, at.states
    parameters, gradient = at.parameters, at.gradient
    losses, gradients, squares = [], [at.gradient], []
    with torch.enable_grad():
        if second_derivatives:
            parameters = parameters.detach().requires_grad_()
        for step in range(first + 1, first + num_steps + 1):
            update = torch.zeros_like(parameters)
            following = []
            for block, state in zip(at.blocks, states, strict=True):
                update[block], state = optimizer.step(gradient[block], state)
                following.append(state)
            parameters, states = parameters + update, following
            squares.append(update.detach().square().mean())
            loss = at.optimizee.loss(parameters, step)
            (gradient,) = torch.autograd.grad(
                loss.sum(), parameters, create_graph=second_derivatives, retain_graph=True
            )
            losses.append(loss)
            gradients.append(gradient)
        steps = range(first + 1, first + num_steps + 1)
        meta_loss = objective(torch.stack(losses), steps).mean(1).sum()
        meta_loss.backward(inputs=list(optimizer.parameters()))
    record = Record(
        start_states,
        at.blocks,
        steps,
        torch.stack(losses).detach(),
        torch.stack(gradients).detach(),
        torch.stack(squares).mean().sqrt(),
    )
    end = Position(
        at.optimizee,
        at.blocks,
        parameters.detach(),
        [detach(state) for state in states],
        first + num_steps,
        losses[-1].detach(),
        gradient.detach(),
    )
    return meta_loss.detach(), record, end


def detach(state: State) -> State:
    """Cut a state, a tensor or nested tuples of them, from the graph."""
    if isinstance(state, Tensor):
        return state.detach()
    parts = [detach(part) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
