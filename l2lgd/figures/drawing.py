"""A figure in its folder: what it shows, where that is from, its caption and its picture."""

import json
import logging
import shlex
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from l2lgd.errors import UserError
from l2lgd.figures import style as looks
from l2lgd.figures.base import NOT_OF_NUMBERS, Content, Evaluated, Look, PaperFigure, Request, Table
from l2lgd.figures.custom import NAME as OWN
from l2lgd.storage import checkpoint
from l2lgd.storage.files import write_atomically

log = logging.getLogger(__name__)


def draw(figure: PaperFigure, folder: Path, look: Look) -> None:
    """Draw a figure from its CSV in a folder, as PNG and PDF beside it."""
    content = read(figure.name, folder)
    drawn = figure.draw(content, look)
    for kind in looks.KINDS:
        path = path_of(folder, figure.name, kind)
        write_atomically(path, looks.encoded(drawn, kind, figure.dpi))
        log.info("%s", path)


def read(name: str, folder: Path) -> Content:
    """What the figure of that name shows, from its files in a folder.

    Raises:
        UserError: one is missing or unreadable.
    """
    images = path_of(folder, name, "safetensors")
    tensors = checkpoint.load(images)[0] if images.exists() else {}
    return Content(table_of(folder, name), tensors)


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
    about = {"figure": figure.name, "command": command, "l2lgd": version("l2lgd"), "panels": panels}
    text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path_of(folder, figure.name, "json"), text.encode())
    write_atomically(path_of(folder, figure.name, "md"), caption(figure, about).encode())


def caption(figure: PaperFigure, about: Mapping[str, Any]) -> str:
    """What a figure shows, of how many functions of which data, and what made it."""
    lines = [figure.what, "", f"Made by `{about['command']}` with l2lgd {about['l2lgd']} from", ""]
    said: dict[str, list[str]] = {}
    for panel, one in about["panels"].items():
        said.setdefault(_described(one), []).append(panel)
    for text, panels in said.items():
        lines.append(f"* {', '.join(panels)}: {text}")
    return "\n".join(lines) + "\n"


def _described(one: Mapping[str, Any]) -> str:
    parts = [f"{one['num_functions']} {one['split']} functions of {one['num_steps']} steps"]
    parts.append(f"seed {one['seed']}")
    if one["data"]:
        parts.append(f"data: {one['data']['name']} from {one['data']['source']}")
        parts += [str(one["data"]["note"])] if "note" in one["data"] else []
    threads = f", {one['threads']} thread" + "s" * (one["threads"] > 1)
    parts.append(f"{one['device']}{threads}")
    parts.append(", ".join(f"{name} {number}" for name, number in one["versions"].items()))
    weights = [f"{file} ({one['weights'][name]})" for name, file in one["checkpoints"].items()]
    parts += [f"weights {', '.join(weights)}"] if weights else []
    parts += [f"{count} of {name} diverged" for name, count in one["diverged"].items()]
    if one["reused"]:
        parts.append(
            f"losses taken from {', '.join(one['reused'])}, whose summary.json says what made them"
        )
    return f"{'; '.join(parts)}; `{one['command']}`"


def path_of(folder: Path, name: str, kind: str) -> Path:
    return folder / f"figure_{name}.{kind}"


def table_of(folder: Path, name: str) -> Table:
    path = path_of(folder, name, "csv")
    try:
        return Table.parse(path.read_text(encoding="utf-8"))
    except (OSError, UserError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
