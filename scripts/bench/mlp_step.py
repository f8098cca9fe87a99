"""What a step of ``opt=mlp`` costs, compiled and by PyTorch, beside what it has to cost.

    python scripts/bench/mlp_step.py
    python scripts/bench/mlp_step.py --threads 2 --seconds 10

First 10⁶ coordinates in four matrices, in place as ``LearnedOptimizer`` has it and with a new
state, then 16 functions with weights of their own, each a network 64-32-10, as particles of PES
are. The best of many steps counts. There are two floors: the multiply-adds of the network alone, at
the speed of PyTorch's matrix products here, and the bytes that no step can leave out, at the speed
of a copy.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from l2lgd.optimizers.mlp import INPUTS, MLPRule
from l2lgd.optimizers.observation import Observation

CELO = {
    "inputs": list(INPUTS),
    "outputs": 3,
    "time": False,
    "learned_decays": False,
    "diagonal_epsilon": 0.0,
    "gradient_clip": 1000.0,
    "scale_by_parameter": True,
}
CELO2_BASE = CELO | {
    "hidden_sizes": [8, 8],
    "vector_inputs": 15,
    "normalise_over": "matrix",
    "magnitude": 0.0,
    "scale_by_parameter": False,
    "normalise_update": True,
}
RULES: dict[str, dict] = {"small_fc": {}, "Celo": CELO, "Celo2-base": CELO2_BASE}
MATRICES = ((500, 500),) * 4
NETWORK = ((64, 32), (32,), (32, 10), (10,))
PARTICLES = 16
MOVED = 11  # numbers a coordinate: gradient, parameter, update; four moments to and fro
COLUMNS = ("rule", "in place, ns", "new state, ns", "PyTorch, ns", "arithmetic, ns", "to it")
COLUMNS += ("memory, ns", "to both", "particles, µs", "by PyTorch, µs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0, help="that each step is repeated for")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    one = seconds_of_multiply_add(given.seconds)
    byte = seconds_of_byte(given.seconds)
    print(f"{given.threads} threads, torch {torch.__version__}")
    print(f"{1e-9 / one:.1f} · 10⁹ multiply-adds/s, {1e-9 / byte:.1f} GB/s")
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for name, options in RULES.items():
        n = sum(map(math.prod, MATRICES))
        steps = of_matrices(options)
        found = {kind: best(step, given.seconds) / n * 1e9 for kind, step in steps.items()}
        particles = {
            backend: best(of_particles(options, backend), given.seconds) * 1e6
            for backend in ("auto", "torch")
        }
        arithmetic, memory = 1e9 * one * multiply_adds(options), 1e9 * byte * 4 * MOVED
        print(
            f"| {name} | {found['in place']:.1f} | {found['new']:.1f} | {found['torch']:.1f} "
            f"| {arithmetic:.1f} | {found['in place'] / arithmetic:.2f} | {memory:.1f} "
            f"| {found['in place'] / (arithmetic + memory):.2f} "
            f"| {particles['auto']:.0f} | {particles['torch']:.0f} |",
            flush=True,
        )


def of_matrices(options: dict) -> dict[str, Callable[[], object]]:
    """Steps of one function."""
    steps: dict[str, Callable[[], object]] = {}
    for backend in ("auto", "torch"):
        rule = MLPRule(**options, backend=backend).named(named(MATRICES))
        gradient, seen = drawn(1, MATRICES)
        state = rule.initial_state(gradient)
        arguments = (gradient, state, None, seen)
        steps["new" if backend == "auto" else backend] = lambda r=rule, a=arguments: r.step(*a)
        if backend == "auto":
            own = rule.initial_state(gradient)
            steps["in place"] = lambda r=rule, s=own, g=gradient, o=seen: r.step_in_place(g, s, o)
    return steps


def of_particles(options: dict, backend: str) -> Callable[[], object]:
    """A step of functions that are at different steps."""
    rule = MLPRule(**options, backend=backend).named(named(NETWORK))
    phi = [weight.detach().expand(PARTICLES, *weight.shape).clone() for weight in rule.phi()]
    stacked = rule.stacked(phi)
    gradient, seen = drawn(PARTICLES, NETWORK)
    state = stacked.initial_state(gradient)
    return lambda: stacked.step(gradient, state, None, seen)


def named(shapes: tuple[tuple[int, ...], ...]) -> dict[str, tuple[int, ...]]:
    return {str(k): shape for k, shape in enumerate(shapes)}


def drawn(count: int, shapes: tuple[tuple[int, ...], ...]) -> tuple[Tensor, Observation]:
    """A gradient (B, n), and where the functions stand."""
    draw = torch.Generator().manual_seed(0)
    n = sum(map(math.prod, shapes))
    gradient, theta = torch.randn(2, count, n, generator=draw)
    return gradient, Observation(theta, torch.ones(count), torch.arange(count))


def multiply_adds(options: dict) -> int:
    """Of one coordinate: every weight of a layer once."""
    weights = [weight for weight in MLPRule(**options).parameters() if weight.dim() > 1]
    return sum(weight.numel() for weight in weights)


def seconds_of_multiply_add(seconds: float) -> float:
    """In a product of two matrices that fit the cache."""
    size = 512
    one, other = torch.randn(2, size, size)
    return best(lambda: one @ other, seconds) / size**3


def seconds_of_byte(seconds: float) -> float:
    """Read or written by a copy that no cache holds."""
    source = torch.randn(50_000_000)
    into = torch.empty_like(source)
    return best(lambda: into.copy_(source), seconds) / (2 * source.nbytes)


@torch.no_grad()
def best(step: Callable[[], object], seconds: float) -> float:
    """The shortest time of a step."""
    found, end = float("inf"), time.perf_counter() + seconds
    for _ in itertools.takewhile(lambda _: time.perf_counter() < end, itertools.count()):
        began = time.perf_counter()
        step()
        found = min(found, time.perf_counter() - began)
    return found


if __name__ == "__main__":
    main()
