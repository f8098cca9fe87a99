"""Captions of pictures: two sentences. Where the numbers come from is in the JSON beside them."""

from collections.abc import Mapping
from typing import Any

from l2lgd.results.plots import LABELS


def sentences(*parts: str) -> str:
    """Each as a sentence, the empty ones left out."""
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts if part)


def of_curves(summary: Mapping[str, Any], window: int) -> str:
    """Under ``curves.png``.

    Args:
        summary: of the evaluation.
        window: steps averaged into a point.
    """
    count, split = summary["num_functions"], summary["split"]
    when = f"over every {window} steps" if window > 1 else "at every step"
    if count == 1:
        shown = f"loss of one {split} function {when}"
    else:
        shown = (
            f"mean loss of {count} {split} functions {when}, with its 95 % bootstrap interval as "
            "a band"
        )
    kinds = {"checkpoint" in result for result in summary["results"].values()}
    drawn = "solid lines are learned optimizers"
    if False in kinds:
        drawn = "hand-designed optimizers are dash-dotted"
        drawn += ", learned ones solid" if True in kinds else ""
    lost = {name: {r["diverged"]} for name, r in summary["results"].items() if r["diverged"]}
    return sentences(shown, "; ".join(filter(None, [drawn, left_out(lost, count), note(summary)])))


def of_search(summary: Mapping[str, Any], count: int, what: str, clipped: bool) -> str:
    """Under ``search.png``.

    Args:
        count: of functions that losses are means over.
        what: was searched.
        clipped: are there marks at the upper edge?
    """
    functions = f"{count} {summary['split']} function{'s' * (count > 1)}"
    marks = "a star marks the best of each optimizer"
    if clipped:
        marks += ", a triangle at the upper edge a loss that diverged or lies above it"
    parts = [marks, note(summary)]
    return sentences(
        f"final loss of {functions} against the {what}", "; ".join(filter(None, parts))
    )


def of_training(num_functions: int, validation_functions: int, remark: str, parts: int = 1) -> str:
    """Under ``training.png``.

    Args:
        num_functions: in a meta-step.
        validation_functions: that a validation is a mean over.
        remark: of the data, may be empty.
        parts: of the task.
    """
    shown = f"{num_functions} training function{'s' * (num_functions > 1)}"
    above = f"above, the meta-loss of {shown} in each meta-step"
    above += f", of one of {parts} tasks" if parts > 1 else ""
    functions = f"{validation_functions} fixed function{'s' * (validation_functions > 1)}"
    below = f"the final loss on {functions}"
    if parts > 1:
        below = f"the log of {below} over that of tuned Adam, a mean over tasks"
    below = f"below, {below}, the best validation starred"
    return sentences(above, "; ".join(filter(None, [below, remark])))


def note(summary: Mapping[str, Any]) -> str:
    """What has to be said of data that are not the usual ones, such as a subset."""
    data = summary["data"] or {}
    size, colours = data.get("size"), data.get("colours")
    parts = [data.get("note"), f"images resized to {size} × {size} pixels" if size else None]
    if colours is not None:
        parts.append(f"images {'with colours' if colours else 'in grey'}")
    return "; ".join(str(part) for part in parts if part)


def left_out(diverged: Mapping[str, set[int]], count: int) -> str:
    """What means leave out.

    Args:
        diverged: of each optimizer, how many of ``count`` functions, in one panel or several.
    """
    parts = []
    for name, counts in diverged.items():
        many = " to ".join(str(n) for n in dict.fromkeys([min(counts), max(counts)]))
        parts.append(f"{LABELS.get(name, name)}: {many} of {count}")
    return f"means leave out the functions that diverged ({', '.join(parts)})" if parts else ""
