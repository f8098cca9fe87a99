"""A figure in its folder: what it shows, where that is from, its caption and its picture."""

import json
import logging
import shlex
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from l2lgd.errors import UserError, one_line
from l2lgd.figures import styles
from l2lgd.figures.base import (
    NOT_OF_NUMBERS,
    Appearance,
    Content,
    Evaluated,
    PaperFigure,
    Request,
    Table,
)
from l2lgd.figures.captions import caption, notes
from l2lgd.figures.custom import NAME as OWN
from l2lgd.results.pictures import own_settings
from l2lgd.storage import checkpoint
from l2lgd.storage.files import write_atomically
from l2lgd.storage.nesting import parsed

log = logging.getLogger(__name__)


def draw(figure: PaperFigure, folder: Path, appearance: Appearance) -> None:
    """Draw a figure from its CSV in a folder, as PNG and PDF beside it.

    Raises:
        UserError: a file is missing, unreadable or cannot be written, or drawing failed.
    """
    content = read(figure.name, folder)
    try:
        with own_settings():
            drawn = figure.draw(content, appearance)
            pictures = {kind: styles.encoded(drawn, kind, figure.dpi) for kind in styles.KINDS}
    except Exception as error:  # fonts, or the numbers themselves: other figures are to be drawn
        raise UserError(f"drawing failed: {one_line(error)}") from error
    for kind, picture in pictures.items():
        path = path_of(folder, figure.name, kind)
        write_atomically(path, picture)
        log.info("%s", path)


def read(name: str, folder: Path) -> Content:
    """What the figure of that name shows, from its files in a folder.

    Raises:
        UserError: one is missing or unreadable.
    """
    images = path_of(folder, name, "safetensors")
    tensors = checkpoint.load(images)[0] if images.exists() else {}
    return Content(table_of(folder, name), tensors, notes(about(folder, name)))


def write(
    figure: PaperFigure,
    evaluated: Mapping[str, Evaluated],
    request: Request,
    folder: Path,
) -> None:
    """Write what a figure shows, where that is from, and its caption."""
    content = figure.collect(evaluated, request)
    if content.images:
        checkpoint.save(path_of(folder, figure.name, "safetensors"), content.images, {})
    write_atomically(path_of(folder, figure.name, "csv"), content.table.csv().encode())
    given = HydraConfig.get().overrides.task
    mine = [o for o in given if not o.startswith(("figure=", "figures.", *NOT_OF_NUMBERS))]
    which = [] if figure.name == OWN else [f"figure={figure.name}"]
    command = shlex.join(["l2lgd", "figures", *which, *mine])
    panels = {panel: one.about() for panel, one in evaluated.items()}
    made = {"figure": figure.name, "command": command, "l2lgd": version("l2lgd"), "panels": panels}
    text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path_of(folder, figure.name, "json"), text.encode())
    write_caption(figure, folder)


def write_caption(figure: PaperFigure, folder: Path) -> None:
    """Write the caption of a figure from its JSON in a folder."""
    text = caption(figure, about(folder, figure.name))
    write_atomically(path_of(folder, figure.name, "md"), text.encode())


def about(folder: Path, name: str) -> dict[str, Any]:
    """Where a figure is from, by what its JSON says.

    Raises:
        UserError: that is missing or unreadable.
    """
    path = path_of(folder, name, "json")
    try:
        found: dict[str, Any] = parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return found


def path_of(folder: Path, name: str, kind: str) -> Path:
    return folder / f"figure_{name}.{kind}"


def table_of(folder: Path, name: str) -> Table:
    path = path_of(folder, name, "csv")
    try:
        return Table.parse(path.read_text(encoding="utf-8"))
    except (OSError, UserError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
