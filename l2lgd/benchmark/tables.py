"""The tables of a benchmark: over all tasks, and of each."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from l2lgd.benchmark.outcome import acquainted, numbers

COLUMNS = (
    "optimizer",
    "speed-up",
    "loss ratio",
    "held-out ratio",
    "below on",
    "diverged",
    "ms / step",
    "ns / coordinate",
    "trials",
)
PRINTED = ("optimizer", "speed-up", "95 % interval", "loss ratio", "diverged")  # in 80 columns
SEEN = "†"


def overall(summary: Mapping[str, Any]) -> list[list[str]]:
    """Rows of :data:`COLUMNS`, the highest speed-up first."""
    scores, tasks = summary["scores"], len(summary["tasks"])

    def rank(name: str) -> float:
        return -float(scores[name]["speed_up"]["interquartile_mean"])

    return [_row(name, scores[name], tasks) for name in sorted(scores, key=rank)]


def by_task(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the median loss ratio of each optimizer on each task."""
    names = [name for name in summary["scores"] if name != summary["reference"]]
    rows = []
    for task in summary["tasks"].values():
        seen = acquainted(task, summary["scores"])
        final = task["results"][summary["reference"]]["final_loss"]
        row = [task["title"], f"{task['num_steps']:,}", number(np.median(numbers(final)))]
        for name in names:
            result = task["results"][name]
            mark = SEEN if name in seen else ""
            ratios = result["loss_ratio"]
            row.append(("–" if ratios is None else number(np.median(numbers(ratios)))) + mark)
        rows.append(row)
    return ["task", "steps", f"loss of {summary['reference']}", *names], rows


def markdown(summary: Mapping[str, Any]) -> str:
    """``table.md``."""
    reference, seeds = summary["reference"], summary["seeds"]
    columns, rows = by_task(summary)
    marked = any(SEEN in cell for row in rows for cell in row)
    lines = [
        f"Of {len(summary['tasks'])} tasks and {seeds} seed{'s' * (seeds > 1)} each, interquartile "
        "means with the 95 % interval of a bootstrap within tasks. The speed-up is the number of "
        f"steps that {reference} takes over those of the optimizer to the same loss; a ratio is of "
        f"final losses, to that of {reference}. *Below on* counts tasks whose median ratio is "
        "below 1. Milliseconds are of a step with its gradient, the median over tasks; nanoseconds "
        "of the optimizer's part alone, on the largest task.",
        "",
        *_lines(COLUMNS, overall(summary)),
        "",
        "Median ratio of final losses by task.",
        "",
        *_lines(columns, rows),
    ]
    if marked:
        lines += [
            "",
            f"{SEEN} The optimizer was meta-trained on this data set or family, on another task.",
        ]
    return "\n".join(lines) + "\n"


def printed(summary: Mapping[str, Any]) -> Table:
    """The table over all tasks, for the terminal."""
    table = Table()
    for column in PRINTED:
        table.add_column(column, justify="left" if column == PRINTED[0] else "right")
    for row in overall(summary):
        name, speed_up, ratio, _, _, diverged, *_ = row
        mean, _, ends = speed_up.rstrip(")").partition(" (")
        table.add_row(name, mean, ends, ratio.partition(" (")[0], diverged)
    return table


def number(value: float | None) -> str:
    """Three digits; infinite, or null in JSON, is what diverged."""
    if value is None or not math.isfinite(value):
        return "∞"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.1e}"


def _row(name: str, own: Mapping[str, Any], tasks: int) -> list[str]:
    return [
        name,
        *(_mean(own[score]) for score in ("speed_up", "loss_ratio", "held_out_ratio")),
        f"{own['below_reference']} of {tasks}",
        f"{own['diverged']} of {own['runs']}",
        number(own["seconds_per_step"] * 1e3),
        number(own["optimizer_seconds_per_coordinate"] * 1e9),
        str(own["trials"]),
    ]


def _mean(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "–"
    mean = number(score["interquartile_mean"])
    if score["ci95"] is None:
        return mean
    return f"{mean} ({' … '.join(number(end) for end in score['ci95'])})"


def _lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    align = ["---", *["---:"] * (len(columns) - 1)]
    return [f"| {' | '.join(row)} |" for row in (columns, align, *rows)]
