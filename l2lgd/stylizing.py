"""``l2lgd stylize``: a person's own photograph in the style of a person's own picture."""

import contextlib
import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from l2lgd.contestants import opt_config, trained
from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import Optimizer
from l2lgd.photographs import write_picture
from l2lgd.results import write_summary
from l2lgd.run import Run
from l2lgd.seeding import generator
from l2lgd.tracking import RunTracker
from l2lgd.unroll import advance, start

log = logging.getLogger(__name__)


def stylize(config: DictConfig) -> float:
    """Paint with a learned optimizer, and with another one beside it; returns its final loss."""
    for name in ("content", "style"):
        if config[name] is None:
            raise ConfigError(
                f"{name}= is missing; usage: l2lgd stylize content.jpg style.jpg -o painted.png"
            )
    output = Path(config.output).expanduser() if config.output else None
    if output is not None and output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ConfigError(f"output={output}: give a name that ends in .png or .jpg")
    run = Run.prepare(config, "stylize")
    output = output or run.folder / "painted.png"
    learned = trained(run, run.opt_name, run.config["opt"], "test")
    painters: dict[str, tuple[Path, Optimizer]] = {run.opt_name: (output, learned.optimizer)}
    beside = run.options.beside
    if beside is not None:
        node = opt_config(run, beside)
        if "learning_rate" not in node:
            raise ConfigError(f"beside={beside}: choose a hand-designed optimizer, such as adam")
        optimizer = run.build_optimizer({**node, "learning_rate": run.options.learning_rate})
        painters[beside] = (output.with_stem(f"{output.stem}-{beside}"), optimizer)
    run.say_what_runs(learned.optimizer)
    losses = {}
    with contextlib.closing(run.tracker(("pictures", "steps"))) as tracker:
        for done, (name, (path, optimizer)) in enumerate(painters.items()):
            tracker.progress(done, len(painters), 0, run.options.num_steps, name)
            losses[name] = _paint(run, optimizer, path, tracker)
            log.info("%s: %s", name, path)
        tracker.log(run.options.num_steps, losses)
    results: dict[str, Any] = {
        name: {"final_loss": losses[name], "picture": str(path)}
        for name, (path, _) in painters.items()
    }
    write_summary(run.folder / "summary.json", run.summary("test", results=results))
    return losses[run.opt_name]


def _paint(run: Run, optimizer: Optimizer, path: Path, tracker: RunTracker) -> float:
    """Always from the same noise; returns the final loss."""
    functions = run.task.sample("test", 1, generator(run.options.seed, "stylize"))
    at = start(optimizer, functions)
    for step in range(1, run.options.num_steps + 1):
        at = advance(at)
        tracker.steps(step, run.options.num_steps)
    write_picture(path, functions.unpack(at.parameters)["image"][0])
    return float(at.loss)
