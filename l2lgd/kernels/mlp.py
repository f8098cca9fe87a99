"""The compiled per-parameter MLP on PyTorch tensors: a step of B functions of n coordinates.

It is that of :class:`l2lgd.optimizers.mlp.MLPRule`, for float32 and float64.
"""

import ctypes
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from l2lgd.kernels.build import SUFFIXES, call, library
from l2lgd.kernels.coordinatewise import can_read

LANGUAGE = "C++"
NAME = "mlp"
DECAYS = 7  # three of momenta, one of the second moment, three of rows and columns
State = Sequence[Sequence[Tensor]]  # of each tensor: momentum, second moment, row, column


@dataclass(frozen=True)
class MLPSettings:
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
    """The weights; B times as many where each function has its own."""

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
    state: tuple[tuple[int, ...], ...]  # shapes, without B
    sizes: tuple[int, ...]  # of the weights and biases of each layer, and of decays
    n: int  # coordinates; 0 where a tensor has none


def is_available() -> bool:
    return library(NAME) is not None


def step(
    settings: MLPSettings,
    tensors: Tensors,
    phi: Phi,
    number: Tensor,
    gradient: Tensor,
    parameters: Tensor,
    state: State,
    in_place: bool = False,
) -> tuple[Tensor, list[Sequence[Tensor]]] | None:
    """One step of every function.

    Args:
        number: t + 1, () or (B, 1).
        gradient, parameters: (B, n).
        state: of each tensor (B, D, …), see :mod:`l2lgd.optimizers.accumulators`.
        in_place: write the next state over ``state``.

    Returns:
        The update (B, n), and the next state. Where the rule makes updates orthogonal, those of
        matrices are as they are before that. None where a tensor is not one that the kernel can
        read: contiguous on the CPU, with memory of its own, of this shape and one type.
    """
    known, count = _described(settings, tensors), len(gradient)
    before = [part for parts in state for part in parts]
    shapes = [torch.Size((count, *shape)) for shape in known.state]
    pairs = [
        *zip(before, shapes, strict=True),
        *((p, (count, known.n)) for p in (gradient, parameters)),
    ]
    weights = (*(part for layer in phi.layers for part in layer), phi.decays)
    apart = [part.numel() != size for part, size in zip(weights, known.sizes, strict=True)]
    pairs += [(part, part.shape) for part in (*weights, number)]
    for part, own, size in zip(weights, apart, known.sizes, strict=True):
        if own and part.numel() != count * size:
            return None
    dtype = gradient.dtype
    if dtype not in SUFFIXES or not known.n or not all(_reads(*pair, dtype) for pair in pairs):
        return None
    update = torch.empty_like(gradient)
    following = before if in_place else [torch.empty_like(part) for part in before]
    rule = _Rule.from_buffer_copy(known.rule)
    rule.threads = torch.get_num_threads()
    strides = [size if own else 0 for own, size in zip(apart, known.sizes, strict=True)]
    call(
        NAME,
        "step",
        dtype,
        ctypes.byref(rule),
        *known.arrays,
        _pointers(weights),
        (ctypes.c_int64 * len(strides))(*strides),
        ctypes.c_void_p(number.data_ptr()),
        ctypes.c_int64(number.dim() > 0),
        ctypes.c_void_p(gradient.data_ptr()),
        ctypes.c_void_p(parameters.data_ptr()),
        _pointers(before),
        _pointers(following),
        ctypes.c_void_p(update.data_ptr()),
        ctypes.c_int64(count),
        ctypes.c_int64(known.n),
    )
    return update, [following[k : k + 4] for k in range(0, len(following), 4)]


def _reads(tensor: Tensor, shape: Sequence[int], dtype: torch.dtype) -> bool:
    return (
        tensor.is_cpu
        and tensor.dtype == dtype
        and tensor.shape == shape
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and can_read(tensor)
    )


@functools.lru_cache(maxsize=256)
def _described(settings: MLPSettings, tensors: Tensors) -> _Described:
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
    sizes = [
        size
        for inputs, outputs in itertools.pairwise(settings.widths)
        for size in (inputs * outputs, outputs)
    ]
    n = offset if all(map(math.prod, tensors.shapes)) else 0
    return _Described(rule, arrays, tuple(expected), (*sizes, DECAYS), n)


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


def _pointers(tensors: Sequence[Tensor]) -> "ctypes.Array[ctypes.c_void_p]":
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
