"""The compiled coordinatewise LSTM on PyTorch tensors: N coordinates, L layers of H units.

The flat weights φ (P,) are those of :class:`l2lgd.optimizers.coordinatewise.CoordinatewiseLSTM`,
layer by layer, then the output's. A state is a pair, hidden and cell, of L tensors (H, N) each. All
tensors are on the CPU, contiguous unless it is said, and of one type, float32 or float64.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from l2lgd.kernels.build import SUFFIXES, call, library

LANGUAGE = "C++"
NAME = "coordinatewise"
State = tuple[Sequence[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Settings:
    """What the network has besides weights; the names of CoordinatewiseLSTM."""

    num_layers: int
    hidden_size: int
    preprocessing: str
    p: float
    output_scale: float
    forget_bias: float

    @property
    def num_features(self) -> int:
        """F, what the preprocessing makes of one gradient."""
        return 2 if self.preprocessing == "log_sign" else 1

    @property
    def num_weights(self) -> int:
        """The size of the flat φ: for each layer weight and bias, then those of the output."""
        size = self.hidden_size
        inputs = self.num_features + size * (self.num_layers - 1)
        return 4 * size * (inputs + (size + 1) * self.num_layers) + size + 1


class _Network(ctypes.Structure):
    """``Network`` of coordinatewise.cpp."""

    _fields_ = [
        ("layers", ctypes.c_int32),
        ("hidden", ctypes.c_int32),
        ("log_sign", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("p", ctypes.c_double),
        ("output_scale", ctypes.c_double),
        ("forget_bias", ctypes.c_double),
    ]


def is_available() -> bool:
    return library(NAME) is not None


def can_read(tensor: Tensor) -> bool:
    """Has it an address? Tensors that are sharded, fake or somebody's subclass have none."""
    try:
        return tensor.numel() == 0 or tensor.data_ptr() != 0
    except RuntimeError:  # as PyTorch says of tensors inside vmap
        return False


def step(
    settings: Settings,
    weights: Tensor,
    gradient: Tensor,
    state: State,
    in_place: bool = False,
) -> tuple[Tensor, State]:
    """One step of every coordinate.

    Args:
        weights: φ (P,).
        gradient: (N,).
        in_place: write the next state over ``state``, whose tensors may then be columns of wider
            ones, all of one width.

    Returns:
        The update (N,), and the next state.
    """
    (n,) = gradient.shape
    stride = state[0][0].stride(0) if in_place else n
    _check(settings, weights, state, n, (gradient, (n,)), stride=stride)
    update = torch.empty_like(gradient)
    following = state
    if not in_place:
        hidden, cell = ([torch.empty_like(part) for part in parts] for parts in state)
        following = (hidden, cell)
    _call(
        "step",
        gradient.dtype,
        _network(settings),
        weights.data_ptr(),
        gradient.data_ptr(),
        *(_pointers(parts) for parts in (*state, *following)),
        update.data_ptr(),
        ctypes.c_int64(n),
        ctypes.c_int64(stride),
    )
    return update, following


def replay(
    settings: Settings,
    weights: Tensor,
    gradients: Tensor,
    cotangents: Tensor,
    state: State,
    into: Tensor,
) -> None:
    """Add the vector–Jacobian product of an unroll with respect to φ to ``into`` (P,).

    Args:
        weights: φ (P,).
        gradients: ∇_t (U, N).
        cotangents: ∂L/∂g_t (U, N).
        state: before the first step.
    """
    num_steps, n = gradients.shape
    arrays = ((gradients, (num_steps, n)), (cotangents, (num_steps, n)))
    _check(settings, weights, state, n, *arrays, (into, weights.shape))
    _call(
        "replay",
        gradients.dtype,
        _network(settings),
        weights.data_ptr(),
        gradients.data_ptr(),
        cotangents.data_ptr(),
        *(_pointers(parts) for parts in state),
        into.data_ptr(),
        ctypes.c_int64(n),
        ctypes.c_int(num_steps),
    )


