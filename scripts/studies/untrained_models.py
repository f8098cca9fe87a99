"""Trained optimizers on models they were not trained for: the numbers of docs/results/untrained.md.

Five models, none of which is of a task of the meta-training, are trained for 500 steps by
``l2lgd.LearnedOptimizer`` with each of four shipped weights, once as they are (lr=1) and once with
a tuned lr, and by ``torch.optim.Adam``, whose learning rate is tuned as well. Run as

    python scripts/studies/untrained_models.py               # one core; goes on where it stopped
    python scripts/studies/untrained_models.py --diagnose    # and where and why it fails
    python scripts/studies/untrained_models.py --redraw      # only the picture

Learning rates are chosen by the mean of three seeds, what is reported is five others; a seed gives
the same initial parameters and the same minibatches to all optimizers. The final loss is the mean
of the last ten training losses. Writes ``results.json``, ``curves.csv``, ``curves.png`` and
``table.md`` to ``outputs/results/untrained``. Needs scikit-learn, and MNIST and CIFAR-10 in the
data folder.
"""

import argparse
import csv
import inspect
import json
import math
import os
import string
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from l2lgd import LearnedOptimizer
from l2lgd.data.images import load_images
from l2lgd.data.sources import DataConfig
from l2lgd.errors import DataUnavailable, UserError
from l2lgd.figures import styles
from l2lgd.meta.rollout import advance, start
from l2lgd.pretrained import weights as trained
from l2lgd.results.axes import log_axis
from l2lgd.results.plots import caption_below
from l2lgd.results.summary import versions
from l2lgd.seeding import derive_seed, generator
from l2lgd.storage.files import write_atomically
from l2lgd.system import runtime
from l2lgd.tasks.classification import ClassificationTask
from l2lgd.tasks.convnet import ConvNetTask
from l2lgd.tasks.mixture import PerceptronMixture
from l2lgd.tasks.quadratic import QuadraticTask

STEPS = 500
FIRST_REPORT_SEED = 100  # so that no number of tuning seeds reaches them
LAST = 10  # losses at the end whose mean is the final loss
ADAM = "adam"
UNTUNED_ADAM = 1e-3  # PyTorch's default
PER_DECADE, ADAM_FROM, ADAM_TO = 3, -12, -3  # exponents of ten, times three: 1e-4 … 1e-1
ADAM_LOWEST, ADAM_HIGHEST = -18, 3
LEARNED_RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
CIFAR = "cifar10-lstm_per_group"
WEIGHTS = ("mnist-lstm", "mnist-lstm_mixture", "quadratic-lstm", CIFAR)
LABELS = {ADAM: "Adam", CIFAR: f"{CIFAR}:rest"}
OTHER_WEIGHTS = ("cifar_sub-lstm_sub", "neural_art-lstm")  # for --diagnose
TEXTS = ("fractions", "heapq", "statistics", "textwrap")  # modules of Python's standard library
COLORS = {  # of the paper's figures; quadratic-lstm has one of its own
    ADAM: styles.COLORS["adam"],
    "mnist-lstm": styles.COLORS["lstm"],
    "mnist-lstm_mixture": styles.COLORS["lstm_mixture"],
    "quadratic-lstm": styles.COLORS["rmsprop"],
    CIFAR: styles.COLORS["sgd"],
}
FACTORS = (0.01, 0.1, 10.0, 100.0)  # on the loss, for --diagnose
FACTORS_ON = ("digits", "autoencoder", "burgers")  # where a run is short


class Training(NamedTuple):
    """A model with initial parameters, and its loss on the minibatch of a step."""

    model: nn.Module
    loss: Callable[[int], Tensor]


class Problem(NamedTuple):
    """What is trained: ``begin`` takes a seed and the number of steps."""

    title: str
    loss_label: str
    data: str
    batch: int
    begin: Callable[[int, int], Training]


class Key(NamedTuple):
    """What a run is known by in ``results.json``."""

    problem: str
    optimizer: str  # adam, or the name of weights
    lr: float
    seed: int
    steps: int
    factor: float = 1.0  # on the loss that is differentiated


# The five models


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of these widths, an activation in between."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


