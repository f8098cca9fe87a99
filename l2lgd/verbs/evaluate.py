"""``l2lgd evaluate``."""

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.table import Table

from l2lgd.config.schemas import about_task
from l2lgd.data.splits import SPLITS
from l2lgd.errors import ConfigError, nearest
from l2lgd.evaluation.baselines import needs_tuning, tuned
from l2lgd.evaluation.keys import losses_key
from l2lgd.evaluation.learned import given_weights, opt_config, trained
from l2lgd.evaluation.space_tuning import SPACE, SpaceTuning
from l2lgd.meta.evaluator import Evaluator
from l2lgd.optimizers.base import LearnedRule, Optimizer
from l2lgd.results.captions import of_curves
from l2lgd.results.curves import FINAL_WINDOW, Band, Curves, band, summarize, write_curves
from l2lgd.results.losses import KeptLosses
from l2lgd.results.pictures import drawn
from l2lgd.results.plots import plot_curves
from l2lgd.results.summary import write_summary
from l2lgd.runs.run import Run
from l2lgd.storage.paths import as_typed
from l2lgd.system.terminal import show
from l2lgd.tracking.tracker import RunTracker
from l2lgd.verbs.ending import say_where

log = logging.getLogger(__name__)

LONG = 500  # steps, from which on pictures show means of several


def evaluate(config: DictConfig) -> float:
    """Compare optimizers on the same functions; returns the final loss of ``opt``."""
    run = Run.prepare(config, "evaluate")
    run.refuse_mixture()
    options, split = run.options, run.options.split
    if split not in SPLITS:
        raise ConfigError(f"split={split}{nearest(split, SPLITS)}")
    if options.tune_functions < 1:
        raise ConfigError(f"tune_functions={options.tune_functions}: must be at least 1")
    if options.tune_trials < 1:
        raise ConfigError(f"tune_trials={options.tune_trials}: must be at least 1")
    names = list(dict.fromkeys([run.opt_name, *options.baselines]))
    nodes = {name: opt_config(run, name) for name in names if name != run.opt_name}
    nodes = {run.opt_name: run.config["opt"], **nodes}
    kept = KeptLosses(run.folder, [as_typed(folder) for folder in options.reuse])
    curves: dict[str, Curves] = {}
    results: dict[str, dict[str, Any]] = {}
    learned = []
    _check_weights(run, nodes)
    ready = {  # what lacks its weights fails before anything is begun
        name: _ready(run, name, node)
        for name, node in nodes.items()
        if name == run.opt_name or not needs_tuning(node)
    }
    first = ready[run.opt_name][0]
    if isinstance(first, LearnedRule):
        run.say_what_runs(first)
    with contextlib.closing(run.tracker(("optimizers", "steps"))) as tracker:
        evaluator = Evaluator(run.task, options.seed, tracker)
        for done, name in enumerate(names):
            tracker.progress(done, len(names), 0, options.num_steps, name)
            optimizer, about = ready.get(name) or _ready(run, name, nodes[name], tracker)
            node = nodes[name] | about.get("settings", {})
            key = losses_key(run, name, node, optimizer, about["learning_rate"])
            earlier = kept.find(name, key)
            if earlier is None:
                found = evaluator.evaluate(
                    optimizer, split, options.num_functions, options.num_steps
                )
            else:
                found, folder = earlier
                log.info("%s: losses taken from %s", name, folder)
                about = {**about, "losses_from": str(folder)}
            kept.add(name, key, found)
            curves[name] = found
            results[name] = summarize(curves[name]) | about
            if isinstance(optimizer, LearnedRule):
                learned.append(name)
        count, last = len(names), options.num_steps
        tracker.progress(count, count, last, last, note="")
        bands = {name: band(c) for name, c in curves.items()}
        for step in range(options.num_steps + 1):
            tracker.log(step, {name: float(b.mean[step]) for name, b in bands.items()})
        write_curves(run.folder / "curves.csv", bands)
        summary = run.folder / "summary.json"
        found_in = run.summary(split, results=results)
        write_summary(summary, found_in)
        tracker.stop_bars()
        _show_results(results, learned)
        picture = drawn(
            run.folder / "curves.png",
            lambda path: _draw(path, run, found_in, curves, bands, learned),
        )
        if picture is not None:
            tracker.picture("curves", picture)
    say_where(("picture", picture), ("summary", summary), ("run folder", run.folder))
    return curves[run.opt_name].final_loss()


