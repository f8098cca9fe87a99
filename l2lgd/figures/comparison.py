"""The published curves, and how ours compare with them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

from l2lgd.figures.base import Row, Table
from l2lgd.results.plots import LABELS

TUNED = ("adam", "rmsprop", "sgd", "nag")
LEARNED = ("lstm", "lstm_per_group", "lstm_sub")
AS_PUBLISHED = {"lstm_per_group": "lstm"}  # ours → its name in the paper's figures
TITLES = {
    "quadratic": "Figure 4, quadratics",
    "mnist": "Figure 4, MNIST",
    "mnist_40": "Figure 5, 40 units",
    "mnist_two_layers": "Figure 5, two layers",
    "mnist_relu": "Figure 5, ReLU",
    "layers_1": "Figure 6, one layer",
    "layers_2": "Figure 6, two layers",
    "cifar10": "Figure 7, CIFAR-10",
    "cifar5": "Figure 7, CIFAR-5",
    "cifar2": "Figure 7, CIFAR-2",
    "neural_art": "Figure 8, training style",
    "neural_art_large": "Figure 8, new style, 128 × 128",
}
OWN_UNITS = ("neural_art", "neural_art_large")  # of losses, where only ratios can be compared
HEAD = """# Published and measured

Made by `l2lgd figures` from the tables beside it. Every cell is the published value (of
arXiv 1606.04474 v2, measured in its figures to about 1 %) → ours; below them the ratio of the
learned optimizer to the best hand-designed one. Ours are means over functions that stay finite: of
figures 4, 5 and 8 at that step, of figures 6 and 7 over the ten steps that end there, as they are
drawn. Figure 8 has losses in units that the paper does not give, so that only ratios compare.
The JSON beside each figure has the number of functions, data, versions and commands.
"""


def published() -> dict[str, Table]:
    """The paper's curves, by figure."""
    text = (files("l2lgd.figures") / "published.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found: dict[str, Table] = {}
    for line in lines[1:]:
        figure, panel, optimizer, at, loss = line.split(",")
        row = Row(panel, optimizer, float(at), float(loss), math.nan, math.nan)
        found.setdefault(figure, Table()).append(row)
        if (figure, panel) == ("4", "mnist"):  # one curve in two panels
            found[figure].append(row._replace(panel="mnist_200"))
    return found


def comparison(ours: Mapping[str, Table]) -> str:
    """``comparison.md``: a table a panel, of the figures that there are."""
    parts = [HEAD]
    for figure, theirs in published().items():
        if figure in ours:
            parts += [
                _panel(panel, theirs, ours[figure]) for panel in theirs.panels() if panel in TITLES
            ]
    return "\n".join(parts)


def _panel(panel: str, theirs: Table, ours: Table) -> str:
    steps = list(dict.fromkeys(row.at for row in theirs if row.panel == panel))
    here = {row.optimizer for row in ours if row.panel == panel}
    what = "units" if panel.startswith("layers") else "step"
    lines = [f"## {TITLES[panel]}", "", f"| {what} | {' | '.join(f'{at:g}' for at in steps)} |"]
    lines.append("|---" * (len(steps) + 1) + "|")

    def both(name: str, at: float) -> tuple[float | None, float | None]:
        continued = f"{panel}_200" if panel == "mnist" and at > 100 else panel
        return theirs.at(panel, AS_PUBLISHED.get(name, name), at), ours.at(continued, name, at)

    tuned = [name for name in TUNED if name in here]
    learned = [name for name in LEARNED if name in here]
    if panel not in OWN_UNITS:
        for name in [*tuned, *learned]:
            lines.append(_line(LABELS[name], [both(name, at) for at in steps]))
    for name in learned:
        ratios = []
        for at in steps:
            best = [_lowest(values) for values in zip(*(both(o, at) for o in tuned), strict=True)]
            ratios.append(tuple(map(_ratio, both(name, at), best)))
        lines.append(_line(f"**{LABELS[name]} / best tuned**", ratios))
    return "\n".join([*lines, ""])


def _line(label: str, pairs: Sequence[tuple[float | None, ...]]) -> str:
    cells = (" → ".join(_shown(value) for value in pair) for pair in pairs)
    return f"| {label} | {' | '.join(cells)} |"


def _shown(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3g}"


def _lowest(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None and math.isfinite(value)]
    return min(found, default=None)


def _ratio(value: float | None, best: float | None) -> float | None:
    return None if value is None or best is None else value / best
