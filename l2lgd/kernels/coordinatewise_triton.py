"""The functions of :mod:`l2lgd.kernels.coordinatewise` on a GPU, in Triton.

A program takes a layer's block of coordinates through all steps of an unroll: one kernel forward,
keeping the states on the chip and leaving them in memory, one back, from the stored states to the
cotangents of the gates' inputs. Sums over coordinates are matrix products, left to PyTorch. A
replay does a slice of coordinates at a time, which bounds its memory.

Everything is float32; products on the chip are made of three in TF32, which differs by rounding.
Without a GPU, Triton's interpreter runs the same arithmetic.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from l2lgd.kernels.coordinatewise import Settings, State

try:
    import triton
    from triton import language as tl
except ImportError:  # not on every platform
    triton = None

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
    columns = max(BLOCK, SLICE // num_steps)
    for begin in range(0, n, columns):
        part = slice(begin, begin + columns)
        before = _each(lambda tensor, part=part: tensor[:, part], state)
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
        _forward[(triton.cdiv(n, BLOCK),)](
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
        _backward[(triton.cdiv(n, BLOCK),)](
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
def _constants(settings: Settings, index: int) -> tuple:
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


if triton is not None:

    @triton.jit
    def _features(gradient, p, LOG_SIGN: tl.constexpr):
        """As preprocessing.log_sign; or the gradient, and a zero."""
        if LOG_SIGN:
            size = tl.abs(gradient)
            magnitude = tl.log(tl.maximum(size, 1.1754943508222875e-38)) / p
            magnitude = tl.where(magnitude < -1.0, -1.0, magnitude)
            direction = gradient * tl.exp(p)
            direction = tl.where(direction < -1.0, -1.0, direction)
            direction = tl.where(direction > 1.0, 1.0, direction)
            return magnitude, direction
        return gradient, tl.zeros_like(gradient)

    @triton.jit
    def _tanh(x):
        return 2 * tl.sigmoid(2 * x) - 1

    @triton.jit
    def _block(pointer, stride, columns, rows, ROWS, n):
        """(HP, BLOCK) of an array (ROWS, n), zero beyond its edges."""
        inside = (rows[:, None] < ROWS) & (columns[None, :] < n)
        at = rows[:, None].to(tl.int64) * stride + columns[None, :]
        return tl.load(pointer + at, mask=inside, other=0.0)

    @triton.jit
    def _matrix(weight, first, shift, rows, columns, ROWS, COLUMNS, width):
        """(HP, HP) of the weight (4H, width) from row ``first`` and column ``shift`` on."""
        inside = (rows[:, None] < ROWS) & (columns[None, :] < COLUMNS)
        at = (first + rows[:, None]) * width + shift + columns[None, :]
        return tl.load(weight + at, mask=inside, other=0.0)

    @triton.jit
    def _gate(
        weight,
        bias,
        x,
        f0,
        f1,
        h,
        GATE: tl.constexpr,
        IN: tl.constexpr,
        H: tl.constexpr,
        HP: tl.constexpr,
        FIRST: tl.constexpr,
    ):
        """What goes into one gate's activation function, (HP, BLOCK)."""
        rows = tl.arange(0, HP)
        width = IN + H
        total = tl.dot(
            _matrix(weight, GATE * H, IN, rows, rows, H, H, width), h, input_precision="tf32x3"
        )
        total += tl.load(bias + GATE * H + rows, mask=rows < H, other=0.0)[:, None]
        if FIRST:
            at = weight + (GATE * H + rows) * width
            total += tl.load(at, mask=rows < H, other=0.0)[:, None] * f0[None, :]
            if IN > 1:
                total += tl.load(at + 1, mask=rows < H, other=0.0)[:, None] * f1[None, :]
        else:
            inner = _matrix(weight, GATE * H, 0, rows, rows, H, H, width)
            total += tl.dot(inner, x, input_precision="tf32x3")
        return total

    @triton.jit
    def _gates(
        incoming,
        row,
        h,
        weight,
        bias,
        columns,
        n,
        p,
        forget_bias,
        IN: tl.constexpr,
        H: tl.constexpr,
        HP: tl.constexpr,
        FIRST: tl.constexpr,
        LOG_SIGN: tl.constexpr,
    ):
        """The features of a first layer, and the gates of a layer for a block of coordinates."""
        if FIRST:
            gradient = tl.load(incoming + columns, mask=columns < n, other=0.0)
            f0, f1 = _features(gradient, p, LOG_SIGN)
            x = h  # not used
        else:
            x = _block(incoming, row, columns, tl.arange(0, HP), H, n)
            f0, f1 = p, p  # not used
        i = tl.sigmoid(_gate(weight, bias, x, f0, f1, h, 0, IN, H, HP, FIRST))
        f = tl.sigmoid(_gate(weight, bias, x, f0, f1, h, 1, IN, H, HP, FIRST) + forget_bias)
        o = tl.sigmoid(_gate(weight, bias, x, f0, f1, h, 2, IN, H, HP, FIRST))
        candidate = _tanh(_gate(weight, bias, x, f0, f1, h, 3, IN, H, HP, FIRST))
        return f0, f1, i, f, o, candidate

    @triton.jit
    def _forward(
        incoming,
        hidden,
        cell,
        new_hidden,
        new_cell,
        weight,
        bias,
        n,
        num_steps,
        in_row,
        in_time,
        h_row,
        c_row,
        new_row,
        p,
        forget_bias,
        IN: tl.constexpr,
        H: tl.constexpr,
        HP: tl.constexpr,
        FIRST: tl.constexpr,
        LOG_SIGN: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """All steps of a layer, (H, N) → (H, U, N)."""
        columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        rows = tl.arange(0, HP)
        inside = (rows[:, None] < H) & (columns[None, :] < n)
        to = rows[:, None].to(tl.int64) * new_row + columns[None, :]
        h = _block(hidden, h_row, columns, rows, H, n)
        c = _block(cell, c_row, columns, rows, H, n)
        for step in range(num_steps):
            t = tl.cast(step, tl.int64)
            _, _, i, f, o, candidate = _gates(
                incoming + t * in_time, in_row, h, weight, bias, columns, n,
                p, forget_bias, IN, H, HP, FIRST, LOG_SIGN,
            )  # fmt: skip
            c = f * c + i * candidate
            h = o * _tanh(c)
            tl.store(new_cell + t * n + to, c, mask=inside)
            tl.store(new_hidden + t * n + to, h, mask=inside)

    @triton.jit
    def _turned(
        weight,
        delta,
        GATE: tl.constexpr,
        IN: tl.constexpr,
        H: tl.constexpr,
        HP: tl.constexpr,
    ):
        """A gate's cotangent (HP, BLOCK), carried back to the hidden state before."""
        rows = tl.arange(0, HP)
        matrix = tl.trans(_matrix(weight, GATE * H, IN, rows, rows, H, H, IN + H))
        return tl.dot(matrix, delta, input_precision="tf32x3")

    @triton.jit
    def _backward(
        incoming,
        hidden,
        cell,
        weight,
        bias,
        d_out,
        d_hidden,
        d_cell,
        deltas,
        features,
        n,
        num_steps,
        in_row,
        in_time,
        p,
        forget_bias,
        IN: tl.constexpr,
        H: tl.constexpr,
        HP: tl.constexpr,
        FIRST: tl.constexpr,
        LOG_SIGN: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """From the states (H, U + 1, N) and d_out (H, U, N) to deltas (4H, U, N).

        d_hidden and d_cell (H, N) go from after the last step to before the first.
        """
        columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        rows = tl.arange(0, HP)
        inside = (rows[:, None] < H) & (columns[None, :] < n)
        row = tl.cast(num_steps, tl.int64) * n
        to = rows[:, None] * row + columns[None, :]
        d_h = _block(d_hidden, n, columns, rows, H, n)
        d_c = _block(d_cell, n, columns, rows, H, n)
        for back in range(num_steps):
            t = tl.cast(num_steps - 1 - back, tl.int64)
            h = _block(hidden + t * n, row + n, columns, rows, H, n)
            c = _block(cell + t * n, row + n, columns, rows, H, n)
            f0, f1, i, f, o, candidate = _gates(
                incoming + t * in_time, in_row, h, weight, bias, columns, n,
                p, forget_bias, IN, H, HP, FIRST, LOG_SIGN,
            )  # fmt: skip
            squashed = _tanh(f * c + i * candidate)
            d_h += _block(d_out + t * n, row, columns, rows, H, n)
            d_c += d_h * o * (1 - squashed * squashed)
            d_i = d_c * candidate * i * (1 - i)
            d_f = d_c * c * f * (1 - f)
            d_o = d_h * squashed * o * (1 - o)
            d_candidate = d_c * i * (1 - candidate * candidate)
            at = deltas + t * n + to
            tl.store(at, d_i, mask=inside)
            tl.store(at + H * row, d_f, mask=inside)
            tl.store(at + 2 * H * row, d_o, mask=inside)
            tl.store(at + 3 * H * row, d_candidate, mask=inside)
            d_h = _turned(weight, d_i, 0, IN, H, HP) + _turned(weight, d_f, 1, IN, H, HP)
            d_h += _turned(weight, d_o, 2, IN, H, HP) + _turned(weight, d_candidate, 3, IN, H, HP)
            d_c *= f
            if FIRST:
                tl.store(features + t * n + columns, f0, mask=columns < n)
                if IN > 1:
                    tl.store(features + row + t * n + columns, f1, mask=columns < n)
        at = rows[:, None].to(tl.int64) * n + columns[None, :]
        tl.store(d_hidden + at, d_h, mask=inside)
        tl.store(d_cell + at, d_c, mask=inside)
