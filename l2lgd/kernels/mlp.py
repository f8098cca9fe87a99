"""The compiled per-parameter MLP on PyTorch tensors: a step of B functions of n coordinates.

It is that of :class:`l2lgd.optimizers.mlp.MLPRule`. All tensors are on the CPU, contiguous, and of
one type, float32 or float64.
"""

import ctypes
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from l2lgd.kernels.build import SUFFIXES, call, library

LANGUAGE = "C++"
NAME = "mlp"
DECAYS = 7  # three of momenta, one of the second moment, three of rows and columns
State = Sequence[Sequence[Tensor]]  # of each tensor: momentum, second moment, row, column


@dataclass(frozen=True)
class Settings:
    """What the rule has besides weights; the names of MLPRule.

    Args:
        inputs: places in ``INPUTS`` there.
        widths: inputs of the network, units of its hidden layers, outputs.
    """

    inputs: tuple[int, ...]
    widths: tuple[int, ...]
    vector_inputs: int
    time: bool
    second_moment_epsilon: float
    diagonal_epsilon: float
    gradient_clip: float | None
    normalise_over: str
    normalisation_epsilon: float
    step_size: float
    magnitude: float
    scale_by_parameter: bool
    orthogonalise: bool
    normalise_update: bool


class Tensors(NamedTuple):
    """The parameter tensors of a function, in their order."""

    shapes: tuple[tuple[int, ...], ...]  # a scalar is a vector of one number
    axes: tuple[tuple[int, int] | None, ...]  # the largest and the second largest; None of vectors


class Phi(NamedTuple):
    """The weights; with a first dimension of B where each function has its own."""

    layers: Sequence[tuple[Tensor, Tensor]]  # weight (inputs, outputs), bias (outputs,)
    decays: Tensor  # β (7,)


class _Rule(ctypes.Structure):
    """``Rule`` of mlp.cpp."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("inputs", "layers", "vector_features", "times")),
        *((name, ctypes.c_int32) for name in ("per_matrix", "scale_by_parameter")),
        *((name, ctypes.c_int32) for name in ("orthogonalise", "normalise_update")),
        *((name, ctypes.c_int32) for name in ("tensors", "threads")),
        *((name, ctypes.c_double) for name in ("second_moment_epsilon", "diagonal_epsilon")),
        *((name, ctypes.c_double) for name in ("gradient_clip", "normalisation_epsilon")),
        *((name, ctypes.c_double) for name in ("step_size", "magnitude")),
    ]


class _Shape(ctypes.Structure):
    """``Shape`` of mlp.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("offset", "size")),
        *((name, ctypes.c_int64) for name in ("outer", "first", "middle", "second", "inner")),
        ("matrices", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("vector", "first_is_largest")),
    ]


class _Described(NamedTuple):
    """What is the same at every step."""

    rule: _Rule
    arrays: tuple[Any, ...]  # inputs, widths, shapes
    expected: tuple[tuple[int, ...], ...]  # shapes of the state, without B
    n: int


def is_available() -> bool:
    return library(NAME) is not None


