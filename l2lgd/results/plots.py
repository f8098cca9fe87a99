"""Loss curves in the paper's look: learned solid, hand-designed dash-dotted, log loss axis."""

import io
import itertools
import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from l2lgd.results.axes import log_axis, loss_range, unit_of
from l2lgd.results.curves import Band
from l2lgd.results.pictures import own_settings, plain, say_literally
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
    "rnnprop": "RNNprop",
    "nn_adam": "learned Adam",
    "mlp": "MLP per parameter",
    "lstm_sub": "LSTM-sub",
    "lstm_mixture": "LSTM, mixture",
    "lstm_gac": "LSTM+GAC",
    "ntm_bfgs": "NTM-BFGS",
    "ntm_lbfgs": "NTM-L-BFGS",
}
VALIDATION = "0.25"
POINTS = 50  # of the line through the meta-losses
LEARNED: dict[str, Any] = {"linewidth": 2.0, "zorder": 3}
HAND_DESIGNED: dict[str, Any] = {"linewidth": 1.5, "linestyle": (0, (6, 1.5, 1.5, 1.5))}
SIZE = (6.0, 4.8)  # inches
TITLE_WIDTH = 58  # characters
LEGEND_COLUMNS, LEGEND_WIDTH, LEGEND_LINE = 5, 75, 8  # characters, a line of the legend as wide
CAPTION_POINTS = 8.0
CHARACTERS = 132.0  # of one point, in an inch
CEILING, HIGHEST = 3.0, 10.0  # of search.png, times the losses at low rates and the best one
MARK_AT, MARK_HEIGHT = 0.975, 0.035  # of the axes: of triangles, one optimizer's below another's


@own_settings()
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
    figure, axes = _figure()
    shown = loss_range((b.mean for b in bands.values()), (b.low for b in bands.values()))
    unit, suffix = unit_of(shown[0]) if shown else (1.0, "")
    draw_bands(axes, bands, learned, unit)
    if shown:
        log_axis(axes, "y", shown[0] / unit, shown[1] / unit)
    axes.set_xlim(0, max(_steps(band)[-1] for band in bands.values()))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="step", ylabel=loss_label + suffix)
    _save(figure, path, title, caption)


def draw_bands(
    axes: Any, bands: Mapping[str, Band], learned: Collection[str], unit: float = 1.0
) -> None:
    """A line and its interval for each optimizer, the learned ones solid.

    Args:
        unit: losses are divided by it.
    """
    others = itertools.cycle(OTHER_COLORS)
    for name, band in bands.items():
        color = COLORS.get(name) or next(others)
        style = LEARNED if name in learned else HAND_DESIGNED
        steps, mean, low, high = _steps(band), *(v / unit for v in (band.mean, band.low, band.high))
        label = LABELS.get(name, name) + ("" if np.isfinite(mean).any() else " (diverged)")
        axes.plot(steps, mean, color=color, label=label, **style)
        if np.isfinite(low).any():  # one function alone has no interval
            axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)


def _steps(band: Band) -> np.ndarray:
    return np.arange(len(band.mean)) * band.window


@own_settings()
def plot_search(
    path: Path,
    searches: Mapping[str, Sequence[tuple[float, float]]],
    xlabel: str,
    title: str,
    caption: str,
) -> None:
    """Validation loss against the searched rate, one line an optimizer, its best rate starred.

    Rates that are :func:`clipped` have a triangle at the upper edge.
    """
    figure, axes = _figure()
    others = itertools.cycle(OTHER_COLORS)
    beyond, height = clipped(searches), MARK_AT
    trials = [(name, *trial) for name, search in searches.items() for trial in search]
    kept = [loss for name, rate, loss in trials if rate not in beyond[name] and loss > 0]
    unit, suffix = unit_of(min(kept, default=math.nan))
    for name, search in searches.items():
        rates, losses = map(np.array, zip(*sorted(search), strict=True))
        losses = np.where(np.isfinite(losses), losses, np.nan) / unit
        color = COLORS.get(name) or next(others)
        found = np.isfinite(losses).any()
        label = LABELS.get(name, name) + ("" if found else " (diverged)")
        axes.plot(rates, losses, marker=".", color=color, label=label)
        if found:
            best = int(np.nanargmin(losses))
            axes.plot(rates[best], losses[best], marker="*", markersize=14, color=color)
        if beyond[name]:
            heights = [height] * len(beyond[name])
            at = axes.get_xaxis_transform()
            axes.plot(beyond[name], heights, "^", markersize=7, transform=at, color=color)
            height -= MARK_HEIGHT
    everywhere = [rate for _, rate, _ in trials]
    log_axis(axes, "x", min(everywhere) / 1.2, max(everywhere) * 1.2)
    if kept:
        low, high = np.log10([min(kept) / unit, max(kept) / unit])
        room = max(0.08 * (high - low), 0.01)
        log_axis(axes, "y", 10 ** (low - room), 10 ** (high + 2 * room))
    axes.set(xlabel=xlabel, ylabel=f"final loss on validation functions{suffix}")
    _save(figure, path, title, caption)


