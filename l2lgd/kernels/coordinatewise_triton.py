"""The functions of :mod:`l2lgd.kernels.coordinatewise` on a GPU, in Triton.

The kernels of :mod:`l2lgd.kernels.triton_layers` take a layer through all steps of an unroll,
forward and back. Sums over coordinates are matrix products, left to PyTorch. A replay does a slice
of coordinates at a time, which bounds its memory.
"""

import functools
import operator
from collections.abc import Callable

import torch
from torch import Tensor

from l2lgd.kernels.coordinatewise import Settings, State

try:
    import triton
except ImportError:  # not on every platform
    triton = None
else:
    from l2lgd.kernels import triton_layers

LANGUAGE = "Triton"
BLOCK = 64  # coordinates of a program
LAUNCH = {"num_warps": 8, "num_stages": 1}  # 12 KB of shared memory, few registers spilled
LARGEST = 32  # hidden units
SLICE = 1 << 21  # coordinate-steps of a slice, of 800 bytes each with the paper's network


def is_available() -> bool:
    return triton is not None


def fits(settings: Settings) -> bool:
    """Is there Triton, and is the network small enough for the registers of a program?"""
    return is_available() and settings.hidden_size <= LARGEST


def step(
    settings: Settings,
    weights: Tensor,
    gradient: Tensor,
    state: State,
) -> tuple[Tensor, State]:
    """As the function of the same name for the CPU."""
    room = (settings.hidden_size, 1, len(gradient))
    following = _each(lambda part: part.new_empty(room), state)
    _forward_all(settings, weights, gradient.unsqueeze(0), state, following)
    _, output = _split(settings, weights)
    hidden = following[0][-1].squeeze(1)
    update = torch.addmv(output[-1:], hidden.T, output[:-1]) * settings.output_scale
    return update, _each(lambda part: part.squeeze(1), following)


def replay(
    settings: Settings,
    weights: Tensor,
    gradients: Tensor,
    cotangents: Tensor,
    state: State,
    into: Tensor,
) -> None:
    """As the function of the same name for the CPU."""
    num_steps, n = gradients.shape
    # States of all steps are kept for the way back; slices bound them, whatever n and U are.
    columns = max(BLOCK, SLICE // num_steps)
    for begin in range(0, n, columns):
        part = slice(begin, begin + columns)
        before = _each(operator.itemgetter((slice(None), part)), state)
        d_state = _each(lambda tensor: tensor.new_zeros(tensor.shape), before)
        own = (gradients[:, part], cotangents[:, part])
        _there_and_back(settings, weights, *own, before, d_state, into)


def step_back(
    settings: Settings,
    weights: Tensor,
    gradient: Tensor,
    cotangent: Tensor,
    state: State,
    d_state: State,
    into: Tensor,
) -> Tensor:
    """As the function of the same name for the CPU."""
    own = (gradient.unsqueeze(0), cotangent.unsqueeze(0))
    return _there_and_back(settings, weights, *own, state, d_state, into)


def _forward_all(
    settings: Settings, weights: Tensor, gradients: Tensor, before: State, following: State
) -> None:
    """All steps of all layers, for gradients (U, N).

    Args:
        before: the state before the first step; rows may be apart.
        following: gets the states after each step, L × (H, U, N); rows may be apart.
    """
    layers, _ = _split(settings, weights)
    num_steps, n = gradients.shape
    incoming = gradients.unsqueeze(0)
    for index, (weight, bias) in enumerate(layers):
        hidden, cell = (parts[index] for parts in before)
        new_hidden, new_cell = (parts[index] for parts in following)
        triton_layers.forward[(triton.cdiv(n, BLOCK),)](
            incoming,
            hidden,
            cell,
            new_hidden,
            new_cell,
            weight,
            bias,
            n,
            num_steps,
            incoming.stride(0),
            incoming.stride(1),
            hidden.stride(0),
            cell.stride(0),
            new_hidden.stride(0),
            *_constants(settings, index),
            **LAUNCH,
        )
        incoming = new_hidden


def _there_and_back(
    settings: Settings,
    weights: Tensor,
    gradients: Tensor,
    cotangents: Tensor,
    before: State,
    d_state: State,
    into: Tensor,
) -> Tensor:
    """The vector–Jacobian product of U steps with respect to everything they depend on.

    Args:
        gradients, cotangents: (U, N).
        before: the state before the first step; rows may be apart.
        d_state: as for :func:`step_back`, after the last and before the first step.

    Returns:
        ∂L/∂ the features of all steps (F, U·N).
    """
    num_steps, n = gradients.shape
    size = settings.hidden_size
    path = _each(lambda part: part.new_empty(size, num_steps + 1, n), before)
    for rooms, parts in zip(path, before, strict=True):
        for room, part in zip(rooms, parts, strict=True):
            room[:, 0] = part
    following = _each(lambda room: room[:, 1:], path)
    _forward_all(settings, weights, gradients, before, following)
    layers, output = _split(settings, weights)
    d_layers, d_output = _split(settings, into)
    scaled = settings.output_scale * cotangents.flatten()  # (U·N)
    d_output[:-1].addmv_(following[0][-1].flatten(1), scaled)
    d_output[-1:] += scaled.sum()
    d_out = torch.outer(output[:-1], scaled)  # (H, U·N)
    for index in reversed(range(settings.num_layers)):
        (weight, bias), (d_weight, d_bias) = layers[index], d_layers[index]
        incoming = following[0][index - 1] if index else gradients.unsqueeze(0)
        deltas = gradients.new_empty(4 * size, num_steps * n)
        inputs = size if index else settings.num_features
        features = deltas if index else gradients.new_empty(inputs, num_steps * n)
        hidden, cell = (parts[index] for parts in path)
        triton_layers.backward[(triton.cdiv(n, BLOCK),)](
            incoming,
            hidden,
            cell,
            weight,
            bias,
            d_out,
            d_state[0][index],
            d_state[1][index],
            deltas,
            features,
            n,
            num_steps,
            incoming.stride(0),
            incoming.stride(1),
            *_constants(settings, index),
            **LAUNCH,
        )
        matrix, d_matrix = (w.view(4 * size, inputs + size) for w in (weight, d_weight))
        d_matrix[:, :inputs].addmm_(deltas, (incoming.flatten(1) if index else features).T)
        d_matrix[:, inputs:].addmm_(deltas, hidden[:, :-1].flatten(1).T)
        d_bias += deltas.sum(1)
        d_out = matrix[:, :inputs].T @ deltas
    return d_out


def _each(function: Callable[[Tensor], Tensor], state: State) -> State:
    hidden, cell = state
    return tuple(map(function, hidden)), tuple(map(function, cell))


def _split(settings: Settings, flat: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Weight (4H, in + H) and bias (4H) of each layer, and those of the output (H + 1)."""
    size, layers, begin = settings.hidden_size, [], 0
    for index in range(settings.num_layers):
        width = size + (size if index else settings.num_features)
        middle = begin + 4 * size * width
        end = middle + 4 * size
        layers.append((flat[begin:middle], flat[middle:end]))
        begin = end
    return layers, flat[begin:]


@functools.cache
def _constants(settings: Settings, index: int) -> tuple[float | bool, ...]:
    """What the kernels of a layer are compiled for."""
    size = settings.hidden_size
    return (
        settings.p,
        settings.forget_bias,
        size if index else settings.num_features,
        size,
        max(16, triton.next_power_of_2(size)),
        index == 0,
        settings.preprocessing == "log_sign",
        BLOCK,
    )
