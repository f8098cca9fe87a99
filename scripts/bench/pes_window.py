"""What an unroll of ``estimator=pes`` costs beside its plain loop, in CPU seconds.

    python scripts/bench/pes_window.py                # 8 pairs, 50 steps, MLPs 64-32-10, opt=mlp
    python scripts/bench/pes_window.py --opt nn_adam
    python scripts/bench/pes_window.py --horizon 10000

Both sides are 16 particles of 2,410 parameters with minibatches of 64 images of 8 × 8 pixels, on
one thread. Ours is a whole meta-step without the meta-optimizer: perturbations, 50 steps of all
particles at once, restarts, which are frequent with horizons of 100 to 2,000 steps, and the
gradient. The plain loop is the same steps, one particle after the other, without restarts. They
are run in turns; the least of each is printed, and the mean.
"""

import argparse
import resource
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from l2lgd.config.building import build
from l2lgd.config.defaults import composed
from l2lgd.data.images import Images
from l2lgd.meta.estimators.base import MetaProblem
from l2lgd.meta.estimators.pes import PersistentES
from l2lgd.meta.rollout import advance, start
from l2lgd.meta.schedules import Unroll
from l2lgd.optimizers.base import LearnedRule
from l2lgd.seeding import generator
from l2lgd.system import runtime
from l2lgd.system.ranks import Ranks
from l2lgd.tasks.base import Optimizee, Split, Task
from l2lgd.tasks.classification import Perceptron
from l2lgd.tasks.images import Classifiers
from l2lgd.tasks.minibatches import Minibatches

PAIRS, LENGTH, SHORTEST = 8, 50, 100
IMAGES, WIDTHS, BATCH = 48_000, [64, 32, 10], 64


class SmallClassifiers(Task):
    """MLPs on random images of 8 × 8 pixels: the cost is that of real ones."""

    name = "small"

    def __init__(self) -> None:
        draw = generator(0, "images")
        pixels = torch.randint(0, 256, (IMAGES, 8, 8), generator=draw, dtype=torch.uint8)
        self.images = Images(pixels, torch.randint(0, 10, (IMAGES,), generator=draw), 10)

    def sample(self, split: Split, num_functions: int, generator: torch.Generator) -> Optimizee:
        network = Perceptron(WIDTHS, torch.relu)
        n = sum(torch.Size(shape).numel() for shape in network.shapes.values())
        initial = 0.1 * torch.randn(num_functions, n, generator=generator)
        seed = int(torch.randint(2**62, (), generator=generator))
        minibatches = Minibatches(IMAGES, BATCH, seed, num_functions)
        return Classifiers(self.images, network, minibatches, initial)


def plain_loop(rule: LearnedRule, functions: Optimizee) -> Callable[[], Tensor]:
    """One particle after the other."""

    def run() -> Tensor:
        total = torch.zeros(())
        for pair in range(PAIRS):
            for _ in range(2):
                at = start(rule, functions.select(slice(pair, pair + 1)), horizon=2 * SHORTEST)
                for _ in range(LENGTH):
                    at = advance(at)
                    total += at.loss[0]
        return total

    return run


def cpu_seconds(run: Callable[[], object]) -> float:
    """User and system time of this process."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    run()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--opt", default="mlp", help="a learned rule")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--horizon", type=int, default=2000, help="the longest, in steps")
    given, words = parser.parse_known_args()
    runtime.keep_freed_memory()
    torch.set_num_threads(1)
    task = SmallClassifiers()
    node = composed("meta_train", ["task=quadratic", f"opt={given.opt}", *words])["opt"]
    rule = build(node, "opt", kind=LearnedRule)
    problem = MetaProblem(rule, task, Unroll([LENGTH]), PAIRS, given.horizon, 0, Ranks())
    course = PersistentES(shortest_horizon=SHORTEST).begin(problem)
    plain = plain_loop(rule, task.sample("train", PAIRS, generator(0)))
    sides = {"l2lgd": lambda: course.unroll(0.0), "plain loop": plain}
    for name, run in sides.items():
        run()
        if name == "l2lgd":
            for _ in range(given.times):
                run()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(given.times):
        for name, run in sides.items():
            spent[name].append(cpu_seconds(run))
    print(f"opt={given.opt}, {rule.implementation()}, torch {torch.__version__}, one thread")
    print("| side | CPU seconds, least | mean |\n|---|---|---|")
    for name, seconds in spent.items():
        print(f"| {name} | {min(seconds):.3f} | {statistics.mean(seconds):.3f} |")
    print(f"largest resident memory of l2lgd: {peak:.0f} MiB, horizons to {given.horizon}")
    ratio = min(spent["plain loop"]) / min(spent["l2lgd"])
    print(f"plain loop to l2lgd: {ratio:.1f}")


if __name__ == "__main__":
    main()
