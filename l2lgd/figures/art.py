"""Images of neural art, figure 9 with appendix C, and what figures of single functions share.

They are of the functions that were evaluated, the first test photographs in the order of their
names, at the learning rates that were tuned for them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from l2lgd.config.building import build
from l2lgd.data.photographs import to_bytes
from l2lgd.errors import CheckpointError, ConfigError
from l2lgd.figures import styles
from l2lgd.figures.base import (
    Appearance,
    Content,
    Evaluated,
    Evaluation,
    PaperFigure,
    Request,
    Row,
    Table,
)
from l2lgd.meta.rollout import advance, start
from l2lgd.optimizers.base import Optimizer
from l2lgd.pretrained.weights import find, shipped_path
from l2lgd.results.captions import sentences
from l2lgd.results.plots import LABELS, caption_below
from l2lgd.seeding import generator
from l2lgd.storage import checkpoint
from l2lgd.tasks.base import Task
from l2lgd.tasks.neural_art import NeuralArtTask, Paintings, chunks

CONTENTS = 6  # photographs that are shown
STRIP = (0, 8, 32, 128)  # steps
FOLLOWED = ("lstm", "adam", "sgd")
PAINTERS = ("lstm", "adam")
IMAGE_WIDTH = 1.65  # inches
GAP = 0.03  # between settings, of the width
NOTE_POINTS = 10.0  # of text under images, whose resolution is low
IMAGES_DPI = 76  # at which an image of 128 pixels is about as wide in a figure


class Setting:
    """A task, its evaluation, and optimizers as they were evaluated."""

    def __init__(self, evaluated: Evaluated, overrides: Sequence[str]) -> None:
        from hydra import compose
        from omegaconf import OmegaConf

        self.summary, self.overrides = evaluated.summary, overrides
        name = f"task={self.summary['task']}"
        composed = compose("evaluate", overrides=[name, *overrides])
        self._hand_designed: dict[str, Any] = {
            opt: OmegaConf.to_container(
                compose("evaluate", overrides=[f"opt={opt}"]).opt, resolve=True
            )
            for opt in FOLLOWED[1:]
        }
        config: Any = OmegaConf.to_container(composed, resolve=True)
        task = build(config["task"], "task", (), Task)
        if not isinstance(task, NeuralArtTask):
            raise ConfigError(f"{name} is not one of neural art")
        task.setup(config["data_dir"], torch.device("cpu"))
        self.task = task
        torch.set_num_threads(self.summary["threads"])  # to round as the evaluation did

    @functools.cached_property
    def _evaluated(self) -> Paintings:
        draw = generator(self.summary["seed"], "evaluate", self.summary["split"])
        return self.task.sample(self.summary["split"], self.summary["num_functions"], draw)

    def functions(self, count: int) -> Paintings:
        """The first that were evaluated: as many as go through the network together, or more.

        Rounding depends on that, and where a painting ends depends on rounding.
        """
        stops = [rows.stop for rows in chunks(self._evaluated.photographs)]
        stop = next((stop for stop in stops if stop >= count), stops[-1])
        return self._evaluated.select(slice(0, stop))

    def optimizer(self, name: str) -> Optimizer:
        result = self.summary["results"][name]
        if result["learning_rate"] is None:
            return find(str(shipped_path(result["checkpoint"]))).optimizer()
        node = {**self._hand_designed[name], "learning_rate": result["learning_rate"]}
        return build(node, "opt", (), Optimizer)


def kept(path: Path, about: Any, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What ``make`` returns, from a file where an earlier call has left it.

    The file is in the folder of an evaluation, which goes when the code has changed.
    """
    try:
        tensors, metadata = checkpoint.load(path)
        if metadata.get("about") == about:
            return tensors
    except CheckpointError:
        pass
    found = make()
    checkpoint.save(path, found, {"about": about})
    return found


def painted(evaluated: Evaluated, request: Request, optimizer: str) -> dict[str, Tensor]:
    """Images (C, 3, height, width) after each of the steps of ``STRIP``, and their losses (C,).

    With the photographs ``content`` and the picture ``style``; all but the losses in bytes.
    """

    def make() -> dict[str, Tensor]:
        setting = Setting(evaluated, request.overrides)
        count = min(CONTENTS, evaluated.summary["num_functions"])
        functions = setting.functions(count)
        found = {
            "content": _bytes(functions.photographs[:count]),
            "style": _bytes(setting.task.painting[None]),
        }
        horizon = evaluated.summary["num_steps"]
        at = start(setting.optimizer(optimizer), functions, horizon=horizon)
        for step in STRIP:
            while at.step < min(step, evaluated.summary["num_steps"]):
                at = advance(at)
            found[f"step_{step}"] = _bytes(functions.unpack(at.parameters)["image"][:count])
        return {**found, "losses": at.loss[:count]}

    return kept(evaluated.folder / f"painted-{optimizer}.safetensors", key_of(evaluated), make)


