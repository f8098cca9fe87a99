"""Functions that diverged in an unroll, left out of its meta-gradient.

A loss, gradient or update that is not finite makes the meta-gradient of the whole stack so, though
the functions do not depend on each other. Without those functions it is the mean over the others.
"""

from dataclasses import replace

import torch
from torch import Tensor

from l2lgd.optimizers.base import map_state
from l2lgd.unroll import Position, Record


def finite_functions(record: Record) -> Tensor | None:
    """Of which functions all losses and gradients are finite, (B,); None if of all."""
    total = record.gradients.sum() + record.losses.sum()
    if total.isfinite():  # one that is not would have shown
        return None
    largest = record.gradients.abs().amax((0, 2))
    alive = largest.isfinite() & record.losses.isfinite().all(0)
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


def _finite(states: list) -> list:
    return [map_state(lambda part: torch.nan_to_num(part, 0.0, 0.0, 0.0), own) for own in states]
