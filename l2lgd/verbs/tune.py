"""``l2lgd tune``."""

import logging

from omegaconf import DictConfig

from l2lgd.errors import ConfigError, nearest
from l2lgd.results.captions import of_search
from l2lgd.results.pictures import drawn
from l2lgd.results.plots import clipped, plot_search
from l2lgd.results.summary import write_summary
from l2lgd.runs.run import Run
from l2lgd.verbs.ending import say_where
from l2lgd.verbs.searches import SEARCHES

log = logging.getLogger(__name__)


def tune(config: DictConfig) -> float:
    """Search what ``search=`` names; returns the best validation loss."""
    run = Run.prepare(config, "tune")
    kind = run.options.search
    if kind not in SEARCHES:
        raise ConfigError(f"search={kind}{nearest(kind, SEARCHES)}")
    if run.options.checkpoint is not None and kind != "update_scale":
        raise ConfigError(f"checkpoint= is for search=update_scale, not for search={kind}")
    if run.options.resume is not None and kind != "meta_learning_rate":
        raise ConfigError(f"resume= is for search=meta_learning_rate; give search={kind} anew")
    if run.options.trials < 1:
        raise ConfigError(f"trials={run.options.trials}: must be at least 1")
    if not run.options.baselines:
        raise ConfigError("baselines=[]: name at least one optimizer, as in baselines=[adam]")
    low, high = run.options.lowest_rate, run.options.highest_rate
    if not 0 < low < high:
        raise ConfigError(
            f"lowest_rate={low:g} and highest_rate={high:g}: both must be positive, and the "
            "highest above the lowest"
        )
    found = SEARCHES[kind](run)
    searches = {name: one.search for name, one in found.items()}
    what = "learning_rate" if kind == "space" else kind  # that a picture shows
    results = {
        name: {
            what: one.search.best_rate,
            **({"settings": one.settings} if one.settings else {}),
            "validation_loss": one.search.best_loss,
            "trials": one.search.trials,
        }
        for name, one in found.items()
    }
    summary = run.folder / "summary.json"
    found_in = run.summary("validation", search=kind, results=results)
    write_summary(summary, found_in)
    trials = {name: search.trials for name, search in searches.items()}
    axis = what.replace("meta_", "meta-").replace("_", " ")
    meta_trained = kind == "meta_learning_rate"
    count = run.options.validation_functions if meta_trained else run.options.num_functions
    caption = of_search(found_in, count, axis, any(clipped(trials).values()))
    picture = drawn(
        run.folder / "search.png",
        lambda path: plot_search(path, trials, axis, run.title(), caption),
    )
    for name, search in searches.items():
        log.info("%s: best %s %.4g, loss %.4g", name, axis, search.best_rate, search.best_loss)
    result = "scaled weights" if kind == "update_scale" else axis
    for name, one in found.items():
        say_where((f"{name}: {result} kept in", one.kept))
    say_where(("picture", picture), ("summary", summary), ("run folder", run.folder))
    return min(search.best_loss for search in searches.values())
