"""Figures that are panels of loss curves: 4, 5, 7 and 8 of the paper, and two of our own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    Table,
    rows_of,
)
from l2lgd.results.axes import log_axis, loss_range
from l2lgd.results.curves import band

PANEL_WIDTH, PANEL_HEIGHT = 3.6, 3.3  # inches
ACROSS = 3  # panels, so that they can be read at the width of a page


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Args:
        name: as in the table; the paper's, where it has the same.
        steps: the first and the last that are shown.
        optimizers: those shown of an evaluation that has more; empty for all.
        window: steps averaged into one point.
        zoom: the loss axis goes from the lowest to so many times that; 0 for all of the curves.
        unit: of the numbers at the loss axis.
        off_axis: optimizers that the loss axis is not made for; their curves may leave it.
    """

    name: str
    title: str
    evaluation: Evaluation
    steps: tuple[int, int]
    loss: str = "loss"
    optimizers: tuple[str, ...] = ()
    window: int = 1
    zoom: float = 0.0
    unit: float = 1.0
    off_axis: tuple[str, ...] = ()


class CurveFigure(PaperFigure):
    """Panels of mean losses with their intervals against the step."""

    intervals = "bands"

    def __init__(self, name: str, what: str, panels: Sequence[Panel], remark: str = "") -> None:
        super().__init__(name, what, remark)
        self.panels = {panel.name: panel for panel in panels}

    def titles(self) -> dict[str, str]:
        return {name: panel.title for name, panel in self.panels.items()}

    def evaluations(self) -> dict[str, Evaluation]:
        return {
            name: panel.evaluation.showing(panel.optimizers)
            if panel.optimizers
            else panel.evaluation
            for name, panel in self.panels.items()
        }

    def collect(self, evaluated: Mapping[str, Evaluated], request: Request) -> Content:
        table = Table()
        for name, panel in self.panels.items():
            for optimizer, curves in evaluated[name].curves.items():
                if not panel.optimizers or optimizer in panel.optimizers:
                    found = rows_of(name, optimizer, band(curves, panel.window), panel.steps[0])
                    table += [row for row in found if row.at <= panel.steps[1]]
        return Content(table)

    def draw(self, content: Content, appearance: Appearance) -> Any:
        table = content.table
        names = [name for name in self.panels if name in table.panels()]
        columns = min(len(names), ACROSS)
        rows = -(-len(names) // columns)
        figure, axes = styles.new(PANEL_WIDTH * columns, PANEL_HEIGHT * rows, rows, columns)
        label = ""
        for place, name in zip(axes.flat, names, strict=False):
            panel = self.panels[name]
            self._draw_panel(place, panel, table.lines(name), appearance)
            if panel.loss != label or place.get_subplotspec().is_first_col():
                place.set_ylabel(panel.loss)
            label = panel.loss
        for place in axes.flat[len(names) :]:
            place.set_axis_off()
        styles.legend_below(figure, axes.flat)
        return figure

    def _draw_panel(
        self, axes: Any, panel: Panel, lines: Mapping[str, np.ndarray], appearance: Appearance
    ) -> None:
        style = styles.style_of(appearance.style)
        lines = {name: line / [[1], *[[panel.unit]] * 3] for name, line in lines.items()}
        for name, (at, mean, low, high) in lines.items():
            drawn = styles.line(style, name, styles.is_learned(name), len(at))
            axes.plot(at, mean, **drawn)
            if np.isfinite(low).any():  # one function alone has no interval
                axes.fill_between(at, low, high, color=drawn["color"], alpha=0.2, linewidth=0)
        published = appearance.published.get(self.name)
        if published is not None and not panel.zoom:  # the zoomed ones are in units of their own
            for at, mean, *_ in published.lines(panel.name).values():
                shown = (at >= panel.steps[0]) & (at <= panel.steps[1])
                axes.plot(at[shown], mean[shown], label="published", **styles.OVERLAY)
        shown = _limits(panel, [line for name, line in lines.items() if name not in panel.off_axis])
        if shown:
            log_axis(axes, "y", *shown)
        axes.set(title=panel.title, xlabel="step", xlim=panel.steps)


def _limits(panel: Panel, lines: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """Of the loss axis; what explodes leaves it at the top."""
    if panel.zoom:
        means = np.concatenate([line[1] for line in lines])
        lowest = float(np.nanmin(means[means > 0]))
        return 0.97 * lowest, panel.zoom * lowest
    return loss_range((line[1] for line in lines), (line[2] for line in lines))
