"""Batch normalisation, ReLU and max pooling in one, the part of a convnet beside its convolutions.

On a CPU with a compiler it is one kernel, elsewhere PyTorch's own operations; the numbers are the
same to rounding.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from l2lgd.kernels.build import SUFFIXES, call, library

NAME = "normalised_pool"


def normalised_pool(images: Tensor, offset: Tensor, epsilon: float) -> Tensor:
    """ReLU(normalised images + offset), the largest of each 2 × 2 window.

    Normalised means that each channel has mean 0 and variance 1 over all images and pixels.

    Args:
        images: (N, C, height, width), best channels last in memory.
        offset: (C,).
        epsilon: added to the variance.

    Returns:
        (N, C, ⌈height/2⌉, ⌈width/2⌉), channels last in memory.
    """
    compiled = (
        images.device.type == "cpu" and images.dtype in SUFFIXES and library(NAME) is not None
    )
    return _Compiled.apply(images, offset, epsilon) if compiled else plain(images, offset, epsilon)


def plain(images: Tensor, offset: Tensor, epsilon: float) -> Tensor:
    """:func:`normalised_pool` by PyTorch's operations, as often differentiable as one likes."""
    scale = torch.ones_like(offset)  # without one, PyTorch has no second derivatives
    images = functional.batch_norm(images, None, None, scale, offset, training=True, eps=epsilon)
    return torch.relu(functional.max_pool2d(images, 2, ceil_mode=True))


class _Shape(ctypes.Structure):
    """``Shape`` of normalised_pool.cpp."""

    _fields_ = [
        (name, ctypes.c_int64) for name in ("images", "height", "width", "channels", "threads")
    ]


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, offset: Tensor, epsilon: float) -> Tensor:
        channels_last = images.permute(0, 2, 3, 1).contiguous()
        count, height, width, channels = channels_last.shape
        out = images.new_empty(count, (height + 1) // 2, (width + 1) // 2, channels)
        index = torch.empty_like(out)
        mean, rstd = images.new_empty(channels), images.new_empty(channels)
        _call(
            "forward",
            channels_last,
            *(channels_last, offset.contiguous()),
            ctypes.c_double(epsilon),
            *(out, index, mean, rstd),
        )
        ctx.save_for_backward(images, offset, channels_last, out, index, mean, rstd)
        ctx.epsilon = epsilon
        return out.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, Tensor, None]:
        (d_out,) = cotangents
        images, offset, channels_last, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants second derivatives
            again = plain(images, offset, ctx.epsilon)
            exact = torch.autograd.grad(again, (images, offset), d_out, create_graph=True)
            return exact[0], exact[1], None
        d_images, d_offset = torch.empty_like(channels_last), torch.empty_like(offset)
        d_out = d_out.permute(0, 2, 3, 1).contiguous()
        _call(
            "backward",
            channels_last,
            *(channels_last, offset.contiguous(), *kept, d_out, d_images, d_offset),
        )
        return d_images.permute(0, 3, 1, 2), d_offset, None


def _call(name: str, channels_last: Tensor, *arguments: Any) -> None:
    shape = _Shape(*channels_last.shape, torch.get_num_threads())
    pointers = (ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else a for a in arguments)
    call(NAME, name, channels_last.dtype, ctypes.byref(shape), *pointers)