def step_back(
    settings: Settings,
    weights: Tensor,
    gradient: Tensor,
    cotangent: Tensor,
    state: State,
    d_state: State,
    into: Tensor,
) -> Tensor:
    """The vector–Jacobian product of one step with respect to everything it depends on.

    Args:
        weights: φ (P,).
        gradient: (N,).
        cotangent: ∂L/∂g_t (N,).
        state: before the step.
        d_state: ∂L/∂ the state after the step, overwritten with ∂L/∂ that before it.
        into: ∂L/∂φ is added to it (P,).

    Returns:
        ∂L/∂ the features of the preprocessed gradient, (F, N).
    """
    (n,) = gradient.shape
    _check(settings, weights, state, n, (gradient, (n,)), (cotangent, (n,)))
    _check(settings, weights, d_state, n, (into, weights.shape))
    d_features = gradient.new_empty(settings.num_features, n)
    _call(
        "step_back",
        gradient.dtype,
        _network(settings),
        weights.data_ptr(),
        gradient.data_ptr(),
        cotangent.data_ptr(),
        *(_pointers(parts) for parts in (*state, *d_state)),
        into.data_ptr(),
        d_features.data_ptr(),
        ctypes.c_int64(n),
    )
    return d_features


def unflatten(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of a flat tensor (P,) with the shapes of ``like``, in the order of φ."""
    sizes = [part.numel() for part in like]
    return [piece.view_as(part) for piece, part in zip(flat.split(sizes), like, strict=True)]


def _check(
    settings: Settings,
    weights: Tensor,
    state: State,
    n: int,
    *arrays: tuple[Tensor, tuple[int, ...]],
    stride: int | None = None,
) -> None:
    """Raise ValueError unless every tensor is as the kernel will read it.

    Args:
        stride: between the rows of states; None for n.
    """
    if any(len(parts) != settings.num_layers for parts in state):
        raise ValueError(f"need the states of {settings.num_layers} layers")
    states = [(part, (settings.hidden_size, n)) for parts in state for part in parts]
    whole = (*arrays, (weights, (settings.num_weights,)))
    for tensor, shape in (*whole, *states):
        if tensor.shape != shape:
            raise ValueError(f"shape {tuple(tensor.shape)}, expected {tuple(shape)}")
        if tensor.dtype != weights.dtype or tensor.dtype not in SUFFIXES:
            raise ValueError(f"{tensor.dtype}: need one type, float32 or float64")
        if tensor.device.type != "cpu" or tensor.is_neg():
            raise ValueError("need tensors on the CPU")
        if not can_read(tensor):
            raise ValueError(f"{type(tensor).__name__}: need tensors with memory of their own")
    if not all(tensor.is_contiguous() for tensor, _ in whole):
        raise ValueError("need contiguous tensors")
    if not all(_has_rows(part, n if stride is None else stride) for part, _ in states):
        raise ValueError("need contiguous states, or in place, columns of states of one width")


def _has_rows(part: Tensor, stride: int) -> bool:
    """Are its rows contiguous, and so far apart?"""
    rows, columns = part.shape
    return columns == 0 or (
        (rows == 1 or part.stride(0) == stride) and (columns == 1 or part.stride(1) == 1)
    )


def _network(settings: Settings) -> _Network:
    return _Network(
        settings.num_layers,
        settings.hidden_size,
        settings.preprocessing == "log_sign",
        torch.get_num_threads(),
        settings.p,
        settings.output_scale,
        settings.forget_bias,
    )


def _pointers(tensors: Sequence[Tensor]) -> "ctypes.Array[ctypes.c_void_p]":
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _call(name: str, dtype: torch.dtype, network: _Network, *arguments: Any) -> None:
    pointers = (ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments)
    call(NAME, name, dtype, ctypes.byref(network), *pointers)
