"""Curves of an evaluation: losses at every step, bands over functions, curves.csv."""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from l2lgd.storage.files import write_atomically

FINAL_WINDOW = 10  # steps averaged into the final loss of a stochastic optimizee
RESAMPLES = 2000


@dataclass(frozen=True)
class Curves:
    """Losses f(θ_0) … f(θ_T) of F functions under one optimizer, (T + 1, F)."""

    losses: Tensor
    stochastic: bool

    def final_losses(self) -> np.ndarray:
        """f(θ_T) of each function (F,); the mean of the last ten steps where it is stochastic."""
        window = min(FINAL_WINDOW, len(self.losses) - 1) if self.stochastic else 1
        return self.losses[-window:].double().mean(0).cpu().numpy()

    def final_loss(self) -> float:
        """Mean over functions, infinite when one has diverged: what selection minimises."""
        mean = float(self.final_losses().mean())
        return mean if math.isfinite(mean) else math.inf


def bootstrap_interval(values: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Percentile bootstrap interval of the mean over the last axis: (…, F) → (2, …).

    Always the same resamples, so that the interval of given values is a fixed number.
    """
    count = values.shape[-1]
    picks = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    means = values @ picks.T / count
    tail = (1 - confidence) / 2
    interval: np.ndarray = np.quantile(means, [tail, 1 - tail], axis=-1)
    return interval


def summarize(curves: Curves) -> dict[str, Any]:
    """``final_loss`` over the functions that stayed finite, and how many did not.

    The median is over all of them, as what diverged is the largest. One function has no interval.
    """
    final = curves.final_losses()
    finite = final[np.isfinite(final)]
    if not len(finite):
        return {"final_loss": dict.fromkeys(("mean", "ci95", "median")), "diverged": len(final)}
    ci95 = list(map(float, bootstrap_interval(finite))) if len(finite) > 1 else None
    return {
        "final_loss": {
            "mean": float(finite.mean()),
            "ci95": ci95,
            "median": float(np.median(np.where(np.isfinite(final), final, np.inf))),
        },
        "diverged": int(len(final) - len(finite)),
    }


@dataclass(frozen=True)
class Band:
    """The mean loss with its 95 % interval at step 0 and at the end of every ``window`` steps.

    The interval of one function is no number.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    window: int = 1


def band(curves: Curves, window: int = 1) -> Band:
    """Over the functions that stay finite to the end, averaged over every ``window`` steps.

    Each array is (1 + T / window,); steps that do not fill a last window are left out.
    """
    losses = curves.losses.double().cpu().numpy()
    if window > 1:
        whole = (len(losses) - 1) // window
        windows = losses[1 : 1 + whole * window].reshape(whole, window, -1)
        losses = np.concatenate([losses[:1], windows.mean(1)])
    finite = losses[:, np.isfinite(losses).all(0)]
    if not finite.shape[1]:
        nothing = np.full(len(losses), np.nan)
        return Band(nothing, nothing, nothing, window)
    if finite.shape[1] == 1:
        nothing = np.full(len(losses), np.nan)
        return Band(finite[:, 0], nothing, nothing, window)
    low, high = bootstrap_interval(finite)
    return Band(finite.mean(1), low, high, window)


def write_curves(path: Path, bands: Mapping[str, Band]) -> None:
    """One row a step; columns ``step``, and mean, low and high of each optimizer."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *(f"{name}{end}" for name in bands for end in ("", "_low", "_high"))])
    columns = [column for b in bands.values() for column in (b.mean, b.low, b.high)]
    for step, row in enumerate(zip(*columns, strict=True)):
        writer.writerow([step, *(f"{value:.6g}" for value in row)])
    write_atomically(path, text.getvalue().encode())


def read_curves(path: Path) -> dict[str, Band]:
    """What :func:`write_curves` has written."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    values = np.array(lines, dtype=float).T
    return {header[i]: Band(*values[i : i + 3]) for i in range(1, len(header), 3)}
