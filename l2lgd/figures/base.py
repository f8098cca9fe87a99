"""What all figures share: their evaluations, the numbers they show, and where these come from.

A figure is made in two steps. ``collect`` turns evaluations into a table of numbers, which is kept
as CSV, and ``draw`` turns such a table into a picture, knowing nothing else.
"""

import csv
import dataclasses
import functools
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from l2lgd.errors import UserError
from l2lgd.results import losses
from l2lgd.results.curves import Band, Curves

# options that change nothing in a figure
NOT_OF_NUMBERS = ("reuse=", "hydra.", "logger=", "workers=")


@dataclass(frozen=True)
class Evaluation:
    """One ``l2lgd evaluate``.

    Args:
        name: of its folder.
        options: besides those that every evaluation of the figures has.
        size: which of the scale's numbers of functions.
        baselines: optimizers beside the first, in their order.
        needed: those of them that a figure shows; None for all.
    """

    name: str
    options: tuple[str, ...]
    size: str
    baselines: tuple[str, ...] = ()
    needed: frozenset[str] | None = None

    def showing(self, optimizers: Collection[str]) -> "Evaluation":
        """Where a figure shows no others."""
        return dataclasses.replace(self, needed=frozenset(optimizers))

    def shown(self) -> tuple[str, ...]:
        """The baselines that are needed."""
        needed = self.needed
        return tuple(b for b in self.baselines if needed is None or b in needed)


class Row(NamedTuple):
    """A number in a figure, and its 95 % interval where it has one."""

    panel: str
    optimizer: str
    at: float  # on the horizontal axis
    value: float
    low: float
    high: float


class Table(list[Row]):
    """The numbers of a figure."""

    def csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows([*row[:2], *(f"{value:.6g}" for value in row[2:])] for row in self)
        return text.getvalue()

    @classmethod
    def parse(cls, text: str) -> "Table":
        """What :meth:`csv` has written; further columns are left out, lines with # too.

        Raises:
            UserError: a column is missing, or a number is none.
        """
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        try:
            return cls(
                Row(r["panel"], r["optimizer"], *(float(r[name]) for name in Row._fields[2:]))
                for r in csv.DictReader(lines)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"not the table of a figure: {error!r}") from error

    def panels(self) -> list[str]:
        return list(dict.fromkeys(row.panel for row in self))

    def lines(self, panel: str) -> dict[str, np.ndarray]:
        """By optimizer, the columns at, value, low and high (4, K) of a panel."""
        names = dict.fromkeys(row.optimizer for row in self if row.panel == panel)
        return {
            name: np.array([row[2:] for row in self if row[:2] == (panel, name)]).T
            for name in names
        }

    def at(self, panel: str, optimizer: str, at: float) -> float | None:
        """A value, None where there is none."""
        found = (row.value for row in self if row[:3] == (panel, optimizer, at))
        return next(found, None)


@dataclass(frozen=True)
class Content:
    """What a figure shows: numbers, and images where it has some."""

    table: Table
    images: Mapping[str, Tensor] = field(default_factory=dict)  # each (3, height, width), bytes
    notes: Sequence[str] = ()  # on the data, such as that features are those of a stand-in


@dataclass(frozen=True)
class Evaluated:
    """An evaluation that has been made."""

    folder: Path

    @functools.cached_property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text("utf-8"))
        return found

    @functools.cached_property
    def _losses(self) -> tuple[dict[str, Curves], dict[str, dict[str, Any]]]:
        return losses.read(self.folder)

    @property
    def curves(self) -> dict[str, Curves]:
        return self._losses[0]

    def _reused(self) -> list[str]:
        """Folders of other evaluations that losses were taken from."""
        found = {r["losses_from"] for r in self.summary["results"].values() if "losses_from" in r}
        return sorted(folder for folder in found if Path(folder) != self.folder)

    def about(self) -> dict[str, Any]:
        """What a figure says about the evaluation."""
        summary, keys = self.summary, {n: a["key"] for n, a in self._losses[1].items()}
        kept = ("split", "num_functions", "num_steps", "seed", "data", "device", "threads")
        return {
            **{name: summary[name] for name in (*kept, "versions")},
            "command": " ".join(
                word
                for word in summary["command"].split()
                if not word.strip("'").startswith(NOT_OF_NUMBERS)
            ),
            "reused": self._reused(),
            "weights": {n: key["weights"] for n, key in keys.items() if "weights" in key},
            "checkpoints": {
                n: r["checkpoint"] for n, r in summary["results"].items() if r.get("checkpoint")
            },
            "diverged": {n: r["diverged"] for n, r in summary["results"].items() if r["diverged"]},
        }


@dataclass(frozen=True)
class Appearance:
    """How figures are drawn.

    Args:
        style: key of ``styles.STYLES``.
        published: the paper's curves, by figure, where they are drawn too.
    """

    style: str = "paper"
    published: Mapping[str, Table] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What figures that do more than evaluate need to know.

    Args:
        overrides: of the config of an evaluation, such as where data are.
    """

    overrides: Sequence[str]


class PaperFigure(ABC):
    """One figure.

    Args:
        name: as in ``figure=4`` and ``figure_4.png``.
        what: first sentence of its caption.
        remark: for the second, which says how to read it.
    """

    dpi = 150  # of its PNG
    intervals = ""  # how they are drawn: bands or bars, where there are any

    def __init__(self, name: str, what: str, remark: str = "") -> None:
        self.name, self.what, self.remark = name, what, remark

    def titles(self) -> dict[str, str]:
        """Of its panels, where they have some."""
        return {}

    @abstractmethod
    def evaluations(self) -> dict[str, Evaluation]:
        """By panel, those that it shows."""

    @abstractmethod
    def collect(self, evaluated: Mapping[str, Evaluated], request: Request) -> Content:
        """What it shows."""

    @abstractmethod
    def draw(self, content: Content, appearance: Appearance) -> Any:
        """The picture of that, a matplotlib figure."""


def rows_of(panel: str, optimizer: str, band: Band, first: int = 0) -> list[Row]:
    """A curve as rows, those from step ``first`` on."""
    columns = zip(band.mean, band.low, band.high, strict=True)
    return [
        Row(panel, optimizer, k * band.window, *map(float, values))
        for k, values in enumerate(columns)
        if k * band.window >= first
    ]
