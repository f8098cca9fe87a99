"""One layer of the coordinatewise LSTM on a GPU: Triton kernels for all steps of an unroll.

A program has a block of coordinates. Forward, it keeps their states on the chip and leaves them in
memory; back, it goes from the stored states to the cotangents of the gates' inputs.

Everything is float32; products on the chip are made of three in TF32, which differs by rounding.
Without a GPU, Triton's interpreter runs the same arithmetic.
"""

import triton
from triton import language as tl


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
    # A first layer has one or two inputs, too few for tensor cores: they are added as outer
    # products. Three TF32 products are as exact as float32, and faster than its own.
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
def forward(
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
def backward(
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