def key_of(evaluated: Evaluated) -> dict[str, Any]:
    about = evaluated.about()
    return {
        "about": about,
        "rates": {n: r["learning_rate"] for n, r in evaluated.summary["results"].items()},
    }


def _bytes(images: Tensor) -> Tensor:
    return torch.stack([to_bytes(image) for image in images])


class ImagesFigure(PaperFigure):
    """Images of several settings."""

    dpi = IMAGES_DPI
    painters: tuple[str, ...] = PAINTERS

    def __init__(
        self, name: str, what: str, settings: Mapping[str, Evaluation], remark: str = ""
    ) -> None:
        super().__init__(name, what, remark)
        self._settings = dict(settings)

    def evaluations(self) -> dict[str, Evaluation]:
        return {name: one.showing(self.painters) for name, one in self._settings.items()}


class PaintingsFigure(ImagesFigure):
    """Content, result and style, in each setting; the table has the losses at the end.

    Args:
        styles: titles of the settings' styles.
    """

    def __init__(
        self,
        name: str,
        what: str,
        settings: Mapping[str, Evaluation],
        remark: str,
        styles: Mapping[str, str],
    ) -> None:
        super().__init__(name, what, settings, remark)
        self._styles = styles

    painters = PAINTERS[:1]

    def collect(self, evaluated: Mapping[str, Evaluated], request: Request) -> Content:
        table = Table()
        images: dict[str, Tensor] = {}
        for name, one in evaluated.items():
            found = painted(one, request, PAINTERS[0])
            images[f"{name} style"] = found["style"][0]
            for k, loss in enumerate(found["losses"].tolist()):
                table.append(Row(name, PAINTERS[0], k + 1, loss, np.nan, np.nan))
                images[f"{name} content {k + 1}"] = found["content"][k]
                images[f"{name} result {k + 1}"] = found[f"step_{STRIP[-1]}"][k]
        return Content(table, images)

    def draw(self, content: Content, appearance: Appearance) -> Any:
        """Each setting has its style on top, and below it a row a photograph."""
        names = content.table.panels()
        count = int(max(row.at for row in content.table))
        figure = styles.blank(IMAGE_WIDTH * 2 * len(names), IMAGE_WIDTH * (count + 1) + 0.5)
        halves = figure.subfigures(1, len(names), wspace=GAP, squeeze=False)[0]
        for half, name in zip(halves, names, strict=True):
            grid = half.add_gridspec(count + 1, 2)
            style = half.add_subplot(grid[0, :])
            _show(style, content.images[f"{name} style"], self._styles[name])
            for row in range(count):
                result = content.images[f"{name} result {row + 1}"]
                size = f"{result.shape[-1]} × {result.shape[-1]}"
                titles = ("content", f"result, {size}") if row == 0 else ("", "")
                images = content.images[f"{name} content {row + 1}"], result
                for column, (image, title) in enumerate(zip(images, titles, strict=True)):
                    _show(half.add_subplot(grid[row + 1, column]), image, title)
        caption_below(figure, sentences(*content.notes), NOTE_POINTS)
        return figure


class StripFigure(ImagesFigure):
    """One photograph on its way, by two optimizers in each setting."""

    def collect(self, evaluated: Mapping[str, Evaluated], request: Request) -> Content:
        table = Table()
        images: dict[str, Tensor] = {}
        for name, one in evaluated.items():
            for painter in self.painters:
                found = painted(one, request, painter)
                table.append(
                    Row(name, painter, STRIP[-1], float(found["losses"][0]), np.nan, np.nan)
                )
                images |= {f"{name} {painter} {s}": found[f"step_{s}"][0] for s in STRIP}
        return Content(table, images)

    def draw(self, content: Content, appearance: Appearance) -> Any:
        lines = [(row.panel, row.optimizer) for row in content.table]
        figure, grid = styles.new(1.9 * len(STRIP), 2.0 * len(lines) + 0.3, len(lines), len(STRIP))
        for axes, (name, painter) in zip(grid, lines, strict=True):
            for place, step in zip(axes, STRIP, strict=True):
                image = content.images[f"{name} {painter} {step}"]
                title = f"{LABELS[painter]}, {image.shape[-1]} × {image.shape[-1]}, step {step}"
                _show(place, image, title)
        caption_below(figure, sentences(*content.notes), NOTE_POINTS)
        return figure


def _show(axes: Any, image: Tensor, title: str) -> None:
    axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="bicubic")
    axes.set_title(title, fontsize=9)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
