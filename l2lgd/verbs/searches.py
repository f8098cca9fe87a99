"""The searches of ``l2lgd tune``."""

import contextlib
import copy
import dataclasses
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l2lgd.config.packages import packages_of
from l2lgd.errors import ConfigError, Diverged
from l2lgd.evaluation.baselines import search_learning_rate
from l2lgd.evaluation.keys import tuning_key
from l2lgd.evaluation.learned import opt_config, trained
from l2lgd.evaluation.rate_search import Search, grid_search, random_search
from l2lgd.evaluation.space_tuning import SPACE, SpaceTuning
from l2lgd.evaluation.tuned_rates import TunedRates
from l2lgd.meta.evaluator import Evaluator
from l2lgd.meta.state import ancestry
from l2lgd.runs.run import Run
from l2lgd.seeding import generator
from l2lgd.storage import checkpoint
from l2lgd.storage.paths import as_typed
from l2lgd.tracking.tracker import NullTracker
from l2lgd.verbs.plan import MetaTrainingPlan
from l2lgd.verbs.resuming import stored_run, way_on

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A search, and the file where its result is kept for other runs, where there is one."""

    search: Search
    kept: Path | None = None
    settings: dict[str, Any] | None = None  # the best, of a space


def _learning_rates(run: Run) -> dict[str, Found]:
    """Grid search of the learning rate of each of ``baselines=``; keeps what is found."""
    run.refuse_mixture()
    options, searches = run.options, {}
    rates = TunedRates(Path(), as_typed(options.tuned_dir))
    nodes = {name: opt_config(run, name) for name in options.baselines}
    for name, node in nodes.items():
        if "learning_rate" not in node:
            raise ConfigError(f"baselines=[{name}]: opt={name} has no learning rate to tune")
    with contextlib.closing(run.tracker(("optimizers", "steps"))) as tracker:
        for done, (name, node) in enumerate(nodes.items()):
            tracker.progress(done, len(nodes), 0, options.num_steps, name)
            search = search_learning_rate(
                run,
                node,
                options.num_functions,
                options.seed,
                options.lowest_rate,
                options.highest_rate,
                tracker,
            )
            key = tuning_key(run, name, node, options.num_functions, options.seed)
            kept = rates.store(key, search, {"command": run.command()})
            searches[name] = Found(search, kept)
            tracker.log(done, {f"{name}_learning_rate": search.best_rate, name: search.best_loss})
        count, steps = len(nodes), options.num_steps
        tracker.progress(count, count, steps, steps, note="")
    return searches


def _spaces(run: Run) -> dict[str, Found]:
    """Search of the space of each of ``baselines=``; keeps what is found."""
    run.refuse_mixture()
    options, found = run.options, {}
    nodes = {name: opt_config(run, name) for name in options.baselines}
    for name, node in nodes.items():
        if not node.get(SPACE):
            raise ConfigError(
                f"baselines=[{name}]: opt={name} has no space to search; take "
                "search=learning_rate, or an optimizer such as tuned_adam"
            )
    with contextlib.closing(run.tracker(("optimizers", "steps"))) as tracker:
        for done, (name, node) in enumerate(nodes.items()):
            tracker.progress(done, len(nodes), 0, options.num_steps, name)
            tuning = SpaceTuning(
                run, name, node, options.trials, options.num_functions, options.seed
            )
            search = tuning.search(tracker)
            log.info("%s: best %s", name, search.best.settings)
            trials = ((t.settings["learning_rate"], t.loss) for t in search.trials)
            found[name] = Found(Search(tuple(sorted(trials))), settings=search.best.settings)
            tracker.log(done, {name: search.best.loss})
        count, steps = len(nodes), options.num_steps
        tracker.progress(count, count, steps, steps, note="")
    return found


def _meta_learning_rate(run: Run) -> dict[str, Found]:
    """Random search over short meta-trainings, each in a folder of its own.

    Where the search goes on, those that have ended are taken as they are.
    """
    options = run.options
    plan, trials = MetaTrainingPlan.of(run), itertools.count(1)
    before = (file.parents[1] for file in sorted(run.folder.glob("trial_*/checkpoints/last.*")))
    stored_run(run, next(before, run.folder))  # other rates would be those of another search

    def final_loss(rate: float) -> float:
        k = next(trials)
        folder = run.folder / f"trial_{k}_{rate:.3g}"
        stored = stored_run(run, folder)
        done = stored["progress"] if stored else {"meta_step": 0}
        if done["meta_step"] == options.meta_steps:
            return float(done["best_validation_loss"])
        folder.mkdir(parents=True, exist_ok=True)
        settings = dataclasses.replace(plan.settings, meta_learning_rate=rate)
        trial = dataclasses.replace(plan, settings=settings)
        number = f"{k} of {options.trials}"
        labels = (f"trial {number}: meta-steps", "trajectory")
        resume_at = done["meta_step"] if stored else None
        logger_id = stored.get("mirror_id") if stored else None
        with contextlib.closing(run.tracker(labels, resume_at, logger_id, folder)) as own:
            try:
                loss = trial.run(run, own, folder, stored).best_validation_loss
            except Diverged as error:
                log.warning("trial %s: meta learning rate %.3g: %s", number, rate, error)
                return float("inf")
        log.info("trial %s: meta learning rate %.3g: %.4g", number, rate, loss)
        return loss

    draw = generator(options.seed, "meta_learning_rate")
    with way_on(run):
        found = random_search(
            final_loss, options.lowest_rate, options.highest_rate, options.trials, draw
        )
    return {run.opt_name: Found(found)}


def _update_scale(run: Run) -> dict[str, Found]:
    """Grid search of a factor on the updates of trained weights; keeps them times the best."""
    run.refuse_mixture()
    found = trained(run, run.opt_name, run.config["opt"], "validation")
    run.say_what_runs(found.optimizer)
    evaluator = Evaluator(run.task, run.options.seed, NullTracker())

    def final_loss(factor: float) -> float:
        scaled = copy.deepcopy(found.optimizer)
        scaled.scale_updates(factor)
        functions, steps = run.options.num_functions, run.options.num_steps
        loss = evaluator.evaluate(scaled, "validation", functions, steps).final_loss()
        log.info("update scale %.3g: %.4g", factor, loss)
        return loss

    search = grid_search(final_loss, run.options.lowest_rate, run.options.highest_rate)
    found.optimizer.scale_updates(search.best_rate)
    weights = run.folder / "checkpoints" / "best.safetensors"
    about = {
        "opt": found.options,
        "packages": packages_of(found.options),
        "begun_from": ancestry(found.metadata),
        "update_scale": search.best_rate,
        "validation_loss": search.best_loss,
    }
    checkpoint.save(weights, found.optimizer.state_dict(), run.provenance() | about)
    log.info("%s", run.evaluation_of(weights))
    return {run.opt_name: Found(search, weights)}


SEARCHES: dict[str, Callable[[Run], dict[str, Found]]] = {  # by what is searched
    "learning_rate": _learning_rates,
    "space": _spaces,
    "meta_learning_rate": _meta_learning_rate,
    "update_scale": _update_scale,
}
