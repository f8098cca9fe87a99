"""Pictures of neural art: figures 8 to 13 and appendix C of the paper, from trained weights.

Works on the evaluations of neural_art and neural_art_large in --results, whose functions, seeds and
tuned learning rates it takes, so that the pictures are of the functions that were evaluated: the
first test photographs, in the order of their names. Overrides are those of l2lgd evaluate, such as
task.vgg.weights=FILE.

python scripts/neural_art_pictures.py
"""

import argparse
import functools
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from torch import Tensor

from l2lgd import checkpoint, kept_losses
from l2lgd.checkpoint import write_atomically
from l2lgd.config import build
from l2lgd.contestants import SHIPPED
from l2lgd.errors import UserError
from l2lgd.optimizers.base import Optimizer
from l2lgd.photographs import to_bytes, write_picture
from l2lgd.plotting import COLORS, LABELS, draw_bands
from l2lgd.proposals import proposals
from l2lgd.results import band
from l2lgd.seeding import generator
from l2lgd.tasks.neural_art import NeuralArtTask, Paintings, chunks
from l2lgd.trainer import load_weights
from l2lgd.unroll import advance, start

TITLES = {
    "neural_art": "training style and resolution, 64 × 64",
    "neural_art_large": "new style, 128 × 128",
}
STRIP = (0, 8, 32, 128)  # steps
ZOOM = 2.5  # of loss axes: from the lowest loss to so many times that
PLACES = ((0.25, 0.25), (0.5, 0.5), (0.75, 0.75))  # of the coordinates followed: down, across
CHANNELS = ("red", "green", "blue")
FOLLOWED = ("lstm", "adam", "sgd")
ASKED = 32  # steps with a panel each, as in figures 11 to 13
LARGEST_GRADIENT = 100.0  # hypothetical ones; true ones are mostly smaller, those there larger
ACROSS = 4  # panels
FOOTER = 0.03  # of a figure's height
IMAGES_DPI = 80  # of figures full of images, whose 128 pixels then are about as many
COMMAND = "python scripts/neural_art_pictures.py"  # for captions


class Setting:
    """A task, its evaluation, and optimizers as they were evaluated.

    Args:
        overrides: of the evaluation's config.
        weights: of the LSTM; None for those that ship.
    """

    def __init__(self, name: str, folder: Path, overrides: list[str], weights: Path | None) -> None:
        self.name, self.title, self.folder = name, TITLES[name], folder
        self.summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        with initialize_config_module("l2lgd.conf", version_base="1.3"):
            composed = compose("evaluate", overrides=[f"task={name}", *overrides])
            self._hand_designed: dict[str, Any] = {
                opt: OmegaConf.to_container(
                    compose("evaluate", overrides=[f"opt={opt}"]).opt, resolve=True
                )
                for opt in FOLLOWED[1:]
            }
        config: Any = OmegaConf.to_container(composed, resolve=True)
        task = build(config["task"], "task")
        if not isinstance(task, NeuralArtTask):
            raise UserError(f"task={name} is not one of neural art")
        task.setup(config["data_dir"], torch.device("cpu"))
        self.task = task
        self.weights = weights or SHIPPED / "neural_art-lstm.safetensors"

    @functools.cached_property
    def _evaluated(self) -> Paintings:
        draw = generator(self.summary["seed"], "evaluate", "test")
        return self.task.sample("test", self.summary["num_functions"], draw)

    def functions(self, count: int) -> Paintings:
        """The first that were evaluated: as many as go through the network together, or more.

        Rounding depends on that, and where a painting ends depends on rounding.
        """
        stops = (rows.stop for rows in chunks(self._evaluated.photographs))
        return self._evaluated.select(slice(0, next(stop for stop in stops if stop >= count)))

    def optimizer(self, name: str) -> Optimizer:
        if name == "lstm":
            _, metadata = checkpoint.load(self.weights)
            learned: Any = build(metadata["opt"], "opt")
            load_weights(self.weights, learned)
            return learned  # type: ignore[no-any-return]
        rate = self.summary["results"][name]["learning_rate"]
        found: Optimizer = build({**self._hand_designed[name], "learning_rate": rate}, "opt")
        return found

    @property
    def features(self) -> str:
        """Of which network, for captions."""
        data = self.task.data_description()
        return str(data.get("note", f"features: {data['network']}"))

    @property
    def source(self) -> str:
        """For captions."""
        return f"{self.task.data_description()['name']}; {self.features}"

    @property
    def size(self) -> str:
        return f"{self.task.size} × {self.task.size}"


