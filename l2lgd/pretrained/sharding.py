"""Parameters whose numbers are elsewhere: sharded over processes, or nowhere at all.

A DTensor (FSDP2, tensor parallelism) has a local tensor, which is what a coordinatewise rule steps.
FSDP1 makes parameters of pieces of a flat one, and takes states only of exactly their shape.
"""

from typing import Any

import torch
from torch import Tensor

from l2lgd.pretrained.layout import Entry


def is_distributed(tensor: Tensor) -> bool:
    """Is it a DTensor? Its module is only there where PyTorch has been built with it."""
    return hasattr(tensor, "placements") and hasattr(tensor, "to_local")


def is_whole(parameter: Tensor) -> bool:
    """Does this process have all of it?"""
    known: Any = parameter
    if is_distributed(parameter):
        return all(placement.is_replicate() for placement in known.placements)
    return not is_flattened(parameter)


def is_flattened(parameter: Tensor) -> bool:
    """Is it FSDP1's?"""
    return bool(getattr(parameter, "_fsdp_flattened", False))


def local(tensor: Tensor) -> Tensor:
    """What this process has of it, the same memory."""
    known: Any = tensor
    found: Tensor = known.to_local() if is_distributed(tensor) else tensor
    return found


def placed_as(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A gradient on the same shards as its parameter."""
    gradient, home = tensor, parameter
    known: Any = gradient
    like: Any = home
    if is_distributed(gradient) and is_distributed(home) and known.placements != like.placements:
        found: Tensor = known.redistribute(like.device_mesh, like.placements)
        return found
    return gradient


def distributed_as(part: Tensor, entry: Entry, parameter: Tensor, n: int) -> Tensor:
    """A part of a state, of this process's shard, as a tensor that is sharded as its parameter."""
    if not is_distributed(parameter) or entry.axis is None:
        return part
    from torch.distributed.tensor import DTensor

    home: Any = parameter
    whole = entry.new_part(torch.empty(real_shape(parameter), device="meta"), n, part.dtype)
    return DTensor.from_local(
        part,
        home.device_mesh,
        home.placements,
        run_check=False,
        shape=whole.shape,
        stride=whole.stride(),
    )


def real(tensor: Tensor) -> Tensor:
    """Complex numbers as two real ones, as PyTorch's optimizers take them."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def real_shape(tensor: Tensor) -> torch.Size:
    """Of :func:`real`."""
    return torch.Size((*tensor.shape, 2)) if tensor.is_complex() else tensor.shape


def is_fake(tensor: Tensor) -> bool:
    """Is it a stand-in without numbers, of PyTorch's fake mode?"""
    return type(tensor).__name__ == "FakeTensor" or getattr(tensor, "fake_mode", None) is not None
