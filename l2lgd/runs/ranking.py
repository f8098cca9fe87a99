"""The result of a sweep: a table on the terminal, ``sweep.csv`` and ``sweep.png``."""

import csv
import io
import math

from rich.table import Table

from l2lgd.results.pictures import drawn
from l2lgd.results.plots import plot_sweep
from l2lgd.runs.sweeps import Job, Sweep
from l2lgd.storage.files import write_atomically
from l2lgd.system import terminal

REACHED = {  # what a job of a verb returns
    "meta-train": "best validation loss",
    "evaluate": "final loss",
    "tune": "validation loss",
    "stylize": "final loss",
    "check": "failed",
    "figures": "not drawn",
    "benchmark": "median loss ratio",
}


def show(sweep: Sweep) -> None:
    """Print the ranking, and leave it in the folder of the sweep.

    Raises:
        UserError: the folder cannot be written to.
    """
    reached = REACHED[sweep.verb]
    ranked, swept = sweep.ranked(), sweep.swept()
    write_atomically(sweep.folder / "sweep.csv", _csv(ranked, swept, reached).encode())
    table = Table(title=f"{sweep.verb}, {len(sweep.jobs)} jobs: {sweep.folder}")
    for column in ("rank", "job", *swept, reached):
        table.add_column(column, justify="right")
    for rank, job in enumerate(ranked, 1):
        known = _finite(job)
        options = [job.options.get(name, "") for name in swept]
        value = job.status if job.value is None else f"{job.value:.4g}"
        table.add_row(str(rank) if known else "–", str(job.number), *options, value)
    terminal.show(table)
    finite = [job for job in ranked if _finite(job)]
    if len(finite) > 1:
        picture = sweep.folder / "sweep.png"
        title = f"{sweep.verb}, {len(finite)} jobs"
        drawn(picture, lambda path: plot_sweep(path, *_axis(finite, swept), reached, title))


def _finite(job: Job) -> bool:
    return job.value is not None and math.isfinite(job.value)


def _csv(ranked: list[Job], swept: list[str], reached: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    value = reached.replace(" ", "_")
    writer.writerow(["rank", "job", "status", *swept, value, "seconds", "folder", "error"])
    for rank, job in enumerate(ranked, 1):
        options = [job.options.get(name, "") for name in swept]
        known = "" if job.value is None else repr(job.value)
        place = rank if _finite(job) else ""
        seconds = "" if job.seconds is None else job.seconds
        writer.writerow(
            [place, job.number, job.status, *options, known, seconds, job.folder, job.error]
        )
    return text.getvalue()


def _axis(
    jobs: list[Job], swept: list[str]
) -> tuple[str, dict[str, list[tuple[float, float]]], list[str]]:
    """The horizontal axis: an option with numbers, the one with most; else the jobs by rank.

    Returns:
        Its name, for each combination of the other options the points (x, value), seeds together,
        and names of the places where x is a rank.
    """

    def numbers(name: str) -> set[float]:
        try:
            return {float(job.options[name]) for job in jobs}
        except (KeyError, ValueError):
            return set()

    candidates = [name for name in swept if name != "seed" and len(numbers(name)) > 1]
    if not candidates:
        names = [" ".join(job.options.get(n, "") for n in swept) or str(job.number) for job in jobs]
        values = [(float(k), float(job.value or 0.0)) for k, job in enumerate(jobs)]
        return ", ".join(swept), {"": values}, names
    x = max(candidates, key=lambda name: len(numbers(name)))
    others = [name for name in swept if name not in (x, "seed")]
    series: dict[str, list[tuple[float, float]]] = {}
    for job in jobs:
        label = ", ".join(f"{name}={job.options.get(name, '')}" for name in others)
        series.setdefault(label, []).append((float(job.options[x]), float(job.value or 0.0)))
    return x, series, []