def clipped(searches: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, list[float]]:
    """By optimizer, the rates whose loss diverged or would stretch the axis.

    Losses fall with the rate as far as the best one; the axis serves up to some times those.
    """
    starts = []
    for search in searches.values():
        finite = [(rate, loss) for rate, loss in sorted(search) if math.isfinite(loss)]
        if finite:
            best, lowest = min(finite, key=lambda trial: trial[1])
            falling = max(loss for rate, loss in finite if rate <= best)
            starts.append(max(CEILING * falling, HIGHEST * lowest))
    ceiling = max(starts, default=math.inf)
    return {
        name: [rate for rate, loss in search if not loss <= ceiling or math.isinf(loss)]
        for name, search in searches.items()
    }


@own_settings()
def plot_training(
    path: Path,
    meta_losses: Sequence[tuple[int, float]],
    validations: Sequence[tuple[int, float]],
    title: str,
    caption: str,
    scored: bool = False,
) -> None:
    """Meta-loss and validation loss against the meta-step, the best validation marked.

    The meta-loss depends on where in its trajectory an unroll is, so the line is of means.

    Args:
        meta_losses, validations: points (meta-step, loss); NaN where it was not finite.
        scored: are validations scores of several tasks?
    """
    figure, (above, below) = _figure(rows=2)
    window = max(1, len(meta_losses) // POINTS)
    above.plot(*_columns(meta_losses), color=COLORS["lstm"], alpha=0.3, linewidth=0.8)
    whole = np.array(meta_losses[: len(meta_losses) // window * window], float).reshape(-1, 2)
    steps, losses = whole.reshape(-1, window, 2).mean(1).T
    above.plot(steps, losses, color=COLORS["lstm"], linewidth=LEARNED["linewidth"])
    above.set_ylabel("meta-loss" + (f", mean of {window}" if window > 1 else ""))
    finite = [point for point in validations if np.isfinite(point[1])]
    below.plot(*_columns(finite), color=VALIDATION, marker=".", clip_on=False)
    if finite:
        best = min(finite, key=lambda point: point[1])
        below.plot(*best, "*", markersize=14, color=VALIDATION, clip_on=False)
    below.set_ylabel("validation: score" if scored else "validation: final loss")
    below.set_xlabel("meta-step")
    for axes, points in ((above, meta_losses), (below, finite)):
        values = [value for _, value in points if np.isfinite(value)]
        if values and min(values) > 0 and not scored:  # logarithms as they are
            log_axis(axes, "y", 0.95 * min(values), 1.05 * max(values))
    last = max([step for step, _ in (*meta_losses, *validations)], default=1)
    above.set(xlim=(0, last))
    below.set(xlim=(0, last))
    _save(figure, path, title, caption)


def _columns(points: Sequence[tuple[int, float]]) -> np.ndarray:
    return np.array(points, float).reshape(-1, 2).T


@own_settings()
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
    figure, axes = _figure()
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
        axes.set_xticks(
            range(len(names)), [*map(plain, names)], rotation=30, ha="right", fontsize=8
        )
    elif low > 0 and high >= 10 * low:
        log_axis(axes, "x", low / 1.2, 1.2 * high)
    if best[1] > 0:
        worst = max(value for _, value in everything)
        log_axis(axes, "y", best[1] / 1.1, 1.1 * worst)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    _save(figure, path, title, "")


def _figure(rows: int = 1) -> tuple[Any, Any]:
    """A figure and its axes; an array of these for more than one row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots(rows)
    for place in figure.axes:
        place.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path, title: str, caption: str) -> None:
    """Title above, legend and caption below the axes."""
    figure.axes[0].set_title(textwrap.fill(title, TITLE_WIDTH), fontsize=11)
    axes = figure.axes[-1]
    labels = axes.get_legend_handles_labels()[1]
    if labels:
        fit = LEGEND_WIDTH // (max(map(len, labels)) + LEGEND_LINE)
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.14),
            ncols=max(1, min(len(labels), LEGEND_COLUMNS, fit)),
            frameon=False,
            fontsize=9,
        )
    caption_below(figure, caption)
    say_literally(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_atomically(path, buffer.getvalue())


def caption_below(figure: Any, caption: str, points: float = CAPTION_POINTS) -> None:
    """Write a caption under a figure of constrained layout, which makes room for it."""
    if not caption:
        return
    width, height = figure.get_size_inches()
    characters = int(width * CHARACTERS / points)
    lines = textwrap.wrap(caption, characters, break_on_hyphens=False)
    figure.text(0.01, 0.01, "\n".join(lines), fontsize=points, color="0.35", va="bottom")
    taken = (len(lines) * 1.25 * points + 9) / 72 / height
    figure.get_layout_engine().set(rect=(0, taken, 1, 1 - taken))
