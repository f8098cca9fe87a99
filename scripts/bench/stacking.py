"""What a gradient of functions stacked by ``torch.vmap`` costs, beside ones stacked by hand.

    python scripts/bench/stacking.py

Both are B networks 784-20-10 on minibatches of 128 images: ``ModuleTask`` of an ``nn.Sequential``,
and the perceptrons of ``task=mnist``. They are run in turns, the least time of each counts. The
third row evaluates the module's functions one after the other.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from l2lgd.data.images import Images
from l2lgd.seeding import generator
from l2lgd.tasks.base import Optimizee
from l2lgd.tasks.classification import Perceptron
from l2lgd.tasks.images import Classifiers
from l2lgd.tasks.minibatches import Minibatches
from l2lgd.tasks.module import ModuleTask

IMAGES, BATCH, WIDTHS = 50_000, 128, (784, 20, 10)


def module() -> nn.Module:
    """The network of the paper's section 3.2."""
    first, hidden, classes = WIDTHS
    layers = nn.Linear(first, hidden), nn.Sigmoid(), nn.Linear(hidden, classes)
    return nn.Sequential(nn.Flatten(), *layers)


def by_hand(pixels: torch.Tensor, labels: torch.Tensor, count: int) -> Optimizee:
    """Stacked as ``task=mnist`` does."""
    network = Perceptron(list(WIDTHS), torch.sigmoid)
    n = sum(torch.Size(shape).numel() for shape in network.shapes.values())
    initial = 0.1 * torch.randn(count, n, generator=generator(0, "initial"))
    minibatches = Minibatches(len(labels), BATCH, 0, count)
    return Classifiers(Images(pixels, labels, WIDTHS[-1]), network, minibatches, initial)


def gradient_of(functions: Optimizee) -> Callable[[], object]:
    """One gradient of all functions, minibatches drawn before."""
    functions.prefetch(range(1, 2))
    return lambda: functions.loss_and_gradient(functions.initial_parameters, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--functions", type=int, default=8, help="B")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--times", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    draw = generator(0, "images")
    pixels = torch.randint(0, 256, (IMAGES, 28, 28), generator=draw, dtype=torch.uint8)
    labels = torch.randint(0, 10, (IMAGES,), generator=draw)
    tasks = [
        ModuleTask("net", module, dataset=lambda: (pixels, labels), batch_size=BATCH)
        for _ in range(2)
    ]
    for task in tasks:
        task.setup("", torch.device("cpu"))
    tasks[1].network.stacked = False
    sides = {"by hand": gradient_of(by_hand(pixels, labels, given.functions))}
    for name, task in zip(("by vmap", "one after the other"), tasks, strict=True):
        sides[name] = gradient_of(task.sample("train", given.functions, generator(0, "functions")))
    least = dict.fromkeys(sides, float("inf"))
    for _ in range(given.times):
        for name, run in sides.items():
            began = time.perf_counter()
            run()
            least[name] = min(least[name], time.perf_counter() - began)
    print(f"B={given.functions}, {given.threads} threads, torch {torch.__version__}")
    print("| stacked | ms | to by hand |\n|---|---|---|")
    for name, seconds in least.items():
        print(f"| {name} | {1e3 * seconds:.2f} | {seconds / least['by hand']:.2f} |")


if __name__ == "__main__":
    main()
