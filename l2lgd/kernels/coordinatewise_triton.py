"""The functions of :mod:`l2lgd.kernels.coordinatewise` on a GPU, in Triton.

A kernel keeps the weights of a layer and a block of coordinates on the chip: one runs a layer a
step forward, one finds the cotangents of its gates again from the states before it, and matrix
products of PyTorch do the rest. The replay keeps the states of all steps of a slice of coordinates.

Everything is float32; products on the chip are made of three in TF32, which differs by rounding.
Without a GPU, Triton's interpreter runs the same arithmetic.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from l2lgd.kernels.coordinatewise import Settings, State

try:
    import triton
    from triton import language as tl
except ImportError:  # not on every platform
    triton = None

LANGUAGE = "Triton"
BLOCK = 64  # coordinates of a program at a time
SLICE = 1 << 18  # coordinates of a replay at a time, which bounds its memory


def is_available() -> bool:
    return triton is not None


def step(
    settings: Settings,
    weights: Tensor,
    gradient: Tensor,
    state: State,
) -> tuple[Tensor, State]:
    """As the function of the same name for the CPU."""
    (n,), (hidden, cell) = gradient.shape, state
    layers, output = _split(settings, weights)
    new_hidden, new_cell = (
        tuple(part.new_empty(settings.hidden_size, n) for part in parts) for parts in state
    )
    incoming = gradient
    for index, (weight, bias) in enumerate(layers):
        _forward[(triton.cdiv(n, BLOCK),)](
            incoming,
            hidden[index],
            cell[index],
            weight,
            bias,
            new_hidden[index],
            new_cell[index],
            n,
            hidden[index].stride(0),
            cell[index].stride(0),
            *_constants(settings, index),
        )
        incoming = new_hidden[index]
    update = torch.addmv(output[-1:], incoming.T, output[:-1]) * settings.output_scale
    return update, (new_hidden, new_cell)


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
    _, (new_hidden, _) = step(settings, weights, gradient, state)
    return _back(settings, weights, gradient, cotangent, state, new_hidden, d_state, into)


def replay(
    settings: Settings,
    weights: Tensor,
    gradients: Tensor,
    cotangents: Tensor,
    state: State,
    into: Tensor,
) -> None:
    """As the function of the same name for the CPU."""
    for begin in range(0, gradients.shape[1], SLICE):
        part = slice(begin, begin + SLICE)
        at: State = tuple(tuple(tensor[:, part] for tensor in parts) for parts in state)
        path = []
        for gradient in gradients:
            _, following = step(settings, weights, gradient[part], at)
            path.append((at, following[0]))
            at = following
        d_state = tuple(tuple(torch.zeros_like(tensor) for tensor in parts) for parts in at)
        for t in reversed(range(len(gradients))):
            own = (gradients[t, part], cotangents[t, part], *path.pop())
            _back(settings, weights, *own, d_state, into)


def _back(
    settings: Settings,
    weights: Tensor,
    gradient: Tensor,
    cotangent: Tensor,
    state: State,
    new_hidden: Sequence[Tensor],
    d_state: State,
    into: Tensor,
) -> Tensor:
    """:func:`step_back` where the hidden states after the step are known."""
    (hidden, cell), (d_hidden, d_cell) = state, d_state
    (n,), size = gradient.shape, settings.hidden_size
    layers, output = _split(settings, weights)
    d_layers, d_output = _split(settings, into)
    scaled = settings.output_scale * cotangent
    d_output[:-1].addmv_(new_hidden[-1], scaled)
    d_output[-1:] += scaled.sum()
    d_out = torch.outer(output[:-1], scaled)  # (H, N)
    for index in reversed(range(settings.num_layers)):
        (weight, bias), (d_weight, d_bias) = layers[index], d_layers[index]
        deltas = gradient.new_empty(4 * size, n)
        features = gradient.new_empty(settings.num_features, n) if index == 0 else None
        _deltas[(triton.cdiv(n, BLOCK),)](
            new_hidden[index - 1] if index else gradient,
            hidden[index],
            cell[index],
            weight,
            bias,
            d_out,
            d_hidden[index],
            d_cell[index],
            deltas,
            deltas if features is None else features,
            n,
            hidden[index].stride(0),
            cell[index].stride(0),
            *_constants(settings, index),
        )
        incoming = new_hidden[index - 1] if features is None else features
        inputs = len(incoming)
        matrix, d_matrix = (w.view(4 * size, inputs + size) for w in (weight, d_weight))
        d_matrix[:, :inputs].addmm_(deltas, incoming.T)
        d_matrix[:, inputs:].addmm_(deltas, hidden[index].T)
        d_bias += deltas.sum(1)
        torch.mm(matrix[:, inputs:].T, deltas, out=d_hidden[index])
        d_out = matrix[:, :inputs].T @ deltas
    return d_out


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
        return tl.load(pointer + rows[:, None] * stride + columns[None, :], mask=inside, other=0.0)

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
    def _cell(
        incoming,
        hidden,
        cell,
        weight,
        bias,
        n,
        h_stride,
        c_stride,
        columns,
        p,
        forget_bias,
        IN: tl.constexpr,
        H: tl.constexpr,
        HP: tl.constexpr,
        FIRST: tl.constexpr,
        LOG_SIGN: tl.constexpr,
    ):
        """Inputs and gates of one layer for a block of coordinates."""
        rows = tl.arange(0, HP)
        h = _block(hidden, h_stride, columns, rows, H, n)
        c = _block(cell, c_stride, columns, rows, H, n)
        if FIRST:
            gradient = tl.load(incoming + columns, mask=columns < n, other=0.0)
            f0, f1 = _features(gradient, p, LOG_SIGN)
            x = h  # not used
        else:
            x = _block(incoming, n, columns, rows, H, n)
            f0, f1 = p, p  # not used
        i = tl.sigmoid(_gate(weight, bias, x, f0, f1, h, 0, IN, H, HP, FIRST))
        f = tl.sigmoid(_gate(weight, bias, x, f0, f1, h, 1, IN, H, HP, FIRST) + forget_bias)
        o = tl.sigmoid(_gate(weight, bias, x, f0, f1, h, 2, IN, H, HP, FIRST))
        candidate = _tanh(_gate(weight, bias, x, f0, f1, h, 3, IN, H, HP, FIRST))
        return x, f0, f1, h, c, i, f, o, candidate

    @triton.jit
    def _forward(
        incoming,
        hidden,
        cell,
        weight,
        bias,
        new_hidden,
        new_cell,
        n,
        h_stride,
        c_stride,
        p,
        forget_bias,
        IN: tl.constexpr,
        H: tl.constexpr,
        HP: tl.constexpr,
        FIRST: tl.constexpr,
        LOG_SIGN: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        rows = tl.arange(0, HP)
        _, _, _, _, c, i, f, o, candidate = _cell(
            incoming, hidden, cell, weight, bias, n, h_stride, c_stride, columns,
            p, forget_bias, IN, H, HP, FIRST, LOG_SIGN,
        )  # fmt: skip
        c = f * c + i * candidate
        inside = (rows[:, None] < H) & (columns[None, :] < n)
        at = rows[:, None] * n + columns[None, :]
        tl.store(new_cell + at, c, mask=inside)
        tl.store(new_hidden + at, o * _tanh(c), mask=inside)

    @triton.jit
    def _deltas(
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
        h_stride,
        c_stride,
        p,
        forget_bias,
        IN: tl.constexpr,
        H: tl.constexpr,
        HP: tl.constexpr,
        FIRST: tl.constexpr,
        LOG_SIGN: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """Cotangents of what goes into the gates, (4H, N); d_cell becomes that before the step."""
        columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        rows = tl.arange(0, HP)
        _, f0, f1, _, c, i, f, o, candidate = _cell(
            incoming, hidden, cell, weight, bias, n, h_stride, c_stride, columns,
            p, forget_bias, IN, H, HP, FIRST, LOG_SIGN,
        )  # fmt: skip
        inside = (rows[:, None] < H) & (columns[None, :] < n)
        at = rows[:, None] * n + columns[None, :]
        squashed = _tanh(f * c + i * candidate)
        d_h = _block(d_out, n, columns, rows, H, n) + _block(d_hidden, n, columns, rows, H, n)
        d_c = _block(d_cell, n, columns, rows, H, n) + d_h * o * (1 - squashed * squashed)
        tl.store(d_cell + at, d_c * f, mask=inside)
        tl.store(deltas + at, d_c * candidate * i * (1 - i), mask=inside)
        tl.store(deltas + H * n + at, d_c * c * f * (1 - f), mask=inside)
        tl.store(deltas + 2 * H * n + at, d_h * squashed * o * (1 - o), mask=inside)
        tl.store(deltas + 3 * H * n + at, d_c * i * (1 - candidate * candidate), mask=inside)
        if FIRST:
            tl.store(features + columns, f0, mask=columns < n)
            if IN > 1:
                tl.store(features + n + columns, f1, mask=columns < n)
