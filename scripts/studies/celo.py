"""Celo's trained optimizer in a plain PyTorch loop, beside Adam at its best constant rate.

The task is one of those that Celo was meta-trained on: MNIST at 8 × 8 pixels, an MLP 64-32-10 with
ReLU, batches of 64. ``l2lgd convert celo theta.state`` makes the file of weights, and ``python
scripts/studies/celo.py celo.safetensors`` prints the training loss of the last 100 of 2,000 steps,
and what a step took. No GPU; half a minute a seed.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from l2lgd import LearnedOptimizer
from l2lgd.data.images import load_images
from l2lgd.data.sources import DataConfig

EXAMPLES, SIDE, HIDDEN, CLASSES, BATCH = 48_000, 8, 32, 10, 64
COUNTED = 100  # steps
RATES = (1e-3, 3e-3, 1e-2, 3e-2)

Make = Callable[[nn.Module], torch.optim.Optimizer]


def digits(data_dir: str) -> tuple[Tensor, Tensor]:
    """Pixels (N, 64) from 0 to 1, and labels (N,)."""
    train = load_images(DataConfig(name="mnist"), data_dir, torch.device("cpu"))["train"]
    pixels = train.pixels[:EXAMPLES].unsqueeze(1).float() / 255
    small = nn.functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return small.flatten(1), train.labels[:EXAMPLES]


def network(draw: torch.Generator) -> nn.Module:
    """Weights from a normal cut at two standard deviations of 1/√fan-in, biases zero."""
    model = nn.Sequential(nn.Linear(SIDE**2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    for layer in (model[0], model[2]):
        std = 1 / math.sqrt(layer.in_features)
        nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std, generator=draw)
        nn.init.zeros_(layer.bias)
    return model


def batches(count: int, draw: torch.Generator) -> Iterator[Tensor]:
    """Without end, in a new order each time; the rest that fills no batch is left out."""
    while True:
        order = torch.randperm(count, generator=draw)
        yield from order[: count // BATCH * BATCH].view(-1, BATCH)


def reached(data: tuple[Tensor, Tensor], seed: int, steps: int, make: Make) -> tuple[float, float]:
    """Mean loss of the last steps, and seconds a step."""
    pixels, labels = data
    draw = torch.Generator().manual_seed(seed)
    model = network(draw)
    optimizer, found, began = make(model), [], time.monotonic()
    for _, batch in zip(range(steps), batches(len(labels), draw), strict=False):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(pixels[batch]), labels[batch])
        loss.backward()
        if isinstance(optimizer, LearnedOptimizer):
            optimizer.step(loss=loss)
        else:
            optimizer.step()
        found.append(loss.item())
    return statistics.mean(found[-COUNTED:]), (time.monotonic() - began) / steps


def adam(rate: float) -> Make:
    return lambda model: torch.optim.Adam(model.parameters(), lr=rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="as l2lgd convert writes them")
    parser.add_argument("--steps", type=int, default=2000, help="T")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data-dir", default="~/.cache/l2lgd")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = digits(given.data_dir)

    def learned(model: nn.Module) -> torch.optim.Optimizer:
        return LearnedOptimizer(model.parameters(), given.weights, horizon=given.steps)

    makes: dict[str, Make] = {"Celo": learned} | {f"Adam {r:g}": adam(r) for r in RATES}
    print("| optimizer | loss of each seed | mean | ms a step |\n|---|---|---|---|")
    for name, make in makes.items():
        runs = [reached(data, seed, given.steps, make) for seed in range(given.seeds)]
        losses = [loss for loss, _ in runs]
        each, pace = ", ".join(f"{loss:.3f}" for loss in losses), min(pace for _, pace in runs)
        print(f"| {name} | {each} | {statistics.mean(losses):.3f} | {1e3 * pace:.2f} |", flush=True)


if __name__ == "__main__":
    main()
