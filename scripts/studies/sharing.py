"""What sharing information between coordinates is worth: the study of docs/results/sharing.md.

The paper describes averaging cells and NTM-BFGS and publishes no result, so none of this is a
reproduction. Run as

    python scripts/studies/sharing.py                 # evaluates the shipped weights
    python scripts/studies/sharing.py --meta-train    # makes them first, and those of more seeds

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

from l2lgd.pretrained.weights import SHIPPED
from l2lgd.results.curves import Band
from l2lgd.results.plots import COLORS, HAND_DESIGNED, LABELS, LEARNED, draw_bands

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
LOSSES_ON_MNIST = (0.2, 0.3, 0.5, 1, 2, 3)  # ticks
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
    return f"{row['final_loss']:.2g} ({low:.2g} … {high:.2g}){some}"


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
            for name, band in curves_of(folder).items():
                for step, values in enumerate(zip(band.mean, band.low, band.high, strict=True)):
                    writer.writerow([task, step, name, *(f"{value:.6g}" for value in values)])


def curves_of(folder: Path) -> dict[str, Band]:
    """What ``curves.csv`` of an evaluation holds of each optimizer."""
    with (folder / "curves.csv").open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    values = np.array(lines, dtype=float).T
    return {header[i]: Band(*values[i : i + 3]) for i in range(1, len(header), 3)}


def draw(path: Path, folders: dict[str, Path], rows: list[dict[str, Any]]) -> None:
    """Above curves, below final losses against n."""
    from matplotlib.figure import Figure

    names = [*LEARNED_ON["quadratic"], *TUNED_ON["quadratic"]]
    figure = Figure(figsize=(17, 7.2), layout="constrained")
    axes = figure.subplots(2, len(folders))
    for panel, (task, folder) in zip(axes[0], folders.items(), strict=True):
        bands = curves_of(folder)
        draw_bands(panel, bands, LEARNED_ON[task])
        means = bands[LEARNED_ON[task][0]].mean
        panel.set(title=TITLES[task], xlabel="step", yscale="log", xlim=(0, len(means) - 1))
        top = 3 * means[0]
        panel.set_ylim(max(panel.get_ylim()[0], 1e-9 * top), top)
        if task == "mnist":  # too few decades for ticks at powers of ten alone
            panel.set_yticks(LOSSES_ON_MNIST, [str(loss) for loss in LOSSES_ON_MNIST])
            panel.minorticks_off()
            panel.set_ylim(0.9 * LOSSES_ON_MNIST[0], LOSSES_ON_MNIST[-1])
    for panel, task in zip(axes[1], QUADRATICS, strict=False):
        for name in names:
            mine = [
                row
                for row in rows
                if row["task"] == task
                and row["optimizer"] == name
                and row["final_loss"] is not None
            ]
            mean, low, high = (
                np.array([row[key] for row in mine]) for key in ("final_loss", "low", "high")
            )
            style = LEARNED if name in LEARNED_ON[task] else HAND_DESIGNED
            shift = 1.015 ** (names.index(name) - len(names) / 2)  # so that bars stand side by side
            panel.errorbar(
                [row["dimension"] * shift for row in mine],
                mean,
                np.maximum([mean - low, high - mean], 0),
                color=COLORS[name],
                capsize=2,
                **style,
            )
        panel.axvline(META_TRAINED_AT, color="0.8", linewidth=6, zorder=0)
        panel.set(xlabel="n, coordinates", xscale="log", yscale="log")
        panel.set_xticks(DIMENSIONS, [str(n) for n in DIMENSIONS])
        panel.minorticks_off()
    for row, label in zip(axes, ("loss", "final loss"), strict=True):
        row[0].set_ylabel(label)
    axes[0, -1].set_ylabel("cross-entropy (nats)")
    axes[1, -1].set_axis_off()
    axes[1, -1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center", frameon=False)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        "Optimizers whose coordinates share information (an extension of the paper): 100 test "
        "functions, mean and 95 % interval; below, the same weights at other n",
        fontsize=12,
    )
    figure.savefig(path, dpi=110)


def main() -> None:
    """Meta-train where that is wanted, evaluate, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--meta-train", action="store_true", help="three hours on one core")
    parser.add_argument("--work", type=Path, default=Path("outputs/sharing"), help="working files")
    parser.add_argument("--results", type=Path, default=Path("outputs/results/sharing"))
    given = parser.parse_args()
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
    draw(given.results / "curves.png", folders, rows)


if __name__ == "__main__":
    main()
