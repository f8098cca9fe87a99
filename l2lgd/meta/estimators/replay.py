"""The meta-gradient by replay of what a rollout recorded.

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

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.meta.diverged import finite_functions, without
from l2lgd.meta.estimators.backpropagation import Backpropagation
from l2lgd.meta.estimators.objective import (
    MetaObjective,
    TypicalSize,
    rule_of,
    weigh,
)
from l2lgd.meta.rollout import Position, Record, Step, rollout
from l2lgd.optimizers.base import Cotangents, LearnedRule, State, given, given_part


class Replay(Backpropagation):
    """Rollout and replay: exact, without a graph through time.

    Args:
        difference: 0 for exact second derivatives of the optimizee; else they are differences
            between two gradients so far apart, in lengths of θ, which costs no more than the
            rollout, and smooths what has kinks.
    """

    def __init__(
        self,
        second_derivatives: bool = False,
        second_derivatives_from: float = 0.0,
        smoothing: float = 0.0,
        difference: float = 0.0,
    ) -> None:
        super().__init__(second_derivatives, second_derivatives_from, smoothing)
        if not 0 <= difference < math.inf:
            raise ConfigError(f"difference={difference}: must not be negative")
        self.difference = difference

    def estimate(
        self, at: Position, length: int, objective: MetaObjective, second: bool, step: Step
    ) -> tuple[Tensor, Record, Position]:
        record, at = rollout(at, length, keep_path=second, step=step)
        alive = finite_functions(record)
        if alive is not None:
            record = without(record, alive)
        return replay(record, objective, self.smoothing, self.difference), record, at


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
    optimizer = rule_of(record.optimizer)
    meta_loss, weights = weigh(record, objective)
    if record.path is None:
        total = _first_order(optimizer, record, weights)
    else:
        total = _along_the_path(optimizer, record, record.path, weights, smoothing, difference)
    # Added, not assigned: several records may share a meta-step.
    for weight, gradient in zip(optimizer.phi(), total, strict=True):
        weight.grad = gradient if weight.grad is None else weight.grad + gradient
    return meta_loss


def _first_order(optimizer: LearnedRule, record: Record, weights: Tensor) -> list[Tensor]:
    """∂L/∂φ where the recorded gradients are constants."""
    total = [torch.zeros_like(weight) for weight in optimizer.phi()]
    for (rows, columns), state in zip(record.blocks, record.states, strict=True):
        gradients = record.gradients[:, rows, columns]
        # g_t moves every later θ_s by the same amount: ∂L/∂g_t = Σ_{s>t} w_s ∇_s.
        weighted = weights[:, rows, None] * gradients[1:]
        cotangents = weighted.flip(0).cumsum(0).flip(0)  # (U, …)
        seen = [each.of(rows, columns) for each in record.seen]
        parts = optimizer.vector_jacobian_product(gradients[:-1], state, cotangents, **given(seen))
        for into, part in zip(total, parts, strict=True):
            into += part
    return total


def _along_the_path(
    optimizer: LearnedRule,
    record: Record,
    path: list[Position],
    weights: Tensor,
    smoothing: float,
    difference: float,
) -> list[Tensor]:
    """∂L/∂φ with second derivatives, one step after the other, from the last to the first."""
    total = [torch.zeros_like(weight) for weight in optimizer.phi()]
    typical = TypicalSize(smoothing)
    widths = [typical.after(at.gradient) for at in path]
    cotangent = torch.zeros_like(path[0].parameters)  # ∂L/∂θ of the step that is worked on
    d_gradient: Tensor | None = None  # ∂L/∂∇ there; the last gradient has moved nothing
    observed: Tensor | None = None  # ∂L/∂θ there through what the optimizer observes
    d_states: list[State | None] = [None] * len(record.blocks)
    states = _StatesBackwards(path)
    for i in reversed(range(len(path))):
        # θ_{i+1} = θ_i + g_i passes ∂L/∂θ on as it is; each θ adds what it does by itself: its own
        # loss in the meta-loss, and the gradient that the optimizer sees there.
        cotangent += weights[i].unsqueeze(1) * record.gradients[i + 1]
        if d_gradient is not None:
            product = _hessian_product(path[i + 1], d_gradient, difference)
            if record.alive is not None:  # 0 · ∞ is NaN: what diverged has to be taken out
                product = product.where(record.alive.unsqueeze(1), 0.0)
            cotangent += product
        if observed is not None:
            cotangent += observed
        at, width, seen = path[i], widths[i], path[i].seen()
        d_gradient = torch.empty_like(cotangent)
        if seen is not None:
            d_theta, d_loss = torch.zeros_like(cotangent), torch.zeros_like(at.loss)
        for k, (block, state) in enumerate(zip(at.blocks, states.at(i), strict=True)):
            found = Cotangents(
                *optimizer.step_back(
                    at.gradient[block],
                    state,
                    cotangent[block],
                    d_states[k],
                    None if width is None else width[block],
                    **given_part(seen, block),
                )
            )
            d_gradient[block], d_states[k] = found.gradient, found.state
            if found.parameters is not None:
                d_theta[block] = found.parameters
            if found.loss is not None:  # of the whole function, which every block of it sees
                d_loss[block[0]] += found.loss
            for into, part in zip(total, found.weights, strict=True):
                into += part
        if seen is not None:
            observed = d_theta + d_loss.unsqueeze(1) * at.gradient
    return total


class _StatesBackwards:
    """The states along a path, asked for from its end to its beginning.

    Some √U of them are on record. Between two of these the others are computed again, and held
    until they have been asked for: √U more at a time, for one more run of the optimizer in all.
    """

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
            seen = at.seen()
            states = [
                at.optimizer.step(at.gradient[block], state, **given_part(seen, block))[1]
                for block, state in zip(at.blocks, states, strict=True)
            ]
            self._again[j + 1] = states


def _hessian_product(at: Position, vector: Tensor, difference: float) -> Tensor:
    """∇²f(θ_t) v for a vector v (B, n)."""
    if not difference:
        return at.optimizee.hessian_product(at.parameters, at.step, vector)
    # A step of one length in θ-space for every function, whatever the size of its vector: rounding
    # decides how small it may be, the kinks of ReLUs how large.
    length = vector.norm(dim=1, keepdim=True).clamp(min=torch.finfo(vector.dtype).tiny)
    step: Tensor = difference * at.parameters.norm(dim=1, keepdim=True) / length
    _, gradient = at.optimizee.loss_and_gradient(at.parameters + step * vector, at.step)
    return (gradient - at.gradient) / step
