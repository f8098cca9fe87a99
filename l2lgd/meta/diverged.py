"""Functions that diverged in an unroll, left out of its meta-gradient.

A loss or gradient that is not finite makes the meta-gradient of the whole stack so, though the
functions do not depend on each other; one whose square is not finite does so on the way back.
Without those functions it is the mean over the others.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.linalg import vector_norm

from l2lgd.meta.rollout import Position, Record
from l2lgd.optimizers.base import map_state
from l2lgd.optimizers.observation import Observation


def finite_functions(record: Record) -> Tensor | None:
    """Of which functions all losses and gradients are finite, squares too, (B,); None if of all."""
    # One number decides the usual case: a non-finite value would have made the sum non-finite.
    total = vector_norm(record.gradients) + vector_norm(record.losses)
    if total.isfinite():
        return None
    bound = torch.finfo(record.losses.dtype).max ** 0.5
    largest, loss = record.gradients.abs().amax((0, 2)), record.losses.abs().amax(0)
    alive = (largest < bound) & (loss < bound)  # neither is true of NaN
    return None if alive.all() else alive


def without(record: Record, alive: Tensor) -> Record:
    """The record in which only the functions of ``alive`` (B,) count.

    The others get numbers that are finite in all arithmetic, and weigh nothing.
    """
    path = record.path and [_without(at, alive) for at in record.path]
    return replace(
        record,
        states=_finite(record.states),
        losses=record.losses.where(alive, 1.0),
        gradients=record.gradients.where(alive.unsqueeze(1), 0.0),
        path=path,
        seen=[_unseen(each, alive) for each in record.seen],
        alive=alive,
    )


def _without(at: Position, alive: Tensor) -> Position:
    rows = alive.unsqueeze(1)
    return replace(
        at,
        parameters=at.parameters.where(rows, at.optimizee.initial_parameters),
        states=_finite(at.states),
        gradient=at.gradient.where(rows, 0.0),
        loss=at.loss.where(alive, 1.0),
    )


def _unseen(seen: Observation, alive: Tensor) -> Observation:
    return seen._replace(
        parameters=seen.parameters.where(alive.unsqueeze(1), 0.0),
        loss=seen.loss.where(alive, 1.0),
    )


def _finite(states: list) -> list:
    return [map_state(lambda part: torch.nan_to_num(part, 0.0, 0.0, 0.0), own) for own in states]