def _draw(
    path: Path,
    run: Run,
    summary: dict[str, Any],
    curves: dict[str, Curves],
    bands: dict[str, Band],
    learned: list[str],
) -> None:
    """``curves.png``."""
    window = 1
    if curves[run.opt_name].stochastic and run.options.num_steps >= LONG:  # as in figure 7
        window = FINAL_WINDOW
        bands = {name: band(c, window) for name, c in curves.items()}
    label, caption = about_task(run.config).loss_label, of_curves(summary, window)
    plot_curves(path, bands, learned, run.title(), label, caption)


def _check_weights(run: Run, nodes: Mapping[str, dict[str, Any]]) -> None:
    """Raise ConfigError for weights of what is not compared, or is no learned optimizer."""
    given = given_weights(run)
    for name in given:
        if name not in nodes:
            raise ConfigError(
                f"checkpoints={{{name}: …}}: {name} is not compared, only {', '.join(nodes)}; add "
                f"{name} to baselines=, or leave it out"
            )
        if not _is_learned(run, nodes[name]):
            one = name == run.opt_name and run.options.checkpoint is not None
            said = "checkpoint=" if one else f"checkpoints={{{name}: …}}"
            raise ConfigError(
                f"{said} is for learned optimizers, opt={name} is not one; leave it out"
            )


def _is_learned(run: Run, node: dict[str, Any]) -> bool:
    return not needs_tuning(node) and isinstance(run.build_optimizer(node), LearnedRule)


def _ready(
    run: Run, name: str, node: dict[str, Any], tracker: RunTracker | None = None
) -> tuple[Optimizer, dict[str, Any]]:
    """An optimizer fit to be evaluated, and where its weights or its learning rate come from."""
    if needs_tuning(node) and node.get(SPACE):
        options = run.options
        functions, seed = options.tune_functions, options.tune_seed
        tuning = SpaceTuning(run, name, node, options.tune_trials, functions, seed)
        found = tuning.search(tracker)
        settings = found.best.settings
        about = {"learning_rate": settings["learning_rate"], **found.told()}
        return run.build_optimizer({**node, **settings}), about
    if needs_tuning(node):
        optimizer, search = tuned(run, name, node, tracker)
        return optimizer, {"learning_rate": search.best_rate, "search": search.trials}
    optimizer = run.build_optimizer(node)
    if isinstance(optimizer, LearnedRule):
        weights = trained(run, name, node, run.options.split)
        return weights.optimizer, {"learning_rate": None, "checkpoint": weights.file}
    return optimizer, {"learning_rate": node.get("learning_rate")}


def _show_results(results: dict[str, dict[str, Any]], learned: list[str]) -> None:
    """The comparison as a table on standard output, best first, what diverged last."""
    table = Table()
    for column in ("optimizer", "final loss", "95 % interval", "learning rate", "diverged"):
        table.add_column(column, justify="left" if column == "optimizer" else "right")

    def rank(name: str) -> tuple[bool, float]:  # a mean over what stayed finite proves nothing
        mean = results[name]["final_loss"]["mean"]
        return results[name]["diverged"] > 0, float("inf") if mean is None else mean

    for name in sorted(results, key=rank):
        result = results[name]
        loss, rate = result["final_loss"], result["learning_rate"]
        table.add_row(
            f"{name} (learned)" if name in learned else name,
            "–" if loss["mean"] is None else f"{loss['mean']:.4g}",
            "–" if loss["ci95"] is None else "{:.4g} … {:.4g}".format(*loss["ci95"]),
            "–" if rate is None else f"{rate:.4g}",
            str(result["diverged"]),
        )
    show(table)
