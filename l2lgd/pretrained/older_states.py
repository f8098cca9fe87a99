"""States of LearnedOptimizer as version 0.1 kept them.

All numbers of a function lay in flat tensors ``recurrent0``, ``recurrent1``, … of its first
parameter, one block of coordinates after the other.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from l2lgd.optimizers.base import LearnedRule, Optimizer
from l2lgd.pretrained.assignment import Function
from l2lgd.pretrained.stepping import Stepper
from l2lgd.results.losses import digest


def is_older(state: Mapping[str, Any]) -> bool:
    return any(re.fullmatch(r"recurrent\d+", str(name)) for name in state)


def signature(functions: Sequence[Function], optimizers: Mapping[str, Optimizer]) -> str:
    """What a group was signed with."""
    found = hashlib.sha256()
    for key, indices, _ in functions:
        optimizer = optimizers[key]
        if isinstance(optimizer, LearnedRule):
            found.update(digest(optimizer.state_dict()).encode())
        found.update(f"{type(optimizer).__name__} {indices}".encode())
    return found.hexdigest()[:16]


def brought_up(
    state: Mapping[str, Any], parameters: Sequence[Tensor], stepper: Stepper, size: int
) -> list[dict[str, Tensor]]:
    """The parts of each parameter.

    Args:
        state: of the first of them.
        parameters: of the function, real.
        size: of the blocks.

    Raises:
        ValueError: it is of a function of another size.
    """
    n = sum(parameter.numel() for parameter in parameters)
    flat = [state[f"recurrent{index}"] for index in range(len(stepper.entries))]
    pieces: list[list[Tensor]] = [[] for _ in flat]
    at = [0] * len(flat)
    for begin in range(0, n, size):
        count = min(size, n - begin)
        for index, entry in enumerate(stepper.entries):
            shape = torch.Size(entry.shape(count))
            piece = flat[index][at[index] : at[index] + shape.numel()]
            if piece.numel() != shape.numel():
                raise ValueError("the state is of another model: it has too few numbers")
            at[index] += shape.numel()
            pieces[index].append(entry.from_rule(piece.view(shape), count))
    if any(at[index] != len(part) for index, part in enumerate(flat)):
        raise ValueError("the state is of another model: it has too many numbers")
    found: list[dict[str, Tensor]] = [{} for _ in parameters]
    for entry, rows in zip(stepper.entries, pieces, strict=True):
        if entry.axis is None:
            parts = [rows[0]] * len(parameters)
        else:
            whole = torch.cat(rows, -1)
            parts = list(whole.split([p.numel() for p in parameters], -1))
        for parameter, own, part in zip(parameters, found, parts, strict=True):
            kept = entry.new_part(parameter.to(part.device), n, part.dtype)
            into = kept if entry.axis is None else entry.rows(kept, parameter.shape)
            into.copy_(part)
            own[entry.name] = kept
    return found
