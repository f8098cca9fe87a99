"""``l2lgd figures``: evaluates what is missing, draws, and says in a caption what is shown."""

import json
import logging
import os
import shlex
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from l2lgd import checkpoint, locks
from l2lgd.checkpoint import check_writable, write_atomically
from l2lgd.config import nearest, validated
from l2lgd.errors import ConfigError, UserError
from l2lgd.figures import look as looks
from l2lgd.figures.base import (
    NOT_OF_NUMBERS,
    Content,
    Evaluated,
    Look,
    PaperFigure,
    Request,
    Table,
)
from l2lgd.figures.catalogue import FIGURES
from l2lgd.figures.comparison import comparison, published
from l2lgd.figures.evaluations import Evaluations, Plan
from l2lgd.figures.own import NAME as OWN
from l2lgd.figures.own import own
from l2lgd.kept_losses import KeptLosses
from l2lgd.runtime import pick_device

log = logging.getLogger(__name__)

OVERLAYS = ("none", "paper")
HANDED_ON = ("device", "data_dir", "tuned_dir")  # options that evaluations get where they are given


def figures(config: DictConfig) -> float:
    """Draw figures; returns how many could not be drawn.

    Raises:
        ConfigError: an option is out of range, or there is no such figure.
        UserError: none of the figures could be drawn, or one that was named.
    """
    options = validated(config, "figures")
    if options.workers is not None and options.workers < 1:
        raise ConfigError(f"workers={options.workers}: must be at least 1")
    chosen = _chosen(options.figure)
    look = Look(options.figures.style, _overlay(options.figures.overlay))
    looks.style_of(look.style)
    folder = Path(HydraConfig.get().runtime.output_dir)
    check_writable(folder / "comparison.md")
    locks.hold(folder)
    given = HydraConfig.get().overrides.task
    handed_on = [o for o in given if o.partition("=")[0] in HANDED_ON]
    art = [] if options.vgg == "torchvision" else [f"task.vgg.weights={options.vgg}"]
    weights = None
    if options.weights_dir is not None:
        weights = Path(options.weights_dir).expanduser()
        if not weights.is_dir():
            raise ConfigError(f"weights_dir={weights}: there is no such folder")
        handed_on.append(f"weights_dir={weights}")
    plan = Plan(
        folder / "evaluations",
        vars(options.scale.functions),
        [f"seed={options.seed}", f"threads={options.threads}", "logger=none", *handed_on],
        art,
        [Path(path).expanduser() for path in options.reuse],
        weights,
        options.workers or _workers(options.device, options.threads),
        Path(options.data_dir).expanduser(),
        [Path(options.vgg).expanduser()] if art else [],
    )
    request = Request([*handed_on, *art])
    if options.of and options.reuse:
        raise ConfigError("reuse= is for evaluations, and of= draws what has been evaluated")
    KeptLosses(folder, plan.reuse)  # says now what evaluations would say later
    if options.of:
        mine, evaluated = own(options.of)
        _make(mine, evaluated, request, folder)
        draw(mine, folder, look)
        return 0.0
    wanted = {e.name: e for figure in chosen for e in figure.evaluations().values()}
    made = Evaluations(plan).make(list(wanted.values()))
    problems: dict[str, UserError] = {}
    for figure in chosen:
        try:
            evaluated = {}
            for panel, one in figure.evaluations().items():
                found = made[one.name]
                if isinstance(found, UserError):
                    raise UserError(f"{one.name}: {found}")
                evaluated[panel] = found
            _make(figure, evaluated, request, folder)
            draw(figure, folder, look)
        except UserError as problem:
            problems[figure.name] = problem
            log.warning("figure %s is not drawn: %s", figure.name, problem)
    tables = {name: _table(folder, name) for name in FIGURES if _path(folder, name, "csv").exists()}
    write_atomically(folder / "comparison.md", comparison(tables).encode())
    if problems and (options.figure != "all" or len(problems) == len(chosen)):
        names = ", ".join(problems)
        raise UserError(f"not drawn: figure {names} ({next(iter(problems.values()))})")
    if problems:
        log.warning("not drawn: figure %s; the reasons are above", ", ".join(problems))
    log.info("figures, captions and comparison.md: %s", folder)
    return float(len(problems))


def draw(figure: PaperFigure, folder: Path, look: Look) -> None:
    """Draw a figure from its CSV in a folder, as PNG and PDF beside it."""
    content = read(figure.name, folder)
    drawn = figure.draw(content, look)
    for kind in looks.KINDS:
        path = _path(folder, figure.name, kind)
        write_atomically(path, looks.encoded(drawn, kind, figure.dpi))
        log.info("%s", path)


def read(name: str, folder: Path) -> Content:
    """What the figure of that name shows, from its files in a folder.

    Raises:
        UserError: one is missing or unreadable.
    """
    images = _path(folder, name, "safetensors")
    tensors = checkpoint.load(images)[0] if images.exists() else {}
    return Content(_table(folder, name), tensors)


def _make(
    figure: PaperFigure,
    evaluated: Mapping[str, Evaluated],
    request: Request,
    folder: Path,
) -> None:
    """Write what a figure shows, where that is from, and its caption."""
    content = figure.collect(evaluated, request)
    if content.images:
        checkpoint.save(_path(folder, figure.name, "safetensors"), content.images, {})
    write_atomically(_path(folder, figure.name, "csv"), content.table.csv().encode())
    given = HydraConfig.get().overrides.task
    mine = [o for o in given if not o.startswith(("figure=", "figures.", *NOT_OF_NUMBERS))]
    which = [] if figure.name == OWN else [f"figure={figure.name}"]
    command = shlex.join(["l2lgd", "figures", *which, *mine])
    panels = {panel: one.about() for panel, one in evaluated.items()}
    about = {"figure": figure.name, "command": command, "l2lgd": version("l2lgd"), "panels": panels}
    text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
    write_atomically(_path(folder, figure.name, "json"), text.encode())
    write_atomically(_path(folder, figure.name, "md"), caption(figure, about).encode())


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


def _chosen(wanted: Any) -> list[PaperFigure]:
    names = [str(name) for name in (wanted if isinstance(wanted, list) else [wanted])]
    if not names:
        raise ConfigError("figure=[]: name at least one, or figure=all")
    if names == ["all"]:
        return list(FIGURES.values())
    for name in names:
        if name not in FIGURES:
            raise ConfigError(f"figure={name}: there is none{nearest(name, ['all', *FIGURES])}")
    return [FIGURES[name] for name in names]


def _overlay(name: str) -> Mapping[str, Table]:
    if name not in OVERLAYS:
        raise ConfigError(f"figures.overlay={name}: choose one of {', '.join(OVERLAYS)}")
    return published() if name == "paper" else {}


def _workers(device: str, threads: int) -> int:
    if pick_device(device).type != "cpu":
        return 1
    return max(1, len(os.sched_getaffinity(0)) // threads)


def _path(folder: Path, name: str, kind: str) -> Path:
    return folder / f"figure_{name}.{kind}"


def _table(folder: Path, name: str) -> Table:
    path = _path(folder, name, "csv")
    try:
        return Table.parse(path.read_text(encoding="utf-8"))
    except (OSError, UserError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
