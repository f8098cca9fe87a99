"""Rollout: optimizers run on stacked optimizees, without a graph through time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from l2lgd.meta.elsewhere import Elsewhere
from l2lgd.optimizers.base import (
    BLOCK_SIZE,
    Optimizer,
    State,
    given_part,
    tensors_of,
)
from l2lgd.optimizers.observation import Observation, known_fields
from l2lgd.tasks.base import Optimizee

STATE_BYTES = 2**30  # for the states of an optimizer along a path


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
    horizon: int | Tensor | None = None  # T, where it is known; (B,) where functions differ
    begun: Tensor | None = None  # the step at which each function began (B,), if not all at 0
    elsewhere: Elsewhere | None = None  # where the optimizer asks for the functions elsewhere

    def seen(self) -> Observation | None:
        """What the optimizer sees besides the gradient; None where it wants nothing of it."""
        if not self.optimizer.observes:
            return None
        step = self.step if self.begun is None else self.step - self.begun
        evaluate = None if self.elsewhere is None else self.elsewhere.at(self.step)
        return Observation(self.parameters, self.loss, step, self.horizon, evaluate)


Step = Callable[[Position], Position]


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
    seen: Sequence[Observation] = ()  # at t … t + U − 1, where the optimizer observes
    alive: Tensor | None = None  # functions that count (B,); None for all

    @property
    def update_size(self) -> Tensor:
        """Root mean square of the updates of functions that count, ()."""
        return self.of_alive(self.update_squares).mean().sqrt()

    def of_alive(self, values: Tensor, dim: int = 0) -> Tensor:
        """Those parts of ``values`` along a dimension that are of functions that count."""
        return values if self.alive is None else values[(slice(None),) * dim + (self.alive,)]


def start(
    optimizer: Optimizer,
    optimizee: Optimizee,
    block_size: int = BLOCK_SIZE,
    horizon: int | None = None,
) -> Position:
    """The beginning of a trajectory.

    Args:
        block_size: coordinates that are optimized at once, where they can be apart.
        horizon: T, for optimizers that observe it.

    Raises:
        ConfigError: the optimizer observes what there is not.
    """
    parameters = optimizee.initial_parameters
    known_fields(type(optimizer).__name__, optimizer.observes)
    optimizer = optimizer.named(optimizee.shapes)
    num_functions, n = parameters.shape
    blocks = optimizer.blocks(num_functions, n, block_size)
    states = [optimizer.initial_state(parameters[block]) for block in blocks]
    loss, gradient = optimizee.loss_and_gradient(parameters, 0)
    elsewhere = Elsewhere(optimizee) if "evaluate" in optimizer.observes else None
    return Position(
        optimizee,
        optimizer,
        blocks,
        parameters,
        states,
        0,
        loss,
        gradient,
        horizon,
        elsewhere=elsewhere,
    )


@torch.no_grad()
def reported_parameters(at: Position) -> Tensor:
    """What an optimizer would hand its user (B, n): θ_t, for most, or an average for some."""
    parts = [at.parameters[block] for block in at.blocks]
    pairs = zip(parts, at.states, strict=True)
    reported = [at.optimizer.evaluated(part, state) for part, state in pairs]
    if all(found is part for found, part in zip(reported, parts, strict=True)):
        return at.parameters
    whole = torch.empty_like(at.parameters)
    for block, found in zip(at.blocks, reported, strict=True):
        whole[block] = found
    return whole


@torch.no_grad()
def reported_loss(at: Position) -> Tensor:
    """The losses (B,) of those parameters, on the minibatch of step t."""
    parameters = reported_parameters(at)
    if parameters is at.parameters:
        return at.loss
    return at.optimizee.loss(parameters, at.step)


@torch.no_grad()
def advance(at: Position) -> Position:
    """One step: θ_{t+1} = θ_t + g_t, with loss and gradient there."""
    parameters = at.parameters.clone()
    states, seen = [], at.seen()
    for block, state in zip(at.blocks, at.states, strict=True):
        update, state = at.optimizer.step(at.gradient[block], state, **given_part(seen, block))
        parameters[block] += update
        states.append(state)
    loss, gradient = at.optimizee.loss_and_gradient(parameters, at.step + 1)
    return replace(
        at, parameters=parameters, states=states, step=at.step + 1, loss=loss, gradient=gradient
    )


def rollout(
    at: Position,
    num_steps: int,
    keep_path: bool = False,
    state_bytes: int = STATE_BYTES,
    step: Step = advance,
) -> tuple[Record, Position]:
    """Run ``num_steps`` steps without a graph and record the gradients.

    Args:
        keep_path: record parameters and states, too, for a replay with second derivatives.
        state_bytes: where the states of all steps need more, only some √U of them are recorded.
            The replay computes the others again from the gradients.
        step: does one.
    """
    begin = at
    spacing = 1 if num_steps * _size(at.states) <= state_bytes else math.isqrt(num_steps - 1) + 1
    steps = range(begin.step + 1, begin.step + num_steps + 1)
    at.optimizee.prefetch(steps)
    path, losses, gradients, squares = [], [], [at.gradient], []
    seen: list[Observation] = []
    for i in range(num_steps):
        if keep_path:
            path.append(at if i % spacing == 0 else replace(at, states=[]))
        if now := at.seen():
            seen.append(now)
        before, at = at.parameters, step(at)
        losses.append(at.loss)
        gradients.append(at.gradient)
        squares.append((at.parameters - before).square().mean(1))
    record = Record(
        begin.optimizer,
        begin.states,
        begin.blocks,
        steps,
        torch.stack(losses),
        torch.stack(gradients),
        torch.stack(squares).mean(0),
        path if keep_path else None,
        seen,
    )
    return record, at


def _size(states: list[State]) -> int:
    """Bytes."""
    return sum(tensor.nbytes for tensor in tensors_of(states))
