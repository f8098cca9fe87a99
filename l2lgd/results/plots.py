"""Loss curves in the paper's look: learned solid, hand-designed dash-dotted, log loss axis."""

import io
import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from l2lgd.results.curves import Band
from l2lgd.storage.files import write_atomically

COLORS = {  # ColorBrewer Set1, the first five as in the paper
    "adam": "#e41a1c",
    "rmsprop": "#377eb8",
    "sgd": "#4daf4a",
    "nag": "#984ea3",
    "lstm": "#ff7f00",
    "lstm_per_group": "#ff7f00",
    "lstm_gac": "#a65628",
    "lstm_sub": "#a65628",
    "lstm_mixture": "#000000",
    "ntm_bfgs": "#f781bf",
    "ntm_lbfgs": "#17becf",
    "bfgs": "#666666",
}
OTHER_COLORS = ("#1b9e77", "#bcbd22", "#6a51a3", "#000000")  # of users' own optimizers
LABELS = {
    "adam": "ADAM",
    "rmsprop": "RMSprop",
    "sgd": "SGD",
    "nag": "NAG",
    "bfgs": "BFGS",
    "lstm": "LSTM",
    "lstm_per_group": "LSTM",
    "lstm_odd": "LSTM (odd)",
    "lstm_sub": "LSTM-sub",
    "lstm_mixture": "LSTM, mixture",
    "lstm_gac": "LSTM+GAC",
    "ntm_bfgs": "NTM-BFGS",
    "ntm_lbfgs": "NTM-L-BFGS",
}
VALIDATION = "0.25"
LEARNED: dict[str, Any] = {"linewidth": 2.0, "zorder": 3}
HAND_DESIGNED: dict[str, Any] = {"linewidth": 1.5, "linestyle": (0, (6, 1.5, 1.5, 1.5))}


def plot_curves(
    path: Path,
    bands: Mapping[str, Band],
    learned: Collection[str],
    title: str,
    loss_label: str,
    caption: str,
) -> None:
    """Mean loss against the step, one line an optimizer, with its 95 % interval as a band.

    The axis leaves out what diverges far above the initial loss.
    """
    figure, axes = _figure((6.4, 4.8))
    draw_bands(axes, bands, learned)
    means = np.stack([band.mean for band in bands.values()])
    finite = means[np.isfinite(means) & (means > 0)]
    if finite.size:
        axes.set_yscale("log")
        initial = np.nanmax(means[:, 0])
        axes.set_ylim(0.8 * finite.min(), 1.25 * min(finite.max(), 3 * initial))
    axes.set_xlim(0, max(_steps(band)[-1] for band in bands.values()))
    axes.set_xlabel("Step")
    axes.set_ylabel(loss_label)
    axes.set_title(title)
    axes.legend(frameon=False)
    _save(figure, path, caption)


def draw_bands(axes: Any, bands: Mapping[str, Band], learned: Collection[str]) -> None:
    """A line and its interval for each optimizer, the learned ones solid."""
    others = itertools.cycle(OTHER_COLORS)
    for name, band in bands.items():
        color = COLORS.get(name) or next(others)
        style = LEARNED if name in learned else HAND_DESIGNED
        steps = _steps(band)
        axes.plot(steps, band.mean, color=color, label=LABELS.get(name, name), **style)
        axes.fill_between(steps, band.low, band.high, color=color, alpha=0.2, linewidth=0)


def _steps(band: Band) -> np.ndarray:
    return np.arange(len(band.mean)) * band.window


def plot_search(
    path: Path,
    searches: Mapping[str, Sequence[tuple[float, float]]],
    xlabel: str,
    title: str,
    caption: str,
) -> None:
    """Validation loss against the searched rate, one line an optimizer, its best rate marked."""
    figure, axes = _figure((6.4, 4.8))
    others = itertools.cycle(OTHER_COLORS)
    for name, search in searches.items():
        finite = sorted((rate, loss) for rate, loss in search if np.isfinite(loss))
        if not finite:  # of one optimizer among several; a search as a whole has found something
            continue
        rates, losses = zip(*finite, strict=True)
        color = COLORS.get(name) or next(others)
        axes.plot(rates, losses, marker=".", color=color, label=LABELS.get(name, name))
        best = int(np.argmin(losses))
        axes.plot(rates[best], losses[best], marker="*", markersize=14, color=color)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(xlabel)
    axes.set_ylabel("final loss on validation problems")
    axes.set_title(title)
    if axes.lines:
        axes.legend(frameon=False)
    _save(figure, path, caption)


