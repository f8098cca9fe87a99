"""A figure of evaluations of one's own, in the look of the paper's: ``l2lgd figures of=[…]``."""

import shlex
import textwrap
from collections.abc import Sequence

from l2lgd.config.titles import title_of
from l2lgd.errors import ConfigError
from l2lgd.figures.base import Evaluated, Evaluation
from l2lgd.figures.curves import CurveFigure, Panel
from l2lgd.storage.paths import as_typed

NAME = "own"
LONG = 500  # steps, from which on points are means of several
WINDOW = 10
NEEDED = {"task": str, "num_steps": int, "command": str, "results": dict}  # of a summary
TITLE_WIDTH = 36  # characters


def own(folders: Sequence[str]) -> tuple[CurveFigure, dict[str, Evaluated]]:
    """The figure, and its evaluations by panel.

    Args:
        folders: of evaluations, a panel each.

    Raises:
        ConfigError: one is not the folder of an evaluation.
    """
    evaluated: dict[str, Evaluated] = {}
    for folder in folders:
        one = Evaluated(as_typed(folder))
        try:
            verb, task = one.summary["verb"], one.summary["task"]
            if verb == "evaluate" and not all(
                isinstance(one.summary[key], kind) for key, kind in NEEDED.items()
            ):
                raise TypeError("values of other types")
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"of=[{folder}]: no summary.json of an evaluation there") from error
        if verb != "evaluate":
            raise ConfigError(f"of=[{folder}] is of l2lgd {verb}, not of evaluate")
        name = task if task not in evaluated else f"{task} ({len(evaluated) + 1})"
        evaluated[name] = one
    tasks = [one.summary["task"] for one in evaluated.values()]
    panels = [
        _panel(name, one, str(folder) if tasks.count(one.summary["task"]) > 1 else "")
        for folder, (name, one) in zip(folders, evaluated.items(), strict=True)
    ]
    return CurveFigure(NAME, "mean loss against the step", panels), evaluated


def _panel(name: str, one: Evaluated, folder: str) -> Panel:
    """A panel; its title names the folder where several are of one task."""
    steps = one.summary["num_steps"]
    stochastic = any(curves.stochastic for curves in one.curves.values())
    window = WINDOW if stochastic and steps >= LONG else 1
    words = title_of(one.summary["task"], shlex.split(one.summary["command"]))
    words = f"{words}, {folder}" if folder else words
    return Panel(
        name,
        textwrap.fill(words, TITLE_WIDTH),
        Evaluation(name, (), ""),
        (min(window, steps), steps),
        window=window,
    )
