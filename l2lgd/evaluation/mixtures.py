"""Of each task of a mixture: the loss of tuned Adam, and the command that evaluates on it."""

import json
import logging
from pathlib import Path
from typing import Any

from l2lgd.config.options import RECOMMENDED
from l2lgd.errors import ConfigError
from l2lgd.evaluation.baselines import HIGHEST_RATE, LOWEST_RATE, search_learning_rate
from l2lgd.evaluation.keys import tuning_key
from l2lgd.evaluation.learned import choices_of, opt_config
from l2lgd.evaluation.tuned_rates import TunedRates
from l2lgd.meta.evaluator import Evaluator
from l2lgd.pretrained.weights import SHIPPED
from l2lgd.runs.run import Run
from l2lgd.storage.paths import as_typed
from l2lgd.system.ranks import Ranks
from l2lgd.tracking.tracker import Tracker

log = logging.getLogger(__name__)

REFERENCE = "adam"
FUNCTIONS, SEED = 20, 0  # tune_functions and tune_seed of evaluate: both find the same rates


def reference_losses(run: Run, tracker: Tracker, ranks: Ranks) -> dict[str, float]:
    """Final validation losses of Adam, at its tuned rate, on each part of a run's task.

    They are on the functions, and over the steps, that a validation is on.

    Raises:
        ConfigError: one is not positive, so that no loss has a ratio to it.
    """
    node = opt_config(run, REFERENCE)
    found = {}
    for name, own in run.parts().items():
        rate = _tuned_rate(own, node, tracker, ranks)
        optimizer = own.build_optimizer({**node, "learning_rate": rate})
        evaluator = Evaluator(own.task, own.options.seed, tracker, ranks)
        steps, functions = own.options.num_steps, own.options.validation_functions
        loss = evaluator.evaluate(optimizer, "validation", functions, steps).final_loss()
        if not 0 < loss < float("inf"):
            raise ConfigError(
                f"task={run.task_name}: {REFERENCE} ends at a loss of {loss:g} on {name}, and "
                f"losses of a mixture are compared by their ratio to that; leave {name} out, or "
                "give more validation_functions"
            )
        log.info("%s: tuned %s ends at %.4g, rate %.4g", name, REFERENCE, loss, rate)
        found[name] = loss
    return found


def evaluations(run: Run, weights: Path) -> list[str]:
    """The command lines that evaluate trained weights: one, or one for each part of the task."""
    parts = run.parts()
    if len(parts) == 1:
        return [run.evaluation_of(weights)]
    known, found = choices_of("task"), []
    for name, own in parts.items():
        if own.task_name in known:
            found.append(own.evaluation_of(weights))
        else:
            log.info("%s has no file conf/task/%s.yaml; with one it can be evaluated", name, name)
    return found


def _tuned_rate(run: Run, node: dict[str, Any], tracker: Tracker, ranks: Ranks) -> float:
    """As ``l2lgd evaluate`` finds it; all processes search together, the first one looks and keeps.

    Args:
        run: of one part alone.
    """
    rates = TunedRates(SHIPPED / "tuned", as_typed(run.options.tuned_dir))
    recommended = run.config["task"].get(RECOMMENDED) or {}
    functions = recommended.get("tune_functions") or FUNCTIONS
    key = tuning_key(run, REFERENCE, node, functions, SEED)
    search = rates.find(key) if ranks.leads else None
    known = json.loads(ranks.of_first(json.dumps(search and search.best_rate)))
    if known is not None:
        return float(known)
    log.info("%s: no tuned learning rate for %s yet, searching", REFERENCE, run.task_name)
    search = search_learning_rate(
        run, node, functions, SEED, LOWEST_RATE, HIGHEST_RATE, tracker, ranks
    )
    if ranks.leads:
        rates.store(key, search, {"command": run.command()})
    return search.best_rate
