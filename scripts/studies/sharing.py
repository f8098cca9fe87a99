"""What sharing information between coordinates is worth: the study of docs/results/sharing.md.

The paper describes averaging cells and NTM-BFGS and publishes no result, so none of this is a
reproduction. Run as

    python scripts/studies/sharing.py                 # evaluates the shipped weights
    python scripts/studies/sharing.py --meta-train    # makes them first, and those of more seeds
    python scripts/studies/sharing.py --redraw        # only the picture, from the tables

Working files go to ``outputs/sharing``; meta-trainings and tuned rates that are there already are
kept, evaluations are done anew. Table, curves and figure go to ``outputs/results/sharing``. Needs
MNIST in the data folder.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from l2lgd.figures import styles
from l2lgd.pretrained.weights import SHIPPED
from l2lgd.results.axes import log_axis, loss_range
from l2lgd.results.curves import Band, read_curves
from l2lgd.results.plots import (
    COLORS,
    HAND_DESIGNED,
    LABELS,
    LEARNED,
    caption_below,
    draw_bands,
)
from l2lgd.storage.files import write_atomically

QUADRATICS = ("quadratic", "quadratic_gaussian", "quadratic_rotated", "quadratic_scaled")
LEARNED_ON = {
    **dict.fromkeys(QUADRATICS, ("lstm", "lstm_gac", "ntm_bfgs", "ntm_lbfgs")),
    "mnist": ("lstm", "lstm_gac", "ntm_lbfgs"),  # too many coordinates for a dense memory
}
TUNED_ON = {
    **dict.fromkeys(QUADRATICS, ("sgd", "rmsprop", "adam", "nag", "bfgs")),
    "mnist": ("sgd", "rmsprop", "adam", "nag"),
}
DIMENSIONS = (5, 10, 20, 50)
META_TRAINED_AT = 10
TITLES = {
    "quadratic": "uniform",
    "quadratic_gaussian": "Gaussian",
    "quadratic_rotated": "rotated, condition number 100",
    "quadratic_scaled": "the same, curvature differs",
    "mnist": "MNIST",
}
SEEDS = {"quadratic_scaled": 3, "quadratic_rotated": 2}  # how many; elsewhere one
TEST_SEED = 1
OFF_AXIS = "bfgs"  # solves quadratics exactly, far below what the figure is about
BELOW, ABOVE = 4.0, 8.0  # room around the losses that an axis is made for
CAPTION = (
    "Mean loss on 100 test functions of optimizers whose coordinates share information, each "
    "meta-trained at n = 10 for 1,500 meta-steps on quadratics or 300 on MNIST (an extension of "
    "the paper). Bands and bars are 95 % bootstrap intervals; triangles at an edge are losses "
    "beyond it, most of them those of BFGS."
)
TUNE_FUNCTIONS = 100  # BFGS is slow at n = 50


class Run(NamedTuple):
    """One meta-training."""

    task: str
    opt: str
    seed: int

    def command(self) -> list[str]:
        experiment = "mnist_quick" if self.task == "mnist" else "sharing"
        options = ["opt.multiply_update=true"] if self.opt.startswith("ntm") else []
        return [
            "meta-train",
            f"experiment={experiment}",
            f"task={self.task}",
            f"opt={self.opt}",
            *options,
            f"seed={self.seed}",
            "threads=1",
            "logger=none",
        ]

    def folder(self, work: Path) -> Path:
        return work / "meta-train" / f"{self.task}-{self.opt}-{self.seed}"

    def best(self, work: Path) -> Path:
        return self.folder(work) / "checkpoints" / "best.safetensors"


def meta_trainings() -> list[Run]:
    return [
        Run(task, opt, seed)
        for task, opts in LEARNED_ON.items()
        for seed in range(SEEDS.get(task, 1))
        for opt in opts
    ]


def l2lgd(folder: Path, *command: str) -> dict[str, Any]:
    """Run the program in a folder; returns its ``summary.json``."""
    print("l2lgd", *command, flush=True)
    words = [*command, f"hydra.run.dir={folder}"]
    done = subprocess.run([sys.executable, "-m", "l2lgd", *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)  # the program has said why
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


def evaluated(folder: Path, *options: str) -> dict[str, Any]:
    """An evaluation on the test functions of all, in place of an earlier one."""
    shutil.rmtree(folder, ignore_errors=True)
    return l2lgd(folder, "evaluate", *options, f"seed={TEST_SEED}", "logger=none")


def meta_train(work: Path) -> None:
    """What is missing or was interrupted of all meta-trainings; those of seed 0 are shipped."""
    for run in meta_trainings():
        folder = run.folder(work)
        if (folder / "checkpoints" / "last.safetensors").is_file():
            if not (folder / "summary.json").is_file():
                l2lgd(folder, "meta-train", f"resume={folder}")
        else:
            l2lgd(folder, *run.command())
        if run.seed == 0:
            target = SHIPPED / "sharing" / f"{run.task}-{run.opt}.safetensors"
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(run.best(work), target)


def comparisons() -> Iterator[tuple[str, int | None]]:
    """Tasks with the number of coordinates, where there is a choice."""
    for task in QUADRATICS:
        for dimension in DIMENSIONS:
            yield task, dimension
    yield "mnist", None


def compare(work: Path, task: str, dimension: int | None) -> tuple[Path, dict[str, Any]]:
    """Seed 0 of every learned optimizer and the tuned ones on the same 100 test functions."""
    first, *others = LEARNED_ON[task]
    size = [] if dimension is None else [f"task.dimension={dimension}"]
    if dimension not in (META_TRAINED_AT, None):  # whose rates are not shipped
        size.append(f"tune_functions={TUNE_FUNCTIONS}")
    folder = work / "evaluate" / (task if dimension is None else f"{task}-{dimension}")
    return folder, evaluated(
        folder,
        f"task={task}",
        *size,
        f"task.weights_of=[sharing/{task}]",
        f"opt={first}",
        f"baselines=[{','.join([*others, *TUNED_ON[task]])}]",
        f"tuned_dir={work / 'tuned'}",
    )


def other_seeds(work: Path) -> list[dict[str, Any]]:
    """How much the seed of the meta-training matters; needs the runs of ``--meta-train``."""
    rows = []
    for run in meta_trainings():
        if run.seed == 0 or not run.best(work).is_file():
            continue
        summary = evaluated(
            work / "evaluate" / f"{run.task}-{run.opt}-seed-{run.seed}",
            f"task={run.task}",
            f"opt={run.opt}",
            f"checkpoint={run.best(work)}",
            "baselines=[]",
        )
        rows.append(row_of(run.task, META_TRAINED_AT, run.opt, run.seed, summary))
    return rows


def row_of(
    task: str, dimension: int | None, name: str, seed: int | None, summary: dict[str, Any]
) -> dict[str, Any]:
    """A line of ``table.csv`` or ``seeds.csv``."""
    result = summary["results"][name]
    loss = result["final_loss"]
    low, high = loss["ci95"] or (None, None)
    return {
        "task": task,
        "dimension": dimension,
        "optimizer": name,
        "meta_training_seed": seed,
        "final_loss": loss["mean"],
        "low": low,
        "high": high,
        "median": loss["median"],
        "diverged": result["diverged"],
        "learning_rate": result["learning_rate"],
        "command": summary["command"],
    }


def cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["final_loss"] is None:
        return "diverged"
    low, high = row["low"], row["high"]
    some = f", {row['diverged']} diverged" if row["diverged"] else ""
    interval = "–" if low is None else f"{low:.2g} … {high:.2g}"
    return f"{row['final_loss']:.2g} ({interval}){some}"


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Means with intervals, a line a problem."""
    names = [*LEARNED_ON["quadratic"], *TUNED_ON["quadratic"]]
    lines = [
        "Final loss on 100 test functions, mean and its 95 % bootstrap interval. Learned ones are",
        f"of seed 0 and meta-trained at n = {META_TRAINED_AT}, the others are tuned at each n.",
        "An extension of the paper, made by `python scripts/studies/sharing.py`.",
        "",
        "| problem | n | " + " | ".join(LABELS[name] for name in names) + " |",
        "|---" * (len(names) + 2) + "|",
    ]
    for task, dimension in comparisons():
        here = {
            row["optimizer"]: row
            for row in rows
            if (row["task"], row["dimension"]) == (task, dimension)
        }
        cells = [cell(here.get(name)) for name in names]
        lines.append(f"| {TITLES[task]} | {dimension or '15,910'} | " + " | ".join(cells) + " |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_curves(path: Path, folders: dict[str, Path]) -> None:
    """Means and intervals at every step, of the problems that were meta-trained on."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", "step", "optimizer", "mean", "low", "high"])
        for task, folder in folders.items():
            for name, band in read_curves(folder / "curves.csv").items():
                for step, values in enumerate(zip(band.mean, band.low, band.high, strict=True)):
                    writer.writerow([task, step, name, *(f"{value:.6g}" for value in values)])


def curves_in(path: Path) -> dict[str, dict[str, Band]]:
    """By problem and optimizer, what :func:`write_curves` has written."""
    found: dict[str, dict[str, list[list[float]]]] = {}
    for row in rows_in(path):
        values = [float(row[key]) for key in ("mean", "low", "high")]
        found.setdefault(row["task"], {}).setdefault(row["optimizer"], []).append(values)
    return {
        task: {name: Band(*np.array(values).T) for name, values in curves.items()}
        for task, curves in found.items()
    }


def rows_in(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def draw(results: Path) -> None:
    """From the tables of a folder: a row a problem, curves beside final losses against n."""
    curves, rows = curves_in(results / "curves.csv"), rows_in(results / "table.csv")
    figure, grid = styles.new(8.4, 2.8 * len(curves), len(curves), 2)
    for (left, right), (task, bands) in zip(grid, curves.items(), strict=True):
        served = [band for name, band in bands.items() if name != OFF_AXIS]
        shown = loss_range((b.mean for b in served), (b.low for b in served))
        assert shown
        draw_bands(left, bands, LEARNED_ON[task])
        log_axis(left, "y", *shown)
        left.set(title=TITLES[task], xlabel="step", xlim=(0, len(served[0].mean) - 1))
        left.set_ylabel("cross-entropy (nats)" if task == "mnist" else "loss")
        if task == "mnist":  # of one size only
            right.set_axis_off()
            right.legend(*grid[0, 0].get_legend_handles_labels(), loc="center", frameon=False)
        else:
            _draw_sizes(right, task, [row for row in rows if row["task"] == task])
    caption_below(figure, CAPTION, 9)
    write_atomically(results / "curves.png", styles.encoded(figure, "png", 110))


def _draw_sizes(axes: Any, task: str, rows: list[dict[str, str]]) -> None:
    """Final losses against n; what is beyond the axis has a triangle at its edge."""
    names = [*LEARNED_ON[task], *TUNED_ON[task]]
    losses = {(r["optimizer"], int(r["dimension"])): r for r in rows if r["final_loss"]}
    at_home = [
        float(row["final_loss"])
        for (name, n), row in losses.items()
        if name != OFF_AXIS and (n == META_TRAINED_AT or name not in LEARNED_ON[task])
    ]
    log_axis(axes, "y", min(at_home) / BELOW, max(at_home) * ABOVE)
    low, high = axes.get_ylim()
    for name in names:
        mine = [(n, row) for (one, n), row in losses.items() if one == name]
        values = np.array(
            [[float(r[key] or "nan") for key in ("final_loss", "low", "high")] for _, r in mine]
        ).T
        shift = 1.015 ** (names.index(name) - len(names) / 2)  # so that bars stand side by side
        at = np.array([n * shift for n, _ in mine])
        style = LEARNED if name in LEARNED_ON[task] else HAND_DESIGNED
        bars = np.maximum([values[0] - values[1], values[2] - values[0]], 0)
        axes.errorbar(at, values[0], bars, color=COLORS[name], capsize=2, **style)
        for beyond, edge, marker in (
            (values[0] > high, 0.97, "^"),
            (values[0] < low, 0.03, "v"),
        ):
            places = at[beyond]
            across = axes.get_xaxis_transform()
            heights = np.full(len(places), edge)
            axes.plot(places, heights, marker, color=COLORS[name], transform=across)
    axes.axvline(META_TRAINED_AT, color="0.85", linewidth=6, zorder=0)
    axes.set(title="the same weights at other n", xlabel="n, coordinates", xscale="log")
    axes.set(ylabel="final loss", xlim=(DIMENSIONS[0] / 1.3, DIMENSIONS[-1] * 1.3))
    axes.set_xticks(DIMENSIONS, [str(n) for n in DIMENSIONS])
    axes.set_xticks([], minor=True)


def main() -> None:
    """Meta-train where that is wanted, evaluate, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--meta-train", action="store_true", help="three hours on one core")
    parser.add_argument("--work", type=Path, default=Path("outputs/sharing"), help="working files")
    parser.add_argument("--results", type=Path, default=Path("outputs/results/sharing"))
    parser.add_argument("--redraw", action="store_true", help="only the picture, from the tables")
    given = parser.parse_args()
    if given.redraw:
        draw(given.results)
        return
    given.results.mkdir(parents=True, exist_ok=True)
    if given.meta_train:
        meta_train(given.work)
    rows: list[dict[str, Any]] = []
    folders = {}
    for task, dimension in comparisons():
        folder, summary = compare(given.work, task, dimension)
        if dimension in (META_TRAINED_AT, None):
            folders[task] = folder
        for name in summary["results"]:
            seed = 0 if name in LEARNED_ON[task] else None
            rows.append(row_of(task, dimension, name, seed, summary))
    write_rows(given.results / "table.csv", rows)
    write_table(given.results / "table.md", rows)
    if seeds := other_seeds(given.work):
        write_rows(given.results / "seeds.csv", seeds)
    write_curves(given.results / "curves.csv", folders)
    draw(given.results)


if __name__ == "__main__":
    main()
