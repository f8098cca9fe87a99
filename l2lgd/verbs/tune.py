"""``l2lgd tune``."""

import logging

from omegaconf import DictConfig

from l2lgd.errors import ConfigError, nearest
from l2lgd.results.captions import of_search
from l2lgd.results.plots import clipped, plot_search
from l2lgd.results.summary import write_summary
from l2lgd.runs.run import Run
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
    summary = run.summary("validation", search=kind, results=results)
    meta_trained = kind == "meta_learning_rate"
    count = run.options.validation_functions if meta_trained else run.options.num_functions
    caption = of_search(summary, count, axis, any(clipped(trials).values()))
    plot_search(picture, trials, axis, run.title(), caption)
    write_summary(run.folder / "summary.json", summary)
    for name, search in searches.items():
        log.info("%s: best %s %.4g, loss %.4g", name, axis, search.best_rate, search.best_loss)
    log.info("picture: %s", picture)
    return min(search.best_loss for search in searches.values())
