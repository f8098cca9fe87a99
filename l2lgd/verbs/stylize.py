"""``l2lgd stylize``: a person's own photograph in the style of a person's own picture."""

import contextlib
import logging
import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from l2lgd.config.overrides import WORDS
from l2lgd.config.schemas import validated
from l2lgd.data.photographs import find_painting, write_picture
from l2lgd.errors import ConfigError, DataUnavailable, Diverged
from l2lgd.evaluation.learned import opt_config, trained
from l2lgd.evaluation.tuned_rates import TunedRates
from l2lgd.meta.graphed import step_of
from l2lgd.meta.rollout import reported_parameters, start
from l2lgd.optimizers.base import Optimizer, TunedOptimizer
from l2lgd.pretrained.weights import SHIPPED
from l2lgd.results.summary import write_summary
from l2lgd.runs.run import Run
from l2lgd.seeding import generator
from l2lgd.storage.files import check_writable
from l2lgd.storage.paths import as_typed
from l2lgd.system import signals
from l2lgd.tasks.base import Optimizee
from l2lgd.tracking.tracker import RunTracker
from l2lgd.verbs.ending import say_where

log = logging.getLogger(__name__)


def stylize(config: DictConfig) -> float:
    """Paint with a learned optimizer, and with another one beside it; returns its final loss."""
    options = validated(config, "stylize")
    for name in ("content", "style"):
        if getattr(options, name) is None:
            raise ConfigError(f"{name}= is missing; usage: l2lgd stylize {WORDS['stylize']}")
    _check_pictures(options)
    output = as_typed(options.output) if options.output else None
    if output is not None and output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ConfigError(f"output={output}: give a name that ends in .png or .jpg")
    run = Run.prepare(config, "stylize")
    output = output or run.folder / "painted.png"
    check_writable(output)
    learned = trained(run, run.opt_name, run.config["opt"], "test")
    painters: dict[str, tuple[Path, Optimizer]] = {run.opt_name: (output, learned.optimizer)}
    beside = options.beside
    if beside is not None:
        other = _hand_designed(run, beside)
        painters[beside] = (output.with_stem(f"{output.stem}-{beside}"), other)
    functions = run.task.sample("test", 1, generator(options.seed, "stylize"))
    run.say_what_runs(learned.optimizer)
    losses = {}
    with contextlib.closing(run.tracker(("pictures", "steps"))) as tracker:
        for done, (name, (path, optimizer)) in enumerate(painters.items()):
            tracker.progress(done, len(painters), 0, options.num_steps, name)
            losses[name] = _paint(functions, optimizer, options.num_steps, path, tracker)
            log.info("%s: %s", name, path)
        count, steps = len(painters), options.num_steps
        tracker.progress(count, count, steps, steps, note="")
        tracker.log(options.num_steps, losses)
    results: dict[str, Any] = {
        name: {"final_loss": losses[name], "picture": str(path)}
        for name, (path, _) in painters.items()
    }
    summary = run.folder / "summary.json"
    write_summary(summary, run.summary("test", results=results))
    pictures = [("picture", path) for path, _ in painters.values()]
    say_where(*pictures, ("summary", summary), ("run folder", run.folder))
    return losses[run.opt_name]


def _check_pictures(options: Any) -> None:
    """Raise ConfigError where one is not there, before anything is loaded."""
    content = as_typed(options.content)
    if not (content.is_file() or content.is_dir()):
        raise ConfigError(f"there is no {content}; give content=FILE, a photograph")
    try:
        find_painting(options.style, as_typed(options.data_dir) / "neural_art" / "style")
    except DataUnavailable as error:
        raise ConfigError(str(error).replace("task.style=", "style=")) from error


def _hand_designed(run: Run, name: str) -> Optimizer:
    """With ``learning_rate=``, else with the one that was tuned on the task."""
    node = opt_config(run, name, f"beside={name}")
    if "learning_rate" not in node:
        raise ConfigError(f"beside={name}: choose a hand-designed optimizer, such as adam")
    rate = run.options.learning_rate
    if rate is None:
        rate = TunedRates(SHIPPED / "tuned", Path()).shipped_for(run.task_name, name)
    if rate is None:
        raise ConfigError(f"beside={name}: give its learning_rate=")
    return run.build_optimizer({**node, "learning_rate": rate})


def _paint(
    functions: Optimizee, optimizer: Optimizer, num_steps: int, path: Path, tracker: RunTracker
) -> float:
    """Write the picture; returns its final loss.

    Raises:
        Diverged: the picture is none.
    """
    at = start(optimizer, functions, horizon=num_steps)
    advance = step_of(at)
    for step in range(1, num_steps + 1):
        signals.check()
        at = advance(at)
        tracker.steps(step, num_steps)
    loss = float(at.loss)
    if not math.isfinite(loss):
        way_out = ""
        if isinstance(optimizer, TunedOptimizer):
            way_out = f"; give a learning_rate= below {optimizer.tuned_rate():.3g}"
        raise Diverged(f"{path} is not written, its optimizer diverged{way_out}")
    write_picture(path, functions.unpack(reported_parameters(at))["image"][0])
    return loss
