"""Backpropagation through the unrolled loop, the reference that replay is tested against."""

from dataclasses import replace

import torch
from torch import Tensor

from l2lgd.meta.estimators.backpropagation import Backpropagation
from l2lgd.meta.estimators.objective import MetaObjective, TypicalSize, rule_of
from l2lgd.meta.rollout import Position, Record, Step
from l2lgd.optimizers.base import given_part, map_state


class Textbook(Backpropagation):
    """Backpropagation through the unrolled loop, with autograd alone.

    It holds the graph of an unroll in memory. A function that diverges spoils the meta-step.
    """

    def estimate(
        self, at: Position, length: int, objective: MetaObjective, second: bool, step: Step
    ) -> tuple[Tensor, Record, Position]:
        return textbook(at, length, objective, second, self.smoothing)


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
    optimizer = rule_of(at.optimizer)
    first, start_states, states = at.step, at.states, at.states
    parameters, gradient, loss = at.parameters, at.gradient, at.loss
    losses, gradients, squares = [], [at.gradient], []
    typical = TypicalSize(smoothing)
    with torch.enable_grad():
        if second_derivatives:
            parameters = parameters.detach().requires_grad_()
        for step in range(first + 1, first + num_steps + 1):
            update, width = torch.zeros_like(parameters), typical.after(gradient)
            following = []
            now = replace(at, parameters=parameters, loss=loss, step=step - 1).seen()
            if now is not None and not second_derivatives:  # a constant, like the gradient
                now = now._replace(parameters=now.parameters.detach(), loss=now.loss.detach())
            for block, state in zip(at.blocks, states, strict=True):
                part = None if width is None else width[block]
                update[block], state = optimizer.step(
                    gradient[block], state, part, **given_part(now, block)
                )
                following.append(state)
            parameters, states = parameters + update, following
            squares.append(update.detach().square().mean(1))
            loss = at.optimizee.loss(parameters, step)
            # Functions are independent: the gradient of their sum is each one's own. Without
            # create_graph it is a constant, which drops the dashed edges of figure 2.
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
    end = replace(
        at,
        parameters=parameters.detach(),
        states=[map_state(Tensor.detach, state) for state in states],
        step=first + num_steps,
        loss=losses[-1].detach(),
        gradient=gradient.detach(),
    )
    return meta_loss.detach(), record, end
