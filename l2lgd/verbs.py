"""The verbs: from a composed config to the trainer, and the files of the run folder."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.table import Table

from l2lgd import config as configs
from l2lgd import launch
from l2lgd.contestants import losses_key, needs_tuning, opt_config, trained, tuned
from l2lgd.errors import ConfigError, ProcessLost
from l2lgd.figures.making import figures
from l2lgd.kept_losses import KeptLosses
from l2lgd.meta_training import Recipe, stored_run
from l2lgd.optimizers.base import LearnedOptimizer, Optimizer
from l2lgd.plotting import plot_curves, plot_search
from l2lgd.ranks import Ranks, joined
from l2lgd.results import FINAL_WINDOW, Band, Curves, band, summarize, write_curves, write_summary
from l2lgd.run import Run
from l2lgd.searches import SEARCHES
from l2lgd.stylizing import stylize
from l2lgd.tasks.base import Split
from l2lgd.terminal import show
from l2lgd.tracking import NullTracker
from l2lgd.trainer import Trainer

log = logging.getLogger(__name__)

LONG = 500  # steps, from which on pictures show means of several
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def meta_train(config: DictConfig) -> float:
    """Meta-train; returns the best validation loss, for sweeps to minimise."""
    run = Run.prepare(config, "meta_train")
    recipe = Recipe.of(run)
    stored = stored_run(run, config)
    resume_at = None if stored is None else stored["progress"]["meta_step"]
    with joined(run.device, run.options.num_functions) as ranks, _way_on(run.folder, ranks):
        mirror_id = stored.get("mirror_id", stored.get("wandb_id")) if stored else None
        labels = ("meta-steps", "trajectory")
        tracker = run.tracker(labels, resume_at, mirror_id) if ranks.leads else NullTracker()
        best = run.folder / "checkpoints" / "best.safetensors"
        with contextlib.closing(tracker):
            progress = recipe.run(run, tracker, run.folder, stored, ranks)
            if best.exists():
                tracker.weights(f"{run.task_name}-{run.opt_name}", best, run.provenance())
    if not ranks.leads:
        return progress.best_validation_loss
    write_summary(
        run.folder / "summary.json",
        run.summary(
            "validation",
            seconds=progress.total_seconds,
            training_seconds=progress.seconds,
            opt=run.opt_name,
            best_validation_loss=progress.best_validation_loss,
            best_meta_step=progress.best_meta_step,
            meta_steps=progress.meta_step,
            skipped=progress.skipped,
            processes=ranks.size,
            coordinate_steps_per_second=progress.coordinate_steps / max(progress.seconds, 1e-9),
            checkpoint=str(best),
        ),
    )
    if progress.skipped:
        log.warning(
            "%d of %d meta-steps had no finite meta-gradient and left the weights as they were",
            progress.skipped,
            progress.meta_step,
        )
    log.info(
        "best validation loss %.4g at meta-step %d; to compare it with tuned optimizers:",
        progress.best_validation_loss,
        progress.best_meta_step,
    )
    log.info("%s", run.evaluation_of(best))
    return progress.best_validation_loss


def evaluate(config: DictConfig) -> float:
    """Compare optimizers on the same functions; returns the final loss of ``opt``."""
    run = Run.prepare(config, "evaluate")
    options, split = run.options, run.options.split
    if split not in SPLITS:
        raise ConfigError(f"split={split}{configs.nearest(split, SPLITS)}")
    if options.tune_functions < 1:
        raise ConfigError(f"tune_functions={options.tune_functions}: must be at least 1")
    names = list(dict.fromkeys([run.opt_name, *options.baselines]))
    nodes = {name: opt_config(run, name) for name in names if name != run.opt_name}
    nodes = {run.opt_name: run.config["opt"], **nodes}
    kept = KeptLosses(run.folder, [Path(folder).expanduser() for folder in options.reuse])
    curves: dict[str, Curves] = {}
    results: dict[str, dict[str, Any]] = {}
    learned = []
    if options.checkpoint is not None and not _is_learned(run, nodes[run.opt_name]):
        raise ConfigError(f"checkpoint= is for learned optimizers, opt={run.opt_name} is not one")
    ready = {  # what lacks its weights fails before anything is begun
        name: _ready(run, name, node)
        for name, node in nodes.items()
        if name == run.opt_name or not needs_tuning(node)
    }
    if isinstance(ready[run.opt_name][0], LearnedOptimizer):
        run.say_what_runs(ready[run.opt_name][0])
    with contextlib.closing(run.tracker(("optimizers", "steps"))) as tracker:
        trainer = Trainer(run.task, options.seed, tracker)
        for done, name in enumerate(names):
            tracker.progress(done, len(names), 0, options.num_steps, name)
            optimizer, about = ready.get(name) or _ready(run, name, nodes[name])
            key = losses_key(run, name, nodes[name], optimizer, about["learning_rate"])
            earlier = kept.find(name, key)
            if earlier is None:
                found = trainer.evaluate(optimizer, split, options.num_functions, options.num_steps)
            else:
                found, folder = earlier
                log.info("%s: losses taken from %s", name, folder)
                about = {**about, "losses_from": str(folder)}
            kept.add(name, key, found)
            curves[name] = found
            results[name] = summarize(curves[name]) | about
            if isinstance(optimizer, LearnedOptimizer):
                learned.append(name)
        bands = {name: band(c) for name, c in curves.items()}
        for step in range(options.num_steps + 1):
            tracker.log(step, {name: float(b.mean[step]) for name, b in bands.items()})
        write_curves(run.folder / "curves.csv", bands)
        picture = _picture(run, curves, bands, learned)
        tracker.picture("curves", picture)
    write_summary(run.folder / "summary.json", run.summary(split, results=results))
    _show_results(results, learned)
    log.info("summary: %s", run.folder / "summary.json")
    log.info("picture: %s", picture)
    return curves[run.opt_name].final_loss()


def _picture(
    run: Run, curves: dict[str, Curves], bands: dict[str, Band], learned: list[str]
) -> Path:
    """``curves.png``."""
    path, what = run.folder / "curves.png", "mean and 95 % interval"
    if curves[run.opt_name].stochastic and run.options.num_steps >= LONG:  # as in figure 7
        bands = {name: band(c, FINAL_WINDOW) for name, c in curves.items()}
        what = f"means of {FINAL_WINDOW} steps and 95 % interval"
    label = run.config["task"].get("recipe", {}).get("loss_label", "loss")
    plot_curves(path, bands, learned, run.task_name, label, run.caption(run.options.split, what))
    return path


def tune(config: DictConfig) -> float:
    """Search what ``search=`` names; returns the best validation loss."""
    run = Run.prepare(config, "tune")
    kind = run.options.search
    if kind not in SEARCHES:
        raise ConfigError(f"search={kind}{configs.nearest(kind, SEARCHES)}")
    if run.options.checkpoint is not None and kind != "update_scale":
        raise ConfigError(f"checkpoint= is for search=update_scale, not for search={kind}")
    if run.options.trials < 1 or not run.options.baselines:
        raise ConfigError("trials must be at least 1, and baselines must name an optimizer")
    if not 0 < run.options.lowest_rate < run.options.highest_rate:
        raise ConfigError("lowest_rate and highest_rate must be positive and in this order")
    searches = SEARCHES[kind](run)
    results = {
        name: {kind: s.best_rate, "validation_loss": s.best_loss, "trials": s.trials}
        for name, s in searches.items()
    }
    trials = {name: search.trials for name, search in searches.items()}
    axis = kind.replace("meta_", "meta-").replace("_", " ")
    picture = run.folder / "search.png"
    plot_search(picture, trials, axis, run.task_name, run.caption("validation"))
    write_summary(
        run.folder / "summary.json", run.summary("validation", search=kind, results=results)
    )
    for name, search in searches.items():
        log.info("%s: best %s %.4g, loss %.4g", name, axis, search.best_rate, search.best_loss)
    log.info("picture: %s", picture)
    return min(search.best_loss for search in searches.values())


@contextlib.contextmanager
def _way_on(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Have what ends a meta-training tell how to go on with it."""
    where = ranks.of_first(str(folder))
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(launch.resumption(where)) from None
    except ProcessLost as lost:
        raise ProcessLost(f"{lost}; to go on: {launch.resumption(where)}") from lost


VERBS: dict[str, Callable[[DictConfig], float]] = {
    "meta_train": meta_train,
    "evaluate": evaluate,
    "tune": tune,
    "stylize": stylize,
    "figures": figures,
}


def _is_learned(run: Run, node: dict[str, Any]) -> bool:
    return not needs_tuning(node) and isinstance(run.build_optimizer(node), LearnedOptimizer)


def _ready(run: Run, name: str, node: dict[str, Any]) -> tuple[Optimizer, dict[str, Any]]:
    """An optimizer fit to be evaluated, and where its weights or its learning rate come from."""
    if needs_tuning(node):
        optimizer, search = tuned(run, name, node)
        return optimizer, {"learning_rate": search.best_rate, "search": search.trials}
    optimizer = run.build_optimizer(node)
    if isinstance(optimizer, LearnedOptimizer):
        found = trained(run, name, node, run.options.split)
        return found.optimizer, {"learning_rate": None, "checkpoint": found.file}
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