class Residual(nn.Module):
    """Two 3 × 3 convolutions with batch normalisation beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.add_module("conv", nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.add_module("norm", nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        hidden = functional.relu(self.norm1(self.conv1(images)))
        return functional.relu(self.norm2(self.conv2(hidden)) + self.shortcut(images))


class ResNet(nn.Sequential):
    """Three residual blocks and a linear layer: (B, 3, 32, 32) → (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.block1, self.block2 = Residual(8, 8, 1), Residual(8, 16, 2)
        self.block3 = Residual(16, 32, 2)
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.output = nn.Linear(32, 10)


class Transformer(nn.Module):
    """Characters (B, L) → logits of the next ones (B, L, vocabulary)."""

    def __init__(self, vocabulary: int, length: int, width: int = 40) -> None:
        super().__init__()
        self.characters = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        block = partial(
            nn.TransformerEncoderLayer,
            *(width, 4, 2 * width),
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.ModuleList(block() for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, vocabulary)
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, characters: Tensor) -> Tensor:
        hidden = self.characters(characters) + self.positions.weight
        for block in self.blocks:
            hidden = block(hidden, src_mask=self.mask, is_causal=True)
        return self.output(self.norm(hidden))


def initialised(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A model with PyTorch's own initial parameters, which depend on the seed alone."""
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(seed, "parameters"))
        return make()


def minibatches(count: int, batch: int, seed: int, steps: int) -> Tensor:
    """Indices (steps, batch) of examples, drawn with replacement."""
    return torch.randint(count, (steps, batch), generator=generator(seed, "minibatches"))


def begin_classifier(
    inputs: Tensor,
    labels: Tensor,
    batch: int,
    make: Callable[[], nn.Module],
    seed: int,
    steps: int,
) -> Training:
    """Cross-entropy of labels (N,) given inputs (N, …)."""
    model, drawn = initialised(make, seed), minibatches(len(labels), batch, seed, steps)

    def loss(step: int) -> Tensor:
        chosen = drawn[step]
        return functional.cross_entropy(model(inputs[chosen]), labels[chosen])

    return Training(model, loss)


def digits() -> Problem:
    """scikit-learn's digits of 8 × 8 pixels; an MLP with ReLU.

    Raises:
        DataUnavailable: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataUnavailable("the digits need scikit-learn: pip install scikit-learn") from error
    pixels, labels = load_digits(return_X_y=True)
    inputs = torch.from_numpy(pixels).float() / 16
    begin = partial(
        begin_classifier, inputs, torch.from_numpy(labels).long(), 64, lambda: mlp(64, 32, 32, 10)
    )
    data = f"the {len(labels)} digits of scikit-learn {version('scikit-learn')}"
    return Problem("digits, MLP with ReLU", "cross-entropy (nats)", data, 64, begin)


def images(name: str) -> tuple[Tensor, Tensor, str]:
    """Pixels (N, …), labels (N,), and what they are: test images, which no meta-training saw.

    Raises:
        DataUnavailable: they are not in the data folder.
    """
    folder = os.environ.get("L2LGD_DATA", "~/.cache/l2lgd")
    splits = load_images(DataConfig(name), folder, torch.device("cpu"))
    unseen = splits["test"]
    data = f"{len(unseen.labels)} test images of {name} ({splits.description['source']})"
    return unseen.pixels, unseen.labels, data


def resnet(batch: int = 32) -> Problem:
    """CIFAR-10, normalised by the mean and the deviation of each colour; a small ResNet."""
    pixels, labels, data = images("cifar10")
    inputs = pixels.float().permute(0, 3, 1, 2).contiguous()
    deviation, mean = torch.std_mean(inputs, (0, 2, 3), keepdim=True)
    inputs = (inputs - mean) / deviation
    begin = partial(begin_classifier, inputs, labels, batch, ResNet)
    return Problem("CIFAR-10, ResNet", "cross-entropy (nats)", data, batch, begin)


def text() -> Tensor:
    """Source code of ``TEXTS`` as numbers of printable characters (N,)."""
    source = "".join(inspect.getsource(import_module(name)) for name in TEXTS)
    known = {character: index for index, character in enumerate(string.printable)}
    return torch.tensor([known.get(character, known["?"]) for character in source])


def transformer(batch: int = 8, length: int = 32) -> Problem:
    """The next character of source code; a transformer of two layers."""
    characters = text()
    make = partial(Transformer, len(string.printable), length)

    def begin(seed: int, steps: int) -> Training:
        model = initialised(make, seed)
        starts = minibatches(len(characters) - length, batch, seed, steps)
        offsets = torch.arange(length + 1)

        def loss(step: int) -> Tensor:
            piece = characters[starts[step].unsqueeze(1) + offsets]
            logits = model(piece[:, :-1])
            return functional.cross_entropy(logits.flatten(0, 1), piece[:, 1:].flatten())

        return Training(model, loss)

    data = (
        f"{len(characters)} characters, source code of {', '.join(TEXTS)} "
        f"of Python {sys.version.split()[0]}"
    )
    return Problem("characters, transformer", "cross-entropy (nats)", data, batch, begin)


def thumbnails(pixels: Tensor) -> Tensor:
    """Images (N, 28, 28) as numbers from 0 to 1 (N, 196)."""
    return functional.avg_pool2d(pixels.unsqueeze(1).float() / 255, 2).flatten(1)


def autoencoder(batch: int = 64, linear_code: bool = False) -> Problem:
    """MNIST at 14 × 14 pixels through 8 numbers and back; mean squared error of a pixel.

    Args:
        linear_code: the 8 numbers are of either sign; otherwise they go through ReLU, too.
    """
    pixels, _, data = images("mnist")
    inputs = thumbnails(pixels)

    def make() -> nn.Module:
        if linear_code:
            return nn.Sequential(mlp(196, 32, 8), mlp(8, 32, 196))
        return mlp(196, 32, 8, 32, 196)

    def begin(seed: int, steps: int) -> Training:
        model = initialised(make, seed)
        drawn = minibatches(len(inputs), batch, seed, steps)

        def loss(step: int) -> Tensor:
            wanted = inputs[drawn[step]]
            return functional.mse_loss(model(wanted), wanted)

        return Training(model, loss)

    return Problem("MNIST, autoencoder", "squared error of a pixel", data, batch, begin)


def burgers(inside: int = 256, edge: int = 32, viscosity: float = 0.01 / math.pi) -> Problem:
    """Burgers' equation u_t + u u_x = ν u_xx; a tanh MLP of (t, x), always on the same points.

    On 0 ≤ t ≤ 1, -1 ≤ x ≤ 1 with u(0, x) = -sin(πx) and u(t, ±1) = 0, after Raissi et al.
    """

    def begin(seed: int, _steps: int) -> Training:
        model = initialised(lambda: mlp(2, 32, 32, 32, 1, activation=nn.Tanh), seed)
        draw = generator(seed, "points")
        within = torch.rand(inside, 2, generator=draw) * torch.tensor([1.0, 2.0])
        within = (within - torch.tensor([0.0, 1.0])).requires_grad_()
        x = 2 * torch.rand(edge, generator=draw) - 1
        t = torch.rand(edge, generator=draw)
        sides = torch.where(torch.arange(edge) % 2 == 0, 1.0, -1.0)
        known = torch.cat([torch.stack([0 * x, x], 1), torch.stack([t, sides], 1)])
        values = torch.cat([-torch.sin(math.pi * x), 0 * t])

        def loss(_step: int) -> Tensor:
            u = model(within).squeeze(1)
            (slope,) = torch.autograd.grad(u.sum(), within, create_graph=True)
            (second,) = torch.autograd.grad(slope[:, 1].sum(), within, create_graph=True)
            residual = slope[:, 0] + u * slope[:, 1] - viscosity * second[:, 1]
            mismatch = model(known).squeeze(1) - values
            return residual.square().mean() + mismatch.square().mean()

        return Training(model, loss)

    data = f"{inside} points inside, {2 * edge} on the edges, drawn by the seed"
    return Problem("Burgers' equation, tanh", "squared residuals", data, inside + 2 * edge, begin)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "digits": digits,
    "resnet": resnet,
    "transformer": transformer,
    "autoencoder": autoencoder,
    "burgers": burgers,
}


# A run


def optimizer_for(key: Key, model: nn.Module) -> torch.optim.Optimizer:
    if key.optimizer == ADAM:
        return torch.optim.Adam(model.parameters(), lr=key.lr)
    if not key.optimizer.startswith("cifar"):
        return LearnedOptimizer(model.parameters(), key.optimizer, key.lr)
    rules = {"*": f"{key.optimizer}:rest"}
    if key.problem == "resnet":
        rules = {"*conv*.weight": f"{key.optimizer}:conv", **rules}
    return LearnedOptimizer(model.named_parameters(), rules, key.lr)


def rms(tensors: Sequence[Tensor]) -> float:
    """Root of the mean of all squares."""
    count = sum(tensor.numel() for tensor in tensors)
    return math.sqrt(sum(float(tensor.square().sum()) for tensor in tensors) / count)


def run(key: Key, training: Training) -> dict[str, Any]:
    """Losses (steps,) before each update, seconds, and what gradients and parameters did.

    A run ends where its loss is no longer finite. ``seconds`` are of a step of the optimizer,
    ``evaluation_seconds`` of the loss and its gradient.
    """
    model, loss_of = training
    optimizer = optimizer_for(key, model)
    initial = {name: part.detach().clone() for name, part in model.named_parameters()}
    losses, gradients, stepping, evaluating = [], [], 0.0, 0.0
    for step in range(key.steps):
        began = time.perf_counter()
        optimizer.zero_grad()
        loss = loss_of(step)
        (loss * key.factor).backward()
        losses.append(loss.item())
        evaluated = time.perf_counter()
        if not math.isfinite(losses[-1]):
            break
        if step % 50 == 0 or step == key.steps - 1:
            gradients.append(rms([part.grad for part in model.parameters()]))
        before = time.perf_counter()
        optimizer.step()
        stepping += time.perf_counter() - before
        evaluating += evaluated - began
    moved = {name: part.detach() - initial[name] for name, part in model.named_parameters()}
    return {
        "losses": losses,
        "seconds": stepping / len(losses),
        "evaluation_seconds": evaluating / len(losses),
        "gradient_rms": gradients,  # every 50 steps and at the last
        "weights_moved": rms([part for part in moved.values() if part.dim() > 1]),
        "others_moved": rms([part for part in moved.values() if part.dim() == 1]),
    }


def outcome(losses: Sequence[float], steps: int) -> dict[str, Any]:
    """The final loss, None where it is not finite, and whether the run diverged."""
    last = losses[-LAST:]
    final = sum(last) / len(last) if len(losses) == steps else math.inf
    return {
        "initial_loss": rounded(losses[0]),
        "final_loss": rounded(final) if math.isfinite(final) else None,
        "diverged": not final <= losses[0],
    }


def rounded(number: float) -> float:
    """To five digits, which keeps files short."""
    return float(f"{number:.5g}")


class Results:
    """Runs in a file, written after every one of them.

    Args:
        folder: of ``results.json``; runs that it holds are not repeated.
        problems: by name.
        about: what else to write.
    """

    def __init__(self, folder: Path, problems: Mapping[str, Problem], about: Any) -> None:
        self.path, self.problems, self.about = folder / "results.json", dict(problems), about
        self.runs: dict[Key, dict[str, Any]] = {}
        self.models: dict[str, Any] = {}
        if self.path.is_file():
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            self.models = kept["models"]
            for found in kept["runs"]:
                key = Key(**{name: found[name] for name in Key._fields})
                self.runs[key] = found
        self.models |= {name: _described(problem) for name, problem in problems.items()}

    def of(self, key: Key, keep_losses: bool = False) -> dict[str, Any]:
        """A run, from the file where it has been done before.

        Those that are drawn are kept with all their losses.
        """
        found = self.runs.get(key)
        if found is None or (keep_losses and "losses" not in found):
            measured = run(key, self.problems[key.problem].begin(key.seed, key.steps))
            losses = measured.pop("losses")
            found = {**key._asdict(), **outcome(losses, key.steps), **_short(measured)}
            if keep_losses:
                found["losses"] = [float(f"{loss:.4g}") for loss in losses]
            self.runs[key] = found
            self.write()
        return found

    def write(self) -> None:
        """A line a run."""
        head = json.dumps({**self.about, "models": self.models}, indent=1, ensure_ascii=False)
        runs = ",\n".join(
            json.dumps(_without_nonfinite(found)) for _, found in sorted(self.runs.items())
        )
        whole = f'{head[:-2]},\n "runs": [\n{runs}\n]}}\n'
        write_atomically(self.path, whole.encode())


def _described(problem: Problem) -> dict[str, Any]:
    count = sum(part.numel() for part in problem.begin(0, 1).model.parameters())
    described = problem._asdict() | {"parameters": count}
    del described["begin"]
    return described


def _short(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: list(map(rounded, value)) if isinstance(value, list) else rounded(value)
        for name, value in measured.items()
    }


def _without_nonfinite(value: Any) -> Any:
    """With None for what JSON has no number for."""
    if isinstance(value, dict):
        return {name: _without_nonfinite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_nonfinite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Tuning and reporting


class Protocol(NamedTuple):
    """How many steps and seeds."""

    steps: int
    tuning_seeds: int
    report_seeds: int

    def tuning(self) -> range:
        return range(self.tuning_seeds)

    def report(self) -> range:
        return range(FIRST_REPORT_SEED, FIRST_REPORT_SEED + self.report_seeds)


def adam_rate(exponent: int) -> float:
    return rounded(10 ** (exponent / PER_DECADE))


def tuned_adam(loss_at: Callable[[float], float]) -> float:
    """The best rate of a grid, which grows until its best is not at an end."""
    losses = {e: loss_at(adam_rate(e)) for e in range(ADAM_FROM, ADAM_TO + 1)}
    while True:
        best = min(losses, key=losses.__getitem__)
        beyond = {min(losses): best - 1, max(losses): best + 1}.get(best)
        if beyond is None or not ADAM_LOWEST <= beyond <= ADAM_HIGHEST:
            return adam_rate(best)
        losses[beyond] = loss_at(adam_rate(beyond))


def tuned(results: Results, problem: str, optimizer: str, protocol: Protocol) -> float:
    """The learning rate whose mean final loss on the tuning seeds is lowest."""

    def loss_at(lr: float) -> float:
        keys = (Key(problem, optimizer, lr, seed, protocol.steps) for seed in protocol.tuning())
        finals = [results.of(key)["final_loss"] for key in keys]
        return math.inf if None in finals else sum(finals) / len(finals)

    if optimizer == ADAM:
        return tuned_adam(loss_at)
    return min(reversed(LEARNED_RATES), key=loss_at)  # 1 where nothing is better


class Reported(NamedTuple):
    """The runs of one optimizer on the report seeds: without any tuning, and tuned."""

    plain: list[dict[str, Any]]
    tuned: list[dict[str, Any]]


def reported(results: Results, problem: str, optimizer: str, protocol: Protocol) -> Reported:
    """Tune and report, as far as it has not been done."""
    best = tuned(results, problem, optimizer, protocol)
    plain = UNTUNED_ADAM if optimizer == ADAM else 1.0
    return Reported(
        *(
            [
                results.of(Key(problem, optimizer, lr, seed, protocol.steps), keep_losses=True)
                for seed in protocol.report()
            ]
            for lr in (plain, best)
        )
    )


# What is written

Found = Mapping[str, Mapping[str, Reported]]  # by problem and optimizer


def cell(runs: Sequence[Mapping[str, Any]]) -> str:
    """Mean and range of final losses, and how many runs diverged."""
    finals = [found["final_loss"] for found in runs]
    diverged = sum(found["diverged"] for found in runs)
    note = f"{diverged} of {len(runs)} diverged"
    if None in finals:
        return note
    mean = sum(finals) / len(finals)
    text = f"{mean:.3g} ({min(finals):.3g} … {max(finals):.3g})"
    return f"{text}, {note}" if diverged else text


def table(results: Results, found: Found, protocol: Protocol) -> str:
    """Three tables: nothing tuned, everything tuned, and what a step costs."""
    header = ["model", *(LABELS.get(name, name) for name in (ADAM, *WEIGHTS))]
    plain, chosen, cost = [], [], []
    for name, rows in found.items():
        title = results.models[name]["title"]
        parameters = results.models[name]["parameters"]
        plain.append([title, *(cell(row.plain) for row in rows.values())])
        chosen.append(
            [title, *(f"{cell(row.tuned)} at {row.tuned[0]['lr']:g}" for row in rows.values())]
        )
        cost.append(
            [f"{title}, {parameters:,} parameters", *(_milliseconds(r) for r in rows.values())]
        )
    lines = [
        f"Mean of the last {LAST} training losses after {protocol.steps} steps, mean (least … "
        f"greatest) of {protocol.report_seeds} seeds.",
        "Made by `python scripts/studies/untrained_models.py`; on CIFAR-10 the convolutions are",
        f"updated by `{CIFAR}:conv`.",
    ]
    for heading, rows in (
        (f"Nothing tuned: Adam at {UNTUNED_ADAM:g}, learned optimizers at lr=1", plain),
        (f"Rates chosen on {protocol.tuning_seeds} other seeds", chosen),
        ("Milliseconds of a step, beside those of the loss and its gradient", cost),
    ):
        lines += ["", f"{heading}:", "", *_rows(header, rows)]
    kinds = f"of {protocol.report_seeds}, nothing tuned / tuned"
    lines += ["", f"Seeds in which the final loss is below that of tuned Adam, {kinds}:", ""]
    lines += _rows(header, [_ahead(results.models[name]["title"], found[name]) for name in found])
    return "\n".join(lines) + "\n"


def _ahead(title: str, rows: Mapping[str, Reported]) -> list[str]:
    """For each optimizer, in how many seeds it is below tuned Adam: nothing tuned, tuned."""
    finals = [
        [[_number(one["final_loss"]) for one in runs] for runs in row] for row in rows.values()
    ]
    adam = finals[0][1]
    counts = [
        [sum(mine < its for mine, its in zip(runs, adam, strict=True)) for runs in kinds]
        for kinds in finals
    ]
    return [title, *(" / ".join(map(str, pair)) for pair in counts)]


def _rows(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (header, *rows)]
    yield from (lines[0], "|---" * len(header) + "|", *lines[1:])


def _milliseconds(row: Reported) -> str:
    """Of the run that other work on the machine disturbed least."""
    least = [
        min(found[name] for runs in row for found in runs)
        for name in ("seconds", "evaluation_seconds")
    ]
    return " + ".join(f"{1000 * seconds:.2g}" for seconds in least)


def curves_of(runs: Sequence[Mapping[str, Any]], steps: int) -> np.ndarray:
    """Losses (runs, steps); not a number from where a run has none."""
    curves = np.full((len(runs), steps), np.nan)
    for curve, found in zip(curves, runs, strict=True):
        losses = np.array(found["losses"], dtype=float)
        curve[: len(losses)] = losses
    return curves


def mean_curve(runs: Sequence[Mapping[str, Any]], steps: int) -> np.ndarray:
    """Mean loss (steps,) of some runs; not a number from where one of them has none."""
    return curves_of(runs, steps).mean(0)


def smoothed(curve: np.ndarray) -> np.ndarray:
    """The mean of every loss (steps,) and the nine before it."""
    return np.array([curve[max(0, i + 1 - LAST) : i + 1].mean() for i in range(len(curve))])


def write_curves(path: Path, found: Found, steps: int) -> None:
    """Mean losses, a line a step, a column an optimizer and rate."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = [f"{name} {kind}" for name in (ADAM, *WEIGHTS) for kind in Reported._fields]
        writer.writerow(["model", "step", *names])
        for problem, rows in found.items():
            curves = [mean_curve(runs, steps) for row in rows.values() for runs in row]
            for step, values in enumerate(zip(*curves, strict=True)):
                writer.writerow([problem, step, *(f"{value:.4g}" for value in values)])


def draw(path: Path, results: Results, found: Found, protocol: Protocol) -> None:
    """A panel a problem, means over seeds and their range, smoothed over ten steps."""
    rows = -(-(len(found) + 1) // 2)  # the legend takes a panel
    figure, axes = styles.new(8.4, 3.2 * rows, rows, 2)
    for panel, (problem, reports) in zip(axes.flat, found.items(), strict=False):
        draw_panel(panel, reports, protocol.steps)
        panel.set(title=results.models[problem]["title"], xlabel="step")
        panel.set_ylabel(results.models[problem]["loss_label"])
    for panel in axes.flat[len(found) :]:
        panel.set_axis_off()
    drawn = {
        label: handle
        for panel in axes.flat
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    everything = (_line(name, kind)["label"] for name in COLORS for kind in Reported._fields)
    labels = [label for label in everything if label in drawn]
    handles = [drawn[label] for label in labels]
    axes.flat[-1].legend(handles, labels, loc="center", frameon=False, fontsize=9)
    seeds = f"{protocol.report_seeds} seeds" if protocol.report_seeds > 1 else "one seed"
    bands = ", with the range of the seeds as a band" if protocol.report_seeds > 1 else ""
    caption = (
        "Training loss of models that the optimizers were not meta-trained on, a running mean of "
        f"{LAST} steps over {seeds}{bands}. A learned optimizer has no dotted line where "
        "its tuned rate is 1; what diverges leaves the axis at the top."
    )
    caption_below(figure, caption, 9)
    write_atomically(path, styles.encoded(figure, "png", 110))


def draw_panel(panel: Any, reports: Mapping[str, Reported], steps: int) -> None:
    """The optimizers on one problem, each rate once."""
    lowest, initial = math.inf, 0.0
    for optimizer, row in reports.items():
        for kind, runs in zip(Reported._fields, row, strict=True):
            again = kind == "tuned" and optimizer != ADAM and runs[0]["lr"] == row.plain[0]["lr"]
            if again or (optimizer == ADAM and kind == "plain"):
                continue
            every = np.array([smoothed(curve) for curve in curves_of(runs, steps)])
            mean, style = every.mean(0), _line(optimizer, kind)
            panel.plot(mean, **style)
            if len(runs) > 1:
                low, high = every.min(0), every.max(0)
                panel.fill_between(
                    range(steps), low, high, color=style["color"], alpha=0.1, linewidth=0
                )
            lowest, initial = min(lowest, np.nanmin(mean)), max(initial, mean[0])
    panel.set_xlim(0, max(1, steps - 1))
    log_axis(panel, "y", 0.85 * lowest, 1.3 * initial)


def _line(optimizer: str, kind: str) -> dict[str, Any]:
    """Learned solid, with a tuned rate dotted; Adam dash-dotted."""
    label = f"{LABELS.get(optimizer, optimizer)}, {'lr=1' if kind == 'plain' else 'tuned'}"
    own = {"color": COLORS[optimizer], "label": label}
    if optimizer == ADAM:
        return styles.HAND_DESIGNED | own | {"zorder": 4}
    return styles.LEARNED | own | ({"linestyle": ":"} if kind == "tuned" else {})


# Why


def seen_in_meta_training(steps: int) -> dict[str, list[float]]:
    """Root mean square of the gradient at the steps of :func:`run`, on tasks of the meta-training.

    The shipped weights of each task, on one function.
    """
    device, folder = torch.device("cpu"), os.environ.get("L2LGD_DATA", "~/.cache/l2lgd")
    tasks = {
        "quadratic-lstm": (QuadraticTask(), 100),
        "mnist-lstm": (ClassificationTask("mnist", DataConfig("mnist"), [20]), 100),
        "mnist-lstm_mixture": (
            PerceptronMixture(
                "mnist_mixture", DataConfig("mnist"), ["sigmoid", "relu", "tanh"], [1, 2], [5, 50]
            ),
            100,
        ),
        CIFAR: (ConvNetTask("cifar10", DataConfig("cifar10"), [16, 16, 16]), 200),
    }
    found = {}
    for name, (task, length) in tasks.items():
        task.setup(folder, device)
        at = start(trained.load(name), task.sample("train", 1, generator(0, "diagnosis")))
        found[name] = [rms([at.gradient])]
        for step in range(1, min(length, steps) + 1):
            at = advance(at)
            if step % 50 == 0:
                found[name].append(rms([at.gradient]))
    return found


def diagnose(results: Results, found: Found, protocol: Protocol) -> str:
    """Tables: gradients, the best moment, how far parameters went, losses times a constant."""
    parts = (
        _gradients(found, protocol),
        _best_moments(found, protocol),
        _movements(found),
        _factors(results, found, protocol),
        _other_weights(results, found, protocol),
        _dead_units(protocol) if "autoencoder" in found else (),
        _linear_code(results, protocol) if "autoencoder" in found else (),
    )
    return "\n".join(line for part in parts for line in [*part, ""])


def _gradients(found: Found, protocol: Protocol) -> Iterator[str]:
    yield "Root mean square of the gradient at steps 0, 50, 100, … and the last, one function:\n"
    rows = [
        [f"meta-training of {name}", name, _series(values)]
        for name, values in seen_in_meta_training(protocol.steps).items()
    ]
    for problem, optimizers in found.items():
        for name, row in optimizers.items():
            rows.append([problem, name, _series(row.plain[0]["gradient_rms"])])
    yield from _rows(["model", "optimizer, nothing tuned", "gradient"], rows)


def _best_moments(found: Found, protocol: Protocol) -> Iterator[str]:
    """Where the mean curves are lowest: before the end, where an optimizer comes off the rails."""
    yield "Mean losses, each of ten steps, up to steps 50, 100, 200 and the last; the lowest:\n"
    moments = [step for step in (50, 100, 200) if step < protocol.steps] + [protocol.steps]
    rows = []
    for problem, optimizers in found.items():
        for name, row in optimizers.items():
            for kind, runs in zip(Reported._fields, row, strict=True):
                curve = smoothed(mean_curve(runs, protocol.steps))
                values = [f"{curve[step - 1]:.3g}" for step in moments]
                best = int(np.nanargmin(curve))
                lowest = f"{curve[best]:.3g} at step {best}"
                rows.append([problem, f"{name}, lr {runs[0]['lr']:g}, {kind}", *values, lowest])
    yield from _rows(["model", "optimizer", *map(str, moments), "lowest"], rows)


def _movements(found: Found) -> Iterator[str]:
    yield "Root mean square of how far parameters went, mean of the seeds of the report:\n"
    rows = []
    for problem, optimizers in found.items():
        for name, row in optimizers.items():
            for kind, runs in zip(Reported._fields, row, strict=True):
                moved = [
                    f"{np.mean([_number(one[part]) for one in runs]):.2g}"
                    for part in ("weights_moved", "others_moved")
                ]
                rows.append([problem, f"{name}, lr {runs[0]['lr']:g}, {kind}", *moved])
    yield from _rows(["model", "optimizer", "matrices, kernels", "biases, scales"], rows)


def _factors(results: Results, found: Found, protocol: Protocol) -> Iterator[str]:
    """Final losses where the loss is multiplied with a constant before it is differentiated."""
    factors = sorted((*FACTORS, 1.0))
    seeds = protocol.report()[:2]
    yield f"The loss times a constant, lr=1, final loss without it, mean of {len(seeds)} seeds:\n"
    rows = []
    for problem in [name for name in found if name in FACTORS_ON]:
        for name in WEIGHTS:
            cells = []
            for factor in factors:
                keys = [Key(problem, name, 1.0, seed, protocol.steps, factor) for seed in seeds]
                cells.append(cell([results.of(key) for key in keys]))
            rows.append([problem, name, *cells])
    yield from _rows(["model", "weights", *(f"× {factor:g}" for factor in factors)], rows)


def _other_weights(results: Results, found: Found, protocol: Protocol) -> Iterator[str]:
    """Of weights that are made for one thing only."""
    seeds = protocol.report()[:2]
    yield f"Other shipped weights, as they are, {len(seeds)} seeds:\n"
    rows = []
    for problem in found:
        cells = [
            cell([results.of(Key(problem, name, 1.0, s, protocol.steps)) for s in seeds])
            for name in OTHER_WEIGHTS
        ]
        rows.append([problem, *cells])
    yield from _rows(["model", *OTHER_WEIGHTS], rows)


def _dead_units(protocol: Protocol) -> Iterator[str]:
    """Units of the autoencoder that are zero for every one of 1,000 images."""
    seed, problem = FIRST_REPORT_SEED, autoencoder()
    inputs = thumbnails(images("mnist")[0][:1000])
    yield f"Units of the autoencoder's layers of 32, 8 and 32 that are never on, seed {seed}:\n"
    rows = []
    for optimizer, lr in ((ADAM, UNTUNED_ADAM), (ADAM, 1e-2), *((name, 1.0) for name in WEIGHTS)):
        training = problem.begin(seed, protocol.steps)
        run(Key("autoencoder", optimizer, lr, seed, protocol.steps), training)
        with torch.no_grad():
            on = [training.model[:layers](inputs).amax(0) > 0 for layers in (2, 4, 6)]
        rows.append([f"{optimizer}, lr {lr:g}", *(str(int((~units).sum())) for units in on)])
    yield from _rows(["optimizer", "of 32", "of 8", "of 32"], rows)


def _linear_code(results: Results, protocol: Protocol) -> Iterator[str]:
    """The autoencoder whose code cannot die: Adam at four rates, learned ones as they are."""
    seeds = protocol.report()[:2]
    name = "autoencoder, linear code"
    results.problems[name] = autoencoder(linear_code=True)
    yield f"Final loss of the autoencoder with ReLU on its code and without, {len(seeds)} seeds:\n"
    settings = [(ADAM, adam_rate(exponent)) for exponent in range(-9, -5)]
    settings += [(optimizer, 1.0) for optimizer in WEIGHTS]
    rows = []
    for optimizer, lr in settings:
        cells = [
            cell([results.of(Key(model, optimizer, lr, s, protocol.steps)) for s in seeds])
            for model in ("autoencoder", name)
        ]
        rows.append([f"{optimizer}, lr {lr:g}", *cells])
    yield from _rows(["optimizer", "ReLU", "linear"], rows)


def _number(value: float | None) -> float:
    """JSON has no number for what is not finite."""
    return math.inf if value is None else value


def _series(values: Sequence[float | None]) -> str:
    return ", ".join(f"{_number(value):.1e}" for value in values)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default=",".join(PROBLEMS), help="some of " + ",".join(PROBLEMS))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--tuning-seeds", type=int, default=3)
    parser.add_argument("--report-seeds", type=int, default=5)
    parser.add_argument("--diagnose", action="store_true", help="diagnosis.md as well")
    parser.add_argument("--results", type=Path, default=Path("outputs/results/untrained"))
    parser.add_argument("--redraw", action="store_true", help="only the picture, from results.json")
    given = parser.parse_args(arguments)
    given.only = given.only.split(",")
    if unknown := set(given.only) - PROBLEMS.keys():
        parser.error(f"no model {min(unknown)}; choose among {', '.join(PROBLEMS)}")
    for name in ("steps", "tuning_seeds", "report_seeds"):
        if not 1 <= getattr(given, name) <= 10**6:
            parser.error(f"{name}={getattr(given, name)}: must be at least 1")
    return given


def about(protocol: Protocol) -> dict[str, Any]:
    """What ``results.json`` says of itself."""
    return {
        "command": " ".join(["python scripts/studies/untrained_models.py", *sys.argv[1:]]),
        "protocol": protocol._asdict(),
        "seeds": {"tuning": list(protocol.tuning()), "report": list(protocol.report())},
        "final_loss": f"mean of the last {LAST} training losses",
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, write."""
    given = parsed(arguments)
    if given.redraw:
        redraw(given.results)
        return
    runtime.keep_freed_memory()
    runtime.set_threads(1)
    protocol = Protocol(given.steps, given.tuning_seeds, given.report_seeds)
    problems = {name: PROBLEMS[name]() for name in given.only}
    given.results.mkdir(parents=True, exist_ok=True)
    results = Results(given.results, problems, about(protocol))
    began = time.perf_counter()
    found: dict[str, dict[str, Reported]] = {}
    for problem in problems:
        found[problem] = {}
        for optimizer in (ADAM, *WEIGHTS):
            row = reported(results, problem, optimizer, protocol)
            found[problem][optimizer] = row
            minutes = (time.perf_counter() - began) / 60
            told = f"{cell(row.plain)}; tuned {cell(row.tuned)} at {row.tuned[0]['lr']:g}"
            print(f"{minutes:5.1f} min  {problem}, {optimizer}: {told}", flush=True)
    write_curves(given.results / "curves.csv", found, protocol.steps)
    draw(given.results / "curves.png", results, found, protocol)
    write_text(given.results / "table.md", table(results, found, protocol))
    if given.diagnose:
        write_text(given.results / "diagnosis.md", diagnose(results, found, protocol))


def redraw(folder: Path) -> None:
    """Draw ``curves.png`` from the runs that ``results.json`` holds."""
    results = Results(folder, {}, {})  # which can make none
    if not results.path.is_file():
        raise UserError(f"there is no {results.path}")
    kept = json.loads(results.path.read_text(encoding="utf-8"))
    protocol = Protocol(**kept["protocol"])
    try:
        found = {
            problem: {name: reported(results, problem, name, protocol) for name in (ADAM, *WEIGHTS)}
            for problem in results.models
        }
    except KeyError as missing:
        raise UserError(f"{results.path} lacks a run of {missing.args[0]}") from missing
    draw(folder / "curves.png", results, found, protocol)


def write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except UserError as problem:
        print(f"untrained_models.py: {problem}", file=sys.stderr)
        sys.exit(2)