POINTS = 50  # of the line through the meta-losses


def plot_training(
    path: Path,
    meta_losses: Sequence[tuple[int, float]],
    validations: Sequence[tuple[int, float]],
    title: str,
    caption: str,
) -> None:
    """Meta-loss and validation loss against the meta-step, the best validation marked.

    The meta-loss depends on where in its trajectory an unroll is, so the line is of means.

    Args:
        meta_losses, validations: points (meta-step, loss); NaN where it was not finite.
    """
    figure, (above, below) = _figure((6.4, 5.6), rows=2)
    window = max(1, len(meta_losses) // POINTS)
    above.plot(*_columns(meta_losses), color=COLORS["lstm"], alpha=0.3, linewidth=0.8)
    whole = np.array(meta_losses[: len(meta_losses) // window * window], float).reshape(-1, 2)
    steps, losses = whole.reshape(-1, window, 2).mean(1).T
    above.plot(steps, losses, color=COLORS["lstm"], linewidth=LEARNED["linewidth"])
    above.set_ylabel("meta-loss" + (f"\n(line: mean of {window} meta-steps)" if window > 1 else ""))
    finite = [point for point in validations if np.isfinite(point[1])]
    below.plot(*_columns(finite), color=VALIDATION, marker=".", clip_on=False)
    if finite:
        best = min(finite, key=lambda point: point[1])
        below.plot(*best, "*", markersize=14, color=VALIDATION, clip_on=False)
    below.set_ylabel("validation: final loss")
    below.set_xlabel("meta-step")
    for axes, points in ((above, meta_losses), (below, finite)):
        values = [value for _, value in points if np.isfinite(value)]
        if values and min(values) > 0:
            axes.set_yscale("log")
    last = max([step for step, _ in (*meta_losses, *validations)], default=1)
    above.set(title=title, xlim=(0, last))
    below.set(xlim=(0, last))
    _save(figure, path, caption)


def _columns(points: Sequence[tuple[int, float]]) -> np.ndarray:
    return np.array(points, float).reshape(-1, 2).T


def plot_sweep(
    path: Path,
    xlabel: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    names: Sequence[str],
    ylabel: str,
    title: str,
) -> None:
    """What the jobs of a sweep have reached: a point a job, a line through the means.

    Args:
        series: points (x, value) of each line.
        names: of the places 0, 1, … where x is not a number.
    """
    figure, axes = _figure((6.4, 4.8))
    colors = itertools.cycle([*COLORS.values(), *OTHER_COLORS])
    everything = [point for points in series.values() for point in points]
    for label, points in series.items():
        color = next(colors)
        axes.plot(*zip(*points, strict=True), ".", color=color, markersize=9)
        places = sorted({x for x, _ in points})
        means = [np.mean([value for at, value in points if at == x]) for x in places]
        axes.plot(places, means, color=color, label=label or None)
    best = min(everything, key=lambda point: point[1])
    axes.plot(*best, "*", markersize=14, color="0.2")
    low, high = (bound(x for x, _ in everything) for bound in (min, max))
    if names:
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    elif low > 0 and high >= 10 * low:
        axes.set_xscale("log")
    if best[1] > 0:
        axes.set_yscale("log")
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title)
    if any(series):
        axes.legend(frameon=False, fontsize=8)
    _save(figure, path, "")


def _figure(size: tuple[float, float], rows: int = 1) -> tuple[Any, Any]:
    """A figure and its axes; an array of these for more than one row."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, figsize=size)
    for place in figure.axes:
        place.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path, caption: str) -> None:
    from matplotlib import pyplot

    figure.text(0.01, 0.01, caption, fontsize=6.5, color="0.35", va="bottom", wrap=True)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    pyplot.close(figure)
    write_atomically(path, buffer.getvalue())
