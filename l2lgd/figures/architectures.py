"""Figure 6 of the paper: the loss after 100 steps on networks of other widths and depths."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from l2lgd.figures import styles
from l2lgd.figures.base import (
    Appearance,
    Content,
    Evaluated,
    Evaluation,
    PaperFigure,
    Request,
    Row,
    Table,
)
from l2lgd.results.curves import summarize
from l2lgd.results.plots import LABELS as NAMES

UNITS = tuple(range(5, 55, 5))
OPTIMIZERS = ("lstm", "adam", "nag")
TRAINED_ON = ("layers_1", "lstm", 20)
COLORS = {"layers_1": "#e41a1c", "layers_2": "#377eb8"}
LABELS = {"layers_1": "1 layer", "layers_2": "2 layers"}
MARKERS = {"layers_1": "o", "layers_2": "s"}
TASKS = {"layers_1": "mnist", "layers_2": "mnist_two_layers"}
TICKS = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0)


class ArchitectureFigure(PaperFigure):
    """A panel an optimizer; the panels of the table are the numbers of layers."""

    intervals = "bars"

    def evaluations(self) -> dict[str, Evaluation]:
        return {
            f"{layers} {units}": _evaluation(layers, units) for layers in TASKS for units in UNITS
        }

    def collect(self, evaluated: Mapping[str, Evaluated], request: Request) -> Content:
        table = Table()
        for layers in TASKS:
            for optimizer in OPTIMIZERS:
                for units in UNITS:
                    curves = evaluated[f"{layers} {units}"].curves[optimizer]
                    loss = summarize(curves)["final_loss"]
                    low, high = loss["ci95"] or (np.nan, np.nan)
                    mean = np.nan if loss["mean"] is None else loss["mean"]
                    table.append(Row(layers, optimizer, units, mean, low, high))
        return Content(table)

    def draw(self, content: Content, appearance: Appearance) -> Any:
        table = content.table
        figure, axes = styles.new(10.8, 3.3, 1, len(OPTIMIZERS), sharey=True)
        colors = COLORS
        if appearance.style != "paper":
            colors = {"layers_1": "#d55e00", "layers_2": "#0072b2"}
        reference = table.at(*TRAINED_ON)
        for panel, optimizer in zip(axes[0], OPTIMIZERS, strict=True):
            for layers in TASKS:
                at, mean, low, high = table.lines(layers)[optimizer]
                panel.errorbar(
                    at,
                    mean,
                    np.maximum([mean - low, high - mean], 0),
                    color=colors[layers],
                    marker=MARKERS[layers],
                    markersize=4,
                    capsize=2,
                    label=LABELS[layers],
                )
                published = appearance.published.get(self.name)
                if published is not None:
                    at, mean, *_ = published.lines(layers)[optimizer]
                    panel.plot(at, mean, label="published", **styles.OVERLAY)
            if reference is not None:
                panel.axhline(reference, color="0.4", linewidth=0.9, linestyle="--")
            if optimizer == TRAINED_ON[1]:
                panel.axvline(TRAINED_ON[2], color="0.4", linewidth=0.9, linestyle="--")
            panel.set(title=NAMES[optimizer], xlabel="hidden units a layer")
        axes[0, 0].set_yscale("log")
        axes[0, 0].set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axes[0, 0].minorticks_off()
        values = [row.value for row in table]
        axes[0, 0].set_ylim(min(0.1, 0.9 * min(values)), 1.2 * max(values))
        axes[0, 0].set_ylabel("final cross-entropy (nats)")
        styles.legend_below(figure, axes[0])
        return figure


def _evaluation(layers: str, units: int) -> Evaluation:
    hidden = ",".join([str(units)] * int(layers[-1]))
    options = (f"task={TASKS[layers]}", f"task.hidden_layers=[{hidden}]")
    return Evaluation(f"{layers}-{units}", options, "grid", OPTIMIZERS[1:])
