"""How low a loss the first steps of a convnet could reach, however they are made.

In N steps an optimizer sees N minibatches. So train on just as many images, but for as long as one
likes, and watch the loss on images that are held out: what tuned optimizers know about new images
after so many passes. It is no strict bound for an evaluation, whose minibatches come from 10,000
images and have partly been seen before. Prints that loss after N steps and each further pass.

python scripts/studies/one_pass_bound.py --steps 100 --passes 8
"""

import argparse
import os
import sys
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from l2lgd.data.sources import DataConfig
from l2lgd.errors import UserError
from l2lgd.meta.rollout import advance, start
from l2lgd.optimizers.hand_designed import HandDesigned
from l2lgd.seeding import generator
from l2lgd.system import runtime
from l2lgd.tasks.convnet import ConvNetTask

BATCH, HELD_OUT_BATCHES = 128, 40
NAG: dict[str, Any] = {"momentum": 0.9, "nesterov": True}
OPTIMIZERS: list[tuple[str, str, float, dict[str, Any]]] = [
    ("NAG 0.046", "SGD", 0.046, NAG),
    ("NAG 0.01", "SGD", 0.01, NAG),
    ("Adam 0.003", "Adam", 0.003, {}),
]


def measure(steps: int, passes: int) -> Table:
    """One row a pass, one column an optimizer.

    Raises:
        ConfigError: ``steps`` is below 1.
        DataUnavailable: CIFAR-10 could not be had.
    """
    examples = BATCH * steps
    task = ConvNetTask("cifar10", DataConfig("cifar10"), [16, 16, 16], examples=examples)
    task.setup(os.environ.get("L2LGD_DATA", "~/.cache/l2lgd"), torch.device("cpu"))
    held_out = task.sample("validation", 1, generator(0, "held out"))
    found = Table(title=f"loss on held-out images, trained on {examples}")
    found.add_column("steps", justify="right")
    columns = []
    for label, algorithm, rate, options in OPTIMIZERS:
        found.add_column(label)
        at = start(HandDesigned(algorithm, rate, options), task.sample("train", 1, generator(0)))
        losses = []
        for _ in range(passes):
            for _ in range(steps):
                at = advance(at)
            batches = [held_out.loss(at.parameters, b) for b in range(HELD_OUT_BATCHES)]
            losses.append(f"{torch.stack(batches).mean().item():.3f}")
        columns.append(losses)
    for index, row in enumerate(zip(*columns, strict=True)):
        found.add_row(str((index + 1) * steps), *row)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100, help="N")
    parser.add_argument("--passes", type=int, default=8, help="over the images of N minibatches")
    arguments = parser.parse_args()
    runtime.keep_freed_memory()
    try:
        Console().print(measure(arguments.steps, arguments.passes))
    except UserError as error:
        print(f"one_pass_bound.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
