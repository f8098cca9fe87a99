"""What a meta-step costs against coordinates, unroll, functions and hidden units.

Run as ``python scripts/bench/cost_model.py FOLDER`` with nothing else running; needs MNIST in the
data folder, and five minutes. Writes ``cost.csv`` and ``cost.png``.
"""

import csv
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from meta_step import Bench, Case

from l2lgd.system import runtime

SECONDS = 8.0  # of measuring, a point
MNIST = Case(1, (20,))
PAPER = {"coordinates": 15910, "unroll": 20, "functions": 1, "hidden units": 20}
SWEEPS: dict[str, list[tuple[Case, dict[str, int]]]] = {
    "coordinates": [(Case(1, (width,)), {}) for width in (5, 20, 80, 320, 1260)],
    "unroll": [(MNIST, {"unroll": unroll}) for unroll in (5, 10, 20, 40, 80)],
    "functions": [(Case(functions, (20,)), {}) for functions in (1, 2, 4, 8, 16)],
    "hidden units": [(MNIST, {"hidden_size": size}) for size in (5, 10, 20, 40, 80)],
}


def sweep(device: torch.device) -> list[dict[str, Any]]:
    """A row a point."""
    rows = []
    for name, points in SWEEPS.items():
        for case, options in points:
            bench = Bench(case, device, **options)
            bench.meta_step("ours")  # a warm-up
            bench.run(SECONDS, ("ours",))
            functions, n = bench.at.parameters.shape
            values = {
                "coordinates": n,
                "unroll": bench.unroll,
                "functions": functions,
                "hidden units": bench.ours.hidden_size,
            }
            seconds = statistics.median(bench.seconds["ours"])
            each = seconds / bench.coordinate_steps * 1e9
            rows.append({"sweep": name, **values, "seconds": seconds, "ns_a_step": each})
            print(f"{name} {values[name]:>9,}: {seconds:7.3f} s, {each:4.0f} ns a coordinate-step")
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(rows: list[dict[str, Any]], where: str, path: Path) -> None:
    """A panel a sweep, with a line of slope 1 through the paper's size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    panels = figure.subplots(1, len(SWEEPS), sharey=True)
    for panel, name in zip(panels, SWEEPS, strict=True):
        own = [row for row in rows if row["sweep"] == name]
        x, seconds = [row[name] for row in own], [row["seconds"] for row in own]
        usual = next(row for row in own if row.items() >= PAPER.items())
        line = [usual["seconds"] * value / usual[name] for value in x]
        panel.loglog(x, line, color="0.7", label="proportional")
        panel.loglog(x, seconds, "o-", color="tab:blue", label="measured")
        panel.set_xlabel(name)
        panel.set_xticks(x, [f"{value:,}" for value in x], minor=False, fontsize=8)
        panel.minorticks_off()
    panels[0].set_ylabel("seconds a meta-step")
    panels[0].legend(frameon=False)
    figure.suptitle(f"LSTM on MNIST: {where}", fontsize=10)
    figure.savefig(path, dpi=110)


def main(folder: Path) -> None:
    """Measure, print, write."""
    runtime.keep_freed_memory()
    threads, device = runtime.set_threads(None), runtime.pick_device("auto")
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    where = f"{card}, {threads} threads, PyTorch {torch.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = sweep(device)
    write(folder / "cost.csv", rows)
    draw(rows, where, folder / "cost.png")
    for name in SWEEPS:
        own = [row["ns_a_step"] for row in rows if row["sweep"] == name]
        print(f"{name}: largest over smallest cost of a coordinate-step {max(own) / min(own):.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
