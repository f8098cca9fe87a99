"""Draw the committed pictures again from their tables, without an evaluation.

    python scripts/tools/redraw.py

Those of ``outputs/figures`` with their captions, and in ``outputs/results`` ``curves.png`` of each
evaluation, pictures and table of each benchmark. The studies have ``--redraw`` of their own;
``make redraw`` runs all.
"""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from l2lgd.benchmark.report import write
from l2lgd.config.defaults import composed
from l2lgd.config.schemas import about_task
from l2lgd.config.titles import title_of
from l2lgd.figures.base import Appearance
from l2lgd.figures.catalogue import FIGURES
from l2lgd.figures.comparison import comparison
from l2lgd.figures.drawing import draw, path_of, table_of, write_caption
from l2lgd.results.captions import of_curves
from l2lgd.results.curves import FINAL_WINDOW, band, read_curves
from l2lgd.results.losses import FILE, read
from l2lgd.results.plots import plot_curves
from l2lgd.storage.files import write_atomically
from l2lgd.verbs.evaluate import LONG


def redraw_figures(folder: Path) -> None:
    """Pictures, captions and ``comparison.md`` of the figures that a folder has."""
    tables = {}
    for name, figure in FIGURES.items():
        if path_of(folder, name, "csv").exists():
            write_caption(figure, folder)
            draw(figure, folder, Appearance())
            print(path_of(folder, name, "png"))
            tables[name] = table_of(folder, name)
    write_atomically(folder / "comparison.md", comparison(tables).encode())


def redraw_evaluation(folder: Path) -> None:
    """``curves.png`` of an evaluation, from the losses that it has kept or from its means."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    bands, window = read_curves(folder / "curves.csv"), 1
    if (folder / FILE).is_file():
        curves, _ = read(folder)
        if summary["num_steps"] >= LONG and all(c.stochastic for c in curves.values()):
            window = FINAL_WINDOW
            bands = {name: band(curves[name], window) for name in bands}
    learned = [name for name, result in summary["results"].items() if "checkpoint" in result]
    label = about_task(composed("evaluate", [f"task={summary['task']}"])).loss_label
    title = title_of(summary["task"], shlex.split(summary["command"]))
    caption = of_curves(summary, window)
    plot_curves(folder / "curves.png", bands, learned, title, label, caption)
    print(folder / "curves.png")


def redraw_benchmark(folder: Path) -> None:
    """Pictures and ``table.md`` of a benchmark, from its summary."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    for path in write(folder, summary).values():
        print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    outputs = parser.parse_args().outputs
    redraw_figures(outputs / "figures")
    for summary in sorted((outputs / "results").glob("*/summary.json")):
        verb = json.loads(summary.read_text(encoding="utf-8"))["verb"]
        (redraw_benchmark if verb == "benchmark" else redraw_evaluation)(summary.parent)


if __name__ == "__main__":
    main()
