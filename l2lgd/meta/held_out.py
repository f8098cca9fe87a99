"""Held-out losses: how functions do on examples that they were not trained on."""

import torch
from torch import Tensor

from l2lgd.seeding import generator
from l2lgd.tasks.base import Optimizee, Split, Task

BATCHES = 25  # that a held-out loss is the mean of


def held_out_losses(
    task: Task,
    functions: Optimizee,
    parameters: Tensor,
    split: Split,
    seed: int,
    num_batches: int = BATCHES,
    rows: slice = slice(None),
) -> Tensor | None:
    """The mean loss of each function over minibatches of another split.

    The minibatches follow from ``seed``, ``split`` and the number of functions, so that they are
    the same for every optimizer and at every step of a trajectory.

    Args:
        task: has sampled the functions.
        functions: all B of them.
        parameters: where they are evaluated, θ (B, n), or of ``rows`` alone.
        split: whose examples they are evaluated on.
        num_batches: minibatches; one where all examples are in it.
        rows: of the functions that parameters are given for, such as a process's share.

    Returns:
        (B,), or of ``rows`` alone, without a graph; None for functions that have no such examples.
    """
    others = task.held_out(functions, split, generator(seed, "held out", split))
    return None if others is None else mean_losses(others.select(rows), parameters, num_batches)


@torch.no_grad()
def mean_losses(functions: Optimizee, parameters: Tensor, num_batches: int) -> Tensor:
    """Over the first steps, (B,); over one where all steps have the same loss."""
    steps = range(num_batches if functions.stochastic else 1)
    functions.prefetch(steps)
    return torch.stack([functions.loss(parameters, step) for step in steps]).mean(0)