def step(
    settings: Settings,
    tensors: Tensors,
    phi: Phi,
    number: Tensor,
    gradient: Tensor,
    parameters: Tensor,
    state: State,
    in_place: bool = False,
) -> tuple[Tensor, list[list[Tensor]]]:
    """One step of every function.

    Args:
        number: t + 1, () or (B, 1).
        gradient, parameters: (B, n).
        state: of each tensor (B, D, …), see :mod:`l2lgd.optimizers.accumulators`.
        in_place: write the next state over ``state``.

    Returns:
        The update (B, n), and the next state. Where the rule makes updates orthogonal, those of
        matrices are as they are before that.
    """
    described = _described(settings, tensors)
    count = len(gradient)
    flat = [part for parts in state for part in parts]
    layers = [part for layer in phi.layers for part in layer]
    _check(described, settings, count, flat, (gradient, parameters), (*layers, phi.decays), number)
    update = torch.empty_like(gradient)
    following = flat if in_place else [torch.empty_like(part) for part in flat]
    rule = _Rule.from_buffer_copy(described.rule)
    rule.threads = torch.get_num_threads()
    weights = (*layers, phi.decays)
    sizes = [part.numel() for part in weights]
    apart = [part.dim() > 1 + (k % 2 == 0 and k < len(layers)) for k, part in enumerate(weights)]
    strides = [size // count if own else 0 for size, own in zip(sizes, apart, strict=True)]
    call(
        NAME,
        "step",
        gradient.dtype,
        ctypes.byref(rule),
        *described.arrays,
        _pointers(weights),
        (ctypes.c_int64 * len(strides))(*strides),
        ctypes.c_void_p(number.data_ptr()),
        ctypes.c_int64(number.dim() > 0),
        ctypes.c_void_p(gradient.data_ptr()),
        ctypes.c_void_p(parameters.data_ptr()),
        _pointers(flat),
        _pointers(following),
        ctypes.c_void_p(update.data_ptr()),
        ctypes.c_int64(count),
        ctypes.c_int64(described.n),
    )
    return update, [following[k : k + 4] for k in range(0, len(following), 4)]


@functools.lru_cache(maxsize=256)
def _described(settings: Settings, tensors: Tensors) -> _Described:
    clip = settings.gradient_clip
    rule = _Rule(
        inputs=len(settings.inputs),
        layers=len(settings.widths) - 1,
        vector_features=settings.vector_inputs,
        times=settings.time,
        per_matrix=settings.normalise_over == "matrix",
        scale_by_parameter=settings.scale_by_parameter,
        orthogonalise=settings.orthogonalise,
        normalise_update=settings.normalise_update,
        tensors=len(tensors.shapes),
        second_moment_epsilon=settings.second_moment_epsilon,
        diagonal_epsilon=settings.diagonal_epsilon,
        gradient_clip=math.inf if clip is None else clip,
        normalisation_epsilon=settings.normalisation_epsilon,
        step_size=settings.step_size,
        magnitude=settings.magnitude,
    )
    shapes, expected, offset = [], [], 0
    for shape, axes in zip(*tensors, strict=True):
        shapes.append(_shape(shape, axes, offset))
        offset += math.prod(shape)
        kept = [shape, (0,)]  # rows and columns
        if axes is not None:
            kept = [tuple(n for k, n in enumerate(shape) if k != gone) for gone in axes]
        expected += [(3, *shape), (1, *shape), *((3, *part) for part in kept)]
    arrays = (
        (ctypes.c_int32 * len(settings.inputs))(*settings.inputs),
        (ctypes.c_int32 * len(settings.widths))(*settings.widths),
        (_Shape * len(shapes))(*shapes),
    )
    return _Described(rule, arrays, tuple(expected), offset)


def _shape(shape: tuple[int, ...], axes: tuple[int, int] | None, offset: int) -> _Shape:
    size = math.prod(shape)
    if axes is None:
        return _Shape(offset, size, 1, 1, 1, size, 1, 1, True, False)
    first, second = sorted(axes)
    return _Shape(
        offset,
        size,
        math.prod(shape[:first]),
        shape[first],
        math.prod(shape[first + 1 : second]),
        shape[second],
        math.prod(shape[second + 1 :]),
        math.prod(shape[:-2]),
        False,
        axes[0] == first,
    )


def _check(
    described: _Described,
    settings: Settings,
    count: int,
    state: Sequence[Tensor],
    flat: Sequence[Tensor],
    weights: Sequence[Tensor],
    number: Tensor,
) -> None:
    """Raise ValueError unless every tensor is as the kernel will read it."""
    dtype, expected = number.dtype, [(count, *shape) for shape in described.expected]
    if dtype not in SUFFIXES:
        raise ValueError(f"{dtype}: need float32 or float64")
    expected += [(count, described.n)] * len(flat)
    pairs = list(zip((*state, *flat), expected, strict=True))
    sizes: list[tuple[int, ...]] = []
    for inputs, outputs in zip(settings.widths, settings.widths[1:], strict=False):
        sizes += [(inputs, outputs), (outputs,)]
    for part, shape in zip(weights, (*sizes, (DECAYS,)), strict=True):
        pairs.append((part, shape if part.dim() == len(shape) else (count, *shape)))
    pairs.append((number, (count, 1) if number.dim() else ()))
    for tensor, shape in pairs:
        if tensor.shape != shape:
            raise ValueError(f"shape {tuple(tensor.shape)}, expected {shape}")
        if tensor.dtype != dtype or tensor.device.type != "cpu":
            raise ValueError(f"{tensor.dtype} on {tensor.device}: need {dtype} on the CPU")
        if not tensor.is_contiguous() or tensor.is_neg():
            raise ValueError("need contiguous tensors")


def _pointers(tensors: Sequence[Tensor]) -> "ctypes.Array[ctypes.c_void_p]":
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
