"""Running moments of the gradients of one tensor, as Adam and Adafactor have them.

Tensors are (B, *shape), of B functions; of several decays, an accumulator has one more dimension
(B, D, *shape). All start at zero, and there is no correction of their bias. Metz et al., Practical
tradeoffs between memory, compute, and performance in learned optimizers, 2022.
"""

from typing import NamedTuple

import torch
from torch import Tensor

TINY = 1e-30  # added to squares of gradients
LEAST = 1e-9  # of what an inverse root is taken of


class Accumulators(NamedTuple):
    """Of one tensor."""

    momentum: Tensor  # (B, D, *shape)
    second_moment: Tensor  # (B, 1, *shape)
    row: Tensor  # (B, D, *shape without its largest axis); of vectors (B, D, *shape)
    column: Tensor  # (B, D, *shape without its second largest axis); of vectors empty


class Decays(NamedTuple):
    """β, each (D,); or (B, D), where each function has its own."""

    momentum: Tensor
    second_moment: Tensor
    factored: Tensor


class Factors(NamedTuple):
    """What the factored second moment is to a tensor, (B, D, *shape)."""

    row: Tensor  # with one number along the axis that it has not
    column: Tensor
    scale: Tensor  # inverse root of their product


def axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The largest axis and the second largest, the later one of equals; None of vectors."""
    if len(shape) < 2:
        return None
    order = sorted(range(len(shape)), key=lambda axis: (shape[axis], axis))
    return order[-1], order[-2]


def zeros(parameters: Tensor, num_momenta: int, num_factored: int) -> Accumulators:
    """For parameters (B, *shape)."""
    count, *shape = parameters.shape
    found = axes(tuple(shape))
    if found is None:
        row, column = shape, [0]
    else:
        row, column = ([size for axis, size in enumerate(shape) if axis != gone] for gone in found)
    return Accumulators(
        parameters.new_zeros(count, num_momenta, *shape),
        parameters.new_zeros(count, 1, *shape),
        parameters.new_zeros(count, num_factored, *row),
        parameters.new_zeros(count, num_factored, *column),
    )


def advanced(before: Accumulators, gradient: Tensor, decays: Decays) -> Accumulators:
    """The accumulators after a gradient (B, *shape)."""
    own, square = gradient.unsqueeze(1), gradient.unsqueeze(1).square()
    shape = tuple(gradient.shape[1:])
    found, tiny = axes(shape), square + TINY
    if found is None:
        row, column = _mean(before.row, tiny, decays.factored), before.column
    else:
        largest, second = found
        row = _mean(before.row, tiny.mean(largest + 2), decays.factored)
        column = _mean(before.column, tiny.mean(second + 2), decays.factored)
    return Accumulators(
        _mean(before.momentum, own, decays.momentum),
        _mean(before.second_moment, square, decays.second_moment),
        row,
        column,
    )


def factors(kept: Accumulators, shape: tuple[int, ...]) -> Factors:
    """Row and column with the axes of the tensor, and the inverse root of their product."""
    found = axes(shape)
    if found is None:
        return Factors(kept.row, kept.row, inverse_root(kept.row + LEAST))
    largest, second = found
    left = second if second < largest else second - 1  # where the second axis is in the row
    relative = kept.row / (kept.row.mean(left + 2, keepdim=True) + LEAST)
    row = inverse_root(relative).unsqueeze(largest + 2)
    column = inverse_root(kept.column).unsqueeze(second + 2)
    return Factors(kept.row.unsqueeze(largest + 2), kept.column.unsqueeze(second + 2), row * column)


def inverse_root(x: Tensor) -> Tensor:
    """x^(−½), of numbers that are not too small."""
    return x.clamp(min=LEAST).rsqrt()


def _mean(before: Tensor, value: Tensor, decay: Tensor) -> Tensor:
    """β before + (1 − β) value, with a β (D,) or (B, D) for each of the second dimension."""
    beta = decay.view(*decay.shape, *[1] * (before.dim() - 2))
    return torch.lerp(value, before, beta)
