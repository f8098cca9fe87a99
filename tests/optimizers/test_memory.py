"""The memories of NTM-BFGS, and BFGS itself run on them."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from l2lgd.optimizers.memory import Dense, Factored, Memory

FUNCTIONS, ITERATIONS = 3, 12


def drawn(*shape: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def matrix_of(memory: Memory, state: tuple[Tensor, ...], n: int) -> Tensor:
    """M (B, n, n), by reading every unit vector."""
    functions = len(state[0])
    units = torch.eye(n, dtype=torch.float64).unsqueeze(1).expand(n, functions, n)
    return memory.read(state, units).permute(1, 2, 0)


@pytest.mark.parametrize("memory", [Dense(), Factored(4)])
def test_a_memory_begins_as_the_identity(memory: Memory) -> None:
    state = memory.initial(drawn(FUNCTIONS, 5, seed=0), 2)
    vectors = drawn(1, FUNCTIONS, 5, seed=1)
    assert memory.read(state, vectors).equal(vectors)


@pytest.mark.parametrize("heads", [1, 3])
def test_the_factored_memory_is_the_dense_one_until_it_forgets(heads: int) -> None:
    n, history = 7, 4
    dense, factored = Dense(), Factored(history)
    start = drawn(FUNCTIONS, n, seed=0)
    whole, pairs = dense.initial(start, heads), factored.initial(start, heads)
    written = []
    for step in range(history + 2):
        left, right = (drawn(heads, FUNCTIONS, n, seed=2 * step + side) for side in (0, 1))
        whole = dense.write(whole, left, right, 0.3)
        pairs = factored.write(pairs, left, right, 0.3)
        written.append(0.3 * torch.einsum("wbi,wbj->bij", left, right))
        expected = torch.eye(n, dtype=torch.float64) + sum(written)
        torch.testing.assert_close(matrix_of(dense, whole, n), expected, rtol=0, atol=1e-12)
        remembered = torch.eye(n, dtype=torch.float64) + sum(written[-history:])
        torch.testing.assert_close(matrix_of(factored, pairs, n), remembered, rtol=0, atol=1e-12)


def textbook_bfgs(hessians: Tensor, start: Tensor, rate: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Position and inverse-Hessian approximation after each iteration, a function at a time."""
    positions = start.clone()
    inverse = torch.eye(start.shape[1], dtype=torch.float64).repeat(len(start), 1, 1)
    for _ in range(ITERATIONS):
        for k, (hessian, h) in enumerate(zip(hessians, inverse, strict=True)):
            s = -rate * h @ (hessian @ positions[k])
            y = hessian @ s
            positions[k] += s
            rho = 1 / (s @ y)
            side = torch.eye(len(s), dtype=torch.float64) - rho * torch.outer(s, y)
            inverse[k] = side @ h @ side.T + rho * torch.outer(s, s)
        yield positions, inverse


def mean(x: Tensor) -> Tensor:
    """What a global averaging cell hands out: a number for each function, (B, n) → (B, 1)."""
    return x.mean(1, keepdim=True)


@pytest.mark.parametrize("n", [10, 50])
@pytest.mark.parametrize("memory", [Dense(), Factored(ITERATIONS)], ids=["dense", "factored"])
def test_one_read_head_three_write_heads_and_two_averages_are_bfgs(memory: Memory, n: int) -> None:
    """Appendix D's claim; in four steps an iteration, two of which only gather what is needed.

    Each line is one coordinate's arithmetic, but for the two means and the memory.
    """
    root = drawn(FUNCTIONS, n, n, seed=0)
    hessians = root @ root.mT / n + torch.eye(n, dtype=torch.float64)
    position, rate = drawn(FUNCTIONS, n, seed=1), 0.2
    state = memory.initial(position, 3)
    expected = textbook_bfgs(hessians, position, rate)
    for _ in range(ITERATIONS):
        gradient = torch.einsum("bij,bj->bi", hessians, position)
        read = gradient  # step 1: ask for M∇
        (direction,) = memory.read(state, read.unsqueeze(0))
        s = -rate * direction  # step 2: move
        position = position + s
        y = torch.einsum("bij,bj->bi", hessians, position) - gradient
        m1 = mean(s * y)  # step 3: first average; ask for My
        (q,) = memory.read(state, y.unsqueeze(0))
        m2 = mean(y * q)  # step 4: second average; write
        left = torch.stack((s, -q, -s / m1))
        right = torch.stack(((1 + m2 / m1) / m1 * s, s / m1, q))
        state = memory.write(state, left, right, 1 / n)
        there, inverse = next(expected)
        torch.testing.assert_close(matrix_of(memory, state, n), inverse, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(position, there, rtol=1e-10, atol=1e-10)