def images_at(optimizer: Optimizer, setting: Setting, count: int) -> list[Tensor]:
    """The first so many images (count, 3, height, width) after each of the steps of ``STRIP``."""
    functions = setting.functions(count)
    at, found = start(optimizer, functions), []
    for step in STRIP:
        while at.step < step:
            at = advance(at)
        found.append(functions.unpack(at.parameters)["image"][:count])
    return found


def show(axes: Any, image: Tensor, title: str = "") -> None:
    axes.imshow(to_bytes(image).permute(1, 2, 0).numpy(), interpolation="bicubic")
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def save(figure: Figure, path: Path, what: str, settings: list[Setting], dpi: int = 110) -> None:
    """With its caption beside it, and the source of its features below it."""
    caption = _caption(what, settings)
    sources = {setting.features: None for setting in settings}  # in order, each once
    figure.get_layout_engine().set(rect=(0, FOOTER, 1, 1 - FOOTER))  # type: ignore[union-attr]
    figure.text(0.995, 0.002, "; ".join(sources), ha="right", va="bottom", fontsize=7, color="0.4")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    write_atomically(path, buffer.getvalue())
    write_atomically(path.with_suffix(".txt"), (caption + "\n").encode())
    print(path)


def draw_curves(settings: list[Setting], path: Path) -> None:
    """Figure 8."""
    figure = Figure(figsize=(5 * len(settings), 4), layout="constrained")
    panels = figure.subplots(1, len(settings), squeeze=False)[0]
    diverged: list[str] = []
    for axes, setting in zip(panels, settings, strict=True):
        curves, about = kept_losses.read(setting.folder)
        bands = {name: band(one) for name, one in curves.items()}
        draw_bands(axes, bands, [name for name, one in about.items() if "weights" in one["key"]])
        diverged += [
            f"{LABELS[name]}'s leaves out {one['diverged']} that diverged ({setting.title})."
            for name, one in setting.summary["results"].items()
            if one["diverged"]
        ]
        lowest = min(one.mean.min() for one in bands.values())
        axes.set(yscale="log", xlim=(0, len(bands["lstm"].mean) - 1), xlabel="step")
        axes.set_ylim(0.95 * lowest, ZOOM * lowest)
        axes.set_title(setting.title, fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("loss")
    figure.axes[-1].legend(frameon=False)
    counts = " and ".join(str(setting.summary["num_functions"]) for setting in settings)
    what = f"Mean loss and its 95 % interval, {counts} test photographs, zoomed as figure 8 is."
    save(figure, path, " ".join([what, *diverged]), settings)


def draw_triples(settings: list[Setting], painted: dict[str, list[Tensor]], path: Path) -> None:
    """Figure 9 and appendix C: content, result, style."""
    count = len(next(iter(painted.values()))[-1])
    figure = Figure(figsize=(3.3 * len(settings) * 1.5, 1.65 * count + 0.3), layout="constrained")
    grid = figure.subplots(count, 3 * len(settings), squeeze=False)
    for column, setting in enumerate(settings):
        photographs = setting.functions(count).photographs
        for row in range(count):
            own = grid[row, 3 * column : 3 * column + 3]
            titles = ("content", f"result, {setting.size}", "style") if row == 0 else ("", "", "")
            shown = (photographs[row], painted[setting.name][-1][row], setting.task.painting)
            for axes, image, title in zip(own, shown, titles, strict=True):
                show(axes, image, title)
    what = f"The first {count} test photographs and what the LSTM makes of noise in 128 steps."
    save(figure, path, what, settings, IMAGES_DPI)


def draw_strip(
    settings: list[Setting], painted: dict[str, dict[str, list[Tensor]]], path: Path
) -> None:
    """The first test photograph, as two optimizers paint it."""
    names = list(painted)
    rows = [(setting, name) for setting in settings for name in names]
    figure = Figure(figsize=(1.9 * len(STRIP), 2.0 * len(rows) + 0.3), layout="constrained")
    grid = figure.subplots(len(rows), len(STRIP), squeeze=False)
    for line, (setting, name) in zip(grid, rows, strict=True):
        for axes, step, images in zip(line, STRIP, painted[name][setting.name], strict=True):
            show(axes, images[0], f"{LABELS[name]}, {setting.size}, step {step}")
    what = "The first test photograph, painted by the LSTM and by tuned Adam from the same noise."
    save(figure, path, what, settings, IMAGES_DPI)


def draw_updates(setting: Setting, folder: Path) -> None:
    """Figures 10 to 13."""
    function, size = setting.functions(1).select(slice(0, 1)), setting.task.size
    optimizers = {name: setting.optimizer(name) for name in FOLLOWED}
    coordinates, names = [], []
    for channel, (down, across) in enumerate(PLACES):
        row, column = int(down * size), int(across * size)
        coordinates.append((channel * size + row) * size + column)
        names.append(f"{CHANNELS[channel]} of pixel ({row}, {column})")
    instead = torch.linspace(-LARGEST_GRADIENT, LARGEST_GRADIENT, 51)
    steps = setting.summary["num_steps"]
    found = proposals(optimizers, function, steps, coordinates, instead, ASKED)
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for k, axes in enumerate(figure.subplots(1, len(names))):
        for name in FOLLOWED:
            axes.plot(found.updates[name][:, k], color=COLORS[name], label=LABELS[name])
        axes.set(title=names[k], xlabel="step", xlim=(0, steps - 1))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("update")
    figure.axes[-1].legend(frameon=False)
    what = (
        "Updates of three coordinates of the first test photograph along the LSTM's path; tuned "
        "Adam and SGD see the same gradients but never move the image (figure 10)."
    )
    save(figure, folder / "updates.png", what, [setting])
    # SGD's answers grow without limit; the other two are what is to be seen.
    limit = max(float(found.responses[name].abs().max()) for name in FOLLOWED[:2])
    for k, name in enumerate(names):
        figure = Figure(figsize=(9, 13), layout="constrained")
        grid = figure.subplots(ASKED // ACROSS, ACROSS, sharex=True, sharey=True)
        for step, axes in enumerate(grid.flat):
            for opt in FOLLOWED:
                axes.plot(instead, found.responses[opt][step, k], color=COLORS[opt])
            axes.axvline(float(found.gradients[step, k]), color="0.8", linewidth=1, zorder=0)
            axes.set_title(f"Step {step + 1}", fontsize=8)
            axes.set_ylim(-1.05 * limit, 1.05 * limit)
            axes.spines[["top", "right"]].set_visible(False)
        figure.supxlabel("gradient")
        figure.supylabel("proposed update")
        figure.legend([LABELS[opt] for opt in FOLLOWED], loc="outside upper right", ncols=3)
        what = (
            f"What is proposed for the {name}, first test photograph, were its gradient another "
            f"one; the grey line is the true one (figure {11 + k})."
        )
        save(figure, folder / f"proposals_{k + 1}.png", what, [setting])


def _caption(what: str, settings: list[Setting]) -> str:
    sources = "; ".join(f"{setting.title}: {setting.source}" for setting in settings)
    return f"{what} {sources}. Made by `{COMMAND}`."


def picture_files(painted: dict[str, list[Tensor]], folder: Path) -> Iterator[Path]:
    """Every result as a file of its own."""
    for name, images in painted.items():
        for row, image in enumerate(images[-1]):
            path = folder / f"{name}_{row + 1}.png"
            write_picture(path, image)
            yield path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("overrides", nargs="*", help="of l2lgd evaluate, as task.vgg.weights=FILE")
    parser.add_argument("--results", type=Path, default=Path("outputs/results"))
    parser.add_argument("--pictures", type=Path, default=Path("outputs/results/neural_art"))
    parser.add_argument("--checkpoint", type=Path, help="of the LSTM, instead of the shipped one")
    parser.add_argument("--tasks", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--contents", type=int, default=6, help="photographs")
    given = parser.parse_args()
    settings = [
        Setting(name, given.results / name, given.overrides, given.checkpoint)
        for name in given.tasks
    ]
    torch.set_num_threads(settings[0].summary["threads"])  # to round as the evaluation did
    draw_curves(settings, given.pictures / "figure_8.png")
    draw_updates(settings[0], given.pictures)
    painted = {
        name: {
            setting.name: images_at(
                setting.optimizer(name), setting, given.contents if name == "lstm" else 1
            )
            for setting in settings
        }
        for name in ("lstm", "adam")
    }
    draw_strip(settings, painted, given.pictures / "strip.png")
    draw_triples(settings, painted["lstm"], given.pictures / "triples.png")
    for path in picture_files(painted["lstm"], given.pictures / "painted"):
        print(path)


if __name__ == "__main__":
    try:
        main()
    except (UserError, FileNotFoundError) as problem:
        print(f"neural_art_pictures.py: {problem}", file=sys.stderr)
        sys.exit(2)
