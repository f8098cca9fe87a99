"""``l2lgd figures``: evaluates what is missing, and draws."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from l2lgd.config.schemas import validated
from l2lgd.errors import ConfigError, UserError
from l2lgd.figures import styles
from l2lgd.figures.base import Appearance, PaperFigure, Request, Table
from l2lgd.figures.catalogue import FIGURES
from l2lgd.figures.comparison import comparison, published
from l2lgd.figures.custom import own
from l2lgd.figures.drawing import draw, path_of, table_of, write
from l2lgd.figures.evaluations import Evaluations, Plan
from l2lgd.results.losses import KeptLosses
from l2lgd.storage import locks
from l2lgd.storage.files import check_writable, write_atomically
from l2lgd.storage.paths import as_typed
from l2lgd.system.runtime import pick_device
from l2lgd.verbs.ending import say_where

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
    if options.threads < 1:
        raise ConfigError(f"threads={options.threads}: must be at least 1")
    chosen = _chosen(options.figure)
    appearance = Appearance(options.figures.style, _overlay(options.figures.overlay))
    styles.style_of(appearance.style)
    folder = Path(HydraConfig.get().runtime.output_dir)
    check_writable(folder / "comparison.md")
    locks.hold(folder)
    given = HydraConfig.get().overrides.task
    handed_on = [o for o in given if o.partition("=")[0] in HANDED_ON]
    art = [] if options.vgg == "torchvision" else [f"task.vgg.weights={options.vgg}"]
    if art and not as_typed(options.vgg).is_file():
        raise ConfigError(f"vgg={options.vgg}: no such file; vgg=torchvision downloads one")
    weights = None
    if options.weights_dir is not None:
        weights = as_typed(options.weights_dir)
        if not weights.is_dir():
            raise ConfigError(f"weights_dir={weights}: there is no such folder")
        handed_on.append(f"weights_dir={weights}")
    plan = Plan(
        folder / "evaluations",
        vars(options.scale.functions),
        [f"seed={options.seed}", f"threads={options.threads}", "logger=none", *handed_on],
        art,
        [as_typed(path) for path in options.reuse],
        weights,
        options.workers or _workers(options.device, options.threads),
        as_typed(options.data_dir),
        [as_typed(options.vgg)] if art else [],
    )
    request = Request([*handed_on, *art])
    if options.of and options.reuse:
        raise ConfigError("reuse= is for evaluations, and of= draws what has been evaluated")
    KeptLosses(folder, plan.reuse)  # says now what evaluations would say later
    if options.of:
        mine, evaluated = own(options.of)
        write(mine, evaluated, request, folder)
        draw(mine, folder, appearance)
        say_where(("figure, caption and table", folder))
        return 0.0
    swept = HydraConfig.get().mode == RunMode.MULTIRUN
    wanted = [one for figure in chosen for one in figure.evaluations().values()]
    made = Evaluations(plan, quiet=swept).make(wanted)
    problems: dict[str, UserError] = {}
    for figure in chosen:
        try:
            evaluated = {}
            for panel, one in figure.evaluations().items():
                found = made[one.name]
                if isinstance(found, UserError):
                    raise UserError(f"{one.name}: {found}")
                evaluated[panel] = found
            write(figure, evaluated, request, folder)
            draw(figure, folder, appearance)
        except UserError as problem:
            problems[figure.name] = problem
            log.warning("figure %s is not drawn: %s", figure.name, problem)
    tables = {
        name: table_of(folder, name) for name in FIGURES if path_of(folder, name, "csv").exists()
    }
    write_atomically(folder / "comparison.md", comparison(tables).encode())
    if problems and (options.figure != "all" or len(problems) == len(chosen)):
        names = ", ".join(problems)
        raise UserError(f"not drawn: figure {names} ({next(iter(problems.values()))})")
    if problems:
        log.warning("not drawn: figure %s; the reasons are above", ", ".join(problems))
    say_where(("figures, captions and comparison.md", folder))
    return float(len(problems))


def _chosen(wanted: Any) -> list[PaperFigure]:
    names = [str(name) for name in (wanted if isinstance(wanted, list) else [wanted])]
    if not names:
        raise ConfigError("figure=[]: name at least one, or figure=all")
    if names == ["all"]:
        return list(FIGURES.values())
    for name in names:
        if name not in FIGURES:
            known = ", ".join(FIGURES)
            raise ConfigError(f"figure={name}: there is none; choose one of {known}, or all")
    return [FIGURES[name] for name in names]


def _overlay(name: str) -> Mapping[str, Table]:
    if name not in OVERLAYS:
        raise ConfigError(f"figures.overlay={name}: choose one of {', '.join(OVERLAYS)}")
    return published() if name == "paper" else {}


def _workers(device: str, threads: int) -> int:
    if pick_device(device).type != "cpu":
        return 1
    return max(1, len(os.sched_getaffinity(0)) // threads)
