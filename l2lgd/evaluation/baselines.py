"""Hand-designed optimizers made ready for a comparison: their learning rates tuned."""

import logging
from typing import Any

from l2lgd.evaluation.keys import tuning_key
from l2lgd.evaluation.rate_search import Search, grid_search
from l2lgd.evaluation.tuned_rates import TunedRates
from l2lgd.meta.evaluator import Evaluator
from l2lgd.optimizers.base import Optimizer
from l2lgd.pretrained.weights import SHIPPED
from l2lgd.runs.run import Run
from l2lgd.storage.paths import as_typed
from l2lgd.system.ranks import Ranks
from l2lgd.tracking.tracker import NullTracker, Tracker

log = logging.getLogger(__name__)

LOWEST_RATE, HIGHEST_RATE = 1e-4, 10.0  # where the grid begins; it grows when the best is at an end


def tuned(
    run: Run, name: str, node: dict[str, Any], tracker: Tracker | None = None
) -> tuple[Optimizer, Search]:
    """A hand-designed optimizer at the best learning rate for this problem, and its search.

    Found before, by the package's authors or the user, or searched now.

    Args:
        tracker: shows the steps of a search.
    """
    num_functions, seed = run.options.tune_functions, run.options.tune_seed
    rates = TunedRates(SHIPPED / "tuned", as_typed(run.options.tuned_dir))
    key = tuning_key(run, name, node, num_functions, seed)
    search = rates.find(key)
    if search is None:
        log.info("%s: no tuned learning rate for this problem yet, searching", name)
        search = search_learning_rate(
            run, node, num_functions, seed, LOWEST_RATE, HIGHEST_RATE, tracker
        )
        rates.store(key, search, {"command": run.command()})
    return run.build_optimizer({**node, "learning_rate": search.best_rate}), search


def needs_tuning(node: dict[str, Any]) -> bool:
    """Does an optimizer's config leave its learning rate open?"""
    return "learning_rate" in node and node["learning_rate"] is None


def search_learning_rate(
    run: Run,
    node: dict[str, Any],
    num_functions: int,
    seed: int,
    lowest: float,
    highest: float,
    tracker: Tracker | None = None,
    ranks: Ranks | None = None,
) -> Search:
    """Grid search on the validation problems; the best final loss wins (section 3 of the paper).

    Args:
        ranks: the processes that share the functions.
    """
    evaluator = Evaluator(run.task, seed, tracker or NullTracker(), ranks)

    def final_loss(rate: float) -> float:
        optimizer = run.build_optimizer({**node, "learning_rate": rate})
        curves = evaluator.evaluate(optimizer, "validation", num_functions, run.options.num_steps)
        log.debug("learning rate %.4g: %.4g", rate, curves.final_loss())
        return curves.final_loss()

    return grid_search(final_loss, lowest, highest)
