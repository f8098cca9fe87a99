"""Figures 10 to 13 (appendix B of the paper): what optimizers propose along the LSTM's path."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from l2lgd.evaluation.proposals import proposals
from l2lgd.figures import styles
from l2lgd.figures.art import FOLLOWED, Setting, kept, key_of
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
from l2lgd.results.plots import LABELS

PLACES = ((0.25, 0.25), (0.5, 0.5), (0.75, 0.75))  # of the coordinates followed: down, across
CHANNELS = ("red", "green", "blue")
ASKED = 32  # steps with a panel each, as in figures 11 to 13
LARGEST_GRADIENT = 100.0  # hypothetical ones; true ones are mostly smaller, those there larger
ACROSS = 4  # panels


class ProposalsFigure(PaperFigure):
    """Figures 10 to 13: what optimizers propose along the path of the learned one.

    Args:
        coordinate: which of the three is asked for its response; None for the updates of all.
    """

    def __init__(
        self,
        name: str,
        what: str,
        evaluation: Evaluation,
        coordinate: int | None,
        remark: str = "",
    ) -> None:
        super().__init__(name, what, remark)
        self._evaluation, self._coordinate = evaluation, coordinate

    def evaluations(self) -> dict[str, Evaluation]:
        return {"neural_art": self._evaluation.showing(FOLLOWED)}

    def collect(self, evaluated: Mapping[str, Evaluated], request: Request) -> Content:
        one = evaluated["neural_art"]
        path = one.folder / "proposals.safetensors"
        found = kept(path, key_of(one), lambda: _proposed(Setting(one, request.overrides)))
        table = Table()
        if self._coordinate is None:
            for k, name in enumerate(_coordinate_names(int(found["side"]))):
                for opt in FOLLOWED:
                    updates = found[f"updates.{opt}"][:, k].tolist()
                    table += [Row(name, opt, t, u, np.nan, np.nan) for t, u in enumerate(updates)]
            return Content(table)
        instead = found["instead"].tolist()
        for step, true in enumerate(found["gradients"][:ASKED, self._coordinate].tolist()):
            panel = f"Step {step + 1}"
            for opt in FOLLOWED:
                proposed = found[f"responses.{opt}"][step, self._coordinate].tolist()
                pairs = zip(instead, proposed, strict=True)
                table += [Row(panel, opt, x, y, np.nan, np.nan) for x, y in pairs]
            table.append(Row(panel, "true gradient", true, 0.0, np.nan, np.nan))
        return Content(table)

    def draw(self, content: Content, appearance: Appearance) -> Any:
        style = styles.style_of(appearance.style)
        draw = self._draw_updates if self._coordinate is None else self._draw_responses
        figure, axes = draw(content.table, style)
        styles.legend_below(figure, axes.flat)
        return figure

    def _draw_updates(self, table: Table, style: styles.Style) -> tuple[Any, Any]:
        names = table.panels()
        figure, axes = styles.new(3.6 * len(names), 3.3, 1, len(names))
        for panel, name in zip(axes[0], names, strict=True):
            for opt, (at, update, *_) in table.lines(name).items():
                panel.plot(at, update, color=style.colors[opt], label=LABELS[opt])
            panel.set(title=name, xlabel="step", xlim=(0, at[-1]))
        axes[0, 0].set_ylabel("update")
        return figure, axes

    def _draw_responses(self, table: Table, style: styles.Style) -> tuple[Any, Any]:
        names = table.panels()
        rows = -(-len(names) // ACROSS)
        figure, grid = styles.new(7.6, 1.5 * rows, rows, ACROSS, sharex=True, sharey="row")
        for first, shown in zip(range(0, len(names), ACROSS), grid, strict=True):
            shown[0].set_ylim(*_responses_range(table, names[first : first + ACROSS]))
        for panel, name in zip(grid.flat, names, strict=False):
            lines = table.lines(name)
            (true,) = lines.pop("true gradient")[0]
            for opt, (at, response, *_) in lines.items():
                panel.plot(at, response, color=style.colors[opt], label=LABELS[opt])
            panel.axvline(true, color="0.8", linewidth=1, zorder=0)
            panel.set_title(name, fontsize=9)
            panel.set_xlim(at[0], at[-1])
        for panel in grid[-1]:
            panel.set_xlabel("gradient")
        figure.supylabel("proposed update")
        return figure, grid


def _responses_range(table: Table, panels: Sequence[str]) -> tuple[float, float]:
    """Updates shown in some panels: those of all but SGD, whose answers grow without limit."""
    values = [r.value for r in table if r.panel in panels and r.optimizer in FOLLOWED[:2]]
    room = 0.08 * (max(values) - min(values))
    return min(values) - room, max(values) + room


def _coordinate_names(side: int) -> list[str]:
    return [
        f"{channel} of pixel ({int(down * side)}, {int(across * side)})"
        for channel, (down, across) in zip(CHANNELS, PLACES, strict=True)
    ]


def _proposed(setting: Setting) -> dict[str, Tensor]:
    """Of three coordinates of the first function."""
    side = setting.task.size
    coordinates = [
        (channel * side + int(down * side)) * side + int(across * side)
        for channel, (down, across) in enumerate(PLACES)
    ]
    instead = torch.linspace(-LARGEST_GRADIENT, LARGEST_GRADIENT, 51)
    function = setting.functions(1).select(slice(0, 1))
    optimizers = {name: setting.optimizer(name) for name in FOLLOWED}
    steps = setting.summary["num_steps"]
    found = proposals(optimizers, function, steps, coordinates, instead, min(ASKED, steps))
    return {
        "instead": instead,
        "side": torch.tensor(side),
        "gradients": found.gradients,
        **{f"updates.{name}": tensor for name, tensor in found.updates.items()},
        **{f"responses.{name}": tensor for name, tensor in found.responses.items()},
    }
