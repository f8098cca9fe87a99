"""Seconds of a step of NTM-BFGS and NTM-L-BFGS against the number of coordinates.

Run as ``python scripts/bench/memory.py`` with nothing else running; takes a minute. The dense
memory is measured up to n = 1,000.
"""

import statistics
import time

import torch

from l2lgd.optimizers.ntm_bfgs import NTMBFGS

REPETITIONS = 15


def seconds(memory: str, n: int) -> float:
    """Median of a step, with a history that is full."""
    learned = NTMBFGS(memory=memory)
    gradient = torch.randn(1, n, generator=torch.Generator().manual_seed(0))
    state = learned.initial_state(gradient)
    times = []
    with torch.no_grad():
        for _ in range(REPETITIONS):
            began = time.perf_counter()
            _, state = learned.step(gradient, state)
            times.append(time.perf_counter() - began)
    return statistics.median(times[5:])


def main() -> None:
    """Print a line for each size."""
    for memory, sizes in (("dense", (100, 300, 1000)), ("factored", (1000, 10_000, 100_000))):
        for n in sizes:
            found = seconds(memory, n)
            each = 1e9 * found / n
            print(f"{memory:8} n = {n:>7,}: {1e3 * found:8.2f} ms, {each:7.0f} ns a coordinate")


if __name__ == "__main__":
    main()
