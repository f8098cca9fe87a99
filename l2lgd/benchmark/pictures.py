"""The pictures of a benchmark: a row for each task, or a line along what is varied."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from l2lgd.benchmark.outcome import numbers
from l2lgd.results.pictures import own_settings, say_literally
from l2lgd.results.plots import COLORS, LABELS
from l2lgd.storage.files import write_atomically

LOWEST, HIGHEST = 0.1, 10.0  # ratios that are drawn; what lies beyond is at the edge
CAPTION = (
    "Left: medians over {seeds} seeds, lines from the lowest to the highest; a triangle lies "
    "beyond, a cross diverged. Right: lines are 95 % intervals."
)
OTHERS = ("#ff7f00", "#377eb8", "#4daf4a", "#984ea3", "#a65628", "#f781bf", "#17becf", "#666666")


@own_settings()
def draw(path: Path, summary: Mapping[str, Any]) -> None:
    """``benchmark.png``: on each task the ratio of final losses, and over all tasks the speed-up.

    Points are medians over seeds, lines reach from the lowest to the highest seed.
    """
    from matplotlib.figure import Figure

    reference, tasks = summary["reference"], list(summary["tasks"].values())
    names = [name for name in summary["scores"] if name != reference]
    colors = _colors(names)
    height = 1.6 + 0.16 * len(tasks) * max(2, len(names) / 2)
    figure = Figure(figsize=(10.5, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 1.4))
    for row, task in enumerate(tasks):
        for place, name in enumerate(names):
            y = row + 0.8 * ((place + 0.5) / len(names) - 0.5)
            ratios = task["results"][name]["loss_ratio"]
            if ratios is not None:
                _point(left, ratios, y, colors[name])
    left.axvline(1, color="0.3", linewidth=0.8)
    left.set_xscale("log")
    left.set_xlim(LOWEST / 1.15, HIGHEST * 1.15)
    left.set_xticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
    left.set_yticks(range(len(tasks)), [task["title"] for task in tasks])
    left.set_ylim(len(tasks) - 0.5, -0.5)
    for edge in range(1, len(tasks)):
        left.axhline(edge - 0.5, color="0.9", linewidth=0.6, zorder=0)
    left.set_xlabel(f"final loss / that of {_label(reference)}")
    for row, name in enumerate(names):
        score = summary["scores"][name]["speed_up"]
        mean, ends = score["interquartile_mean"], score["ci95"]
        right.barh(row, mean, color=colors[name], height=0.6)
        if ends is not None:
            right.plot(ends, [row, row], color="black", linewidth=1.2)
    right.axvline(1, color="0.3", linewidth=0.8)
    right.set_yticks(range(len(names)), [_label(name) for name in names])
    right.set_ylim(len(names) - 0.5, -0.5)
    right.set_xlabel("speed-up, interquartile mean")
    right.set_xlim(0, None)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(CAPTION.format(seeds=summary["seeds"]), fontsize=8, color="0.35")
    _save(figure, path)


@own_settings()
def draw_axes(path: Path, summary: Mapping[str, Any]) -> None:
    """``generalisation.png``: a panel for all that is varied, a line an optimizer."""
    from matplotlib.figure import Figure

    reference = summary["reference"]
    names = [name for name in summary["scores"] if name != reference]
    colors, tasks = _colors(names), list(summary["tasks"].values())
    tasks = [task for task in tasks if task["results"][names[0]]["loss_ratio"] is not None]
    axes_of = list(dict.fromkeys(task["axis"] for task in tasks if task.get("axis")))
    figure = Figure(figsize=(3.6 * len(axes_of), 3.8), layout="constrained")
    panels = figure.subplots(1, len(axes_of), sharey=True, squeeze=False)[0]
    for panel, axis in zip(panels, axes_of, strict=True):
        points = sorted((t for t in tasks if t.get("axis") == axis), key=lambda t: t["factor"])
        factors = [task["factor"] for task in points]
        for name in names:
            ratios = np.array([numbers(task["results"][name]["loss_ratio"]) for task in points])
            middle = np.clip(np.median(ratios, axis=1), LOWEST, HIGHEST)
            low = np.clip(ratios.min(1), LOWEST, HIGHEST)
            high = np.clip(ratios.max(1), LOWEST, HIGHEST)
            panel.plot(factors, middle, marker="o", color=colors[name], label=_label(name))
            panel.fill_between(factors, low, high, color=colors[name], alpha=0.15, linewidth=0)
        panel.axhline(1, color="0.3", linewidth=0.8)
        panel.set(xscale="log", yscale="log", xlabel=f"{axis}, times the smallest")
        panel.set_xticks(factors, [f"{factor:g}" for factor in factors])
        panel.minorticks_off()
        panel.set_ylim(LOWEST / 1.1, HIGHEST * 1.1)
        panel.set_yticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"final loss / that of {_label(reference)}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    _save(figure, path)


def _point(axes: Any, ratios: Sequence[float | None], y: float, color: str) -> None:
    """Median and range; a triangle at the edge for what lies beyond, a cross for what diverged."""
    values = numbers(ratios)
    middle = float(np.median(values))
    low, high = np.clip([values.min(), values.max()], LOWEST, HIGHEST)
    axes.plot([low, high], [y, y], color=color, linewidth=1)
    shown = min(max(middle, LOWEST), HIGHEST)
    marker = "o" if shown == middle else "<" if middle < LOWEST else ">"
    if not math.isfinite(middle):
        marker = "X"
    axes.plot([shown], [y], marker=marker, color=color, markersize=4.5, linestyle="none")


def _colors(names: Sequence[str]) -> dict[str, str]:
    known = {name: COLORS[name] for name in names if name in COLORS}
    free = [color for color in OTHERS if color not in known.values()]
    others = [name for name in names if name not in known]
    return known | {name: free[k % len(free)] for k, name in enumerate(others)}


def _label(name: str) -> str:
    """As in other pictures; of a file its name."""
    return LABELS.get(name, Path(name).stem if name.endswith(".safetensors") else name)


def _save(figure: Any, path: Path) -> None:
    content = io.BytesIO()
    say_literally(figure)
    figure.savefig(content, format="png", dpi=150)
    write_atomically(path, content.getvalue())
