"""Hand-designed optimizers tuned in a space, as a practitioner would."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l2lgd.config.packages import sources_of
from l2lgd.evaluation.keys import library_of, tuning_key
from l2lgd.evaluation.space_search import RATE, RATES_ALONE, Settings, SpaceSearch, search_space
from l2lgd.evaluation.tuned_settings import TunedSettings
from l2lgd.meta.evaluator import Evaluator
from l2lgd.pretrained.weights import SHIPPED
from l2lgd.runs.run import Run
from l2lgd.storage.paths import as_typed
from l2lgd.tasks.base import Split
from l2lgd.tracking.tracker import NullTracker, Tracker

log = logging.getLogger(__name__)

SPACE = "space"  # key of an optimizer's config


@dataclass(frozen=True)
class SpaceTuning:
    """The search of an optimizer's space, or of its learning rate where it names none.

    Args:
        name: of the optimizer.
        node: its config.
        trials: how many there are.
        num_functions, seed, split: of the functions that settings are compared on.
        shipped: folder of searches by the package's authors.
    """

    run: Run
    name: str
    node: Mapping[str, Any]
    trials: int
    num_functions: int
    seed: int
    split: Split = "validation"
    shipped: Path = SHIPPED / "tuned"

    def known(self) -> SpaceSearch | None:
        """The whole search, if it was made before."""
        done = self._kept().find(self._key())
        return SpaceSearch(done[: self.trials]) if len(done) >= self.trials else None

    def search(self, tracker: Tracker | None = None, must_converge: bool = True) -> SpaceSearch:
        """All trials; those that were made before are taken as they are.

        Raises:
            ConfigError: the space cannot be searched.
            UserError: every trial diverges, and that must not be.
        """
        kept, key = self._kept(), self._key()
        evaluator = Evaluator(self.run.task, self.seed, tracker or NullTracker())

        def final_loss(settings: Settings) -> float:
            optimizer = self.run.build_optimizer({**self.node, **settings})
            steps = self.run.options.num_steps
            curves = evaluator.evaluate(optimizer, self.split, self.num_functions, steps)
            log.debug("%s: %s: %.4g", self.name, settings, curves.final_loss())
            return curves.final_loss()

        done = kept.find(key)
        if len(done) < self.trials:
            log.info("%s: %d trials on %s", self.name, self.trials - len(done), self.run.task_name)
        about = {"command": self.run.command()}
        space = self.node.get(SPACE) or RATES_ALONE
        found = search_space(
            final_loss,
            space,
            self.trials,
            self.seed,
            done,
            lambda made: kept.store(key, made, about),
        )
        if must_converge:
            found.check()
        if found.at_an_end:
            rate = found.best.settings[RATE]
            log.info(
                "%s: the best learning rate, %.2g, is at an end of those tried", self.name, rate
            )
        return found

    def _kept(self) -> TunedSettings:
        return TunedSettings(self.shipped, as_typed(self.run.options.tuned_dir))

    def _key(self) -> dict[str, Any]:
        key = tuning_key(self.run, self.name, dict(self.node), self.num_functions, self.seed)
        own = {**sources_of(self.node), **sources_of(self.run.config["task"])}
        found = {"sources": own} if own else {}
        return key | {"trials": self.trials, "split": self.split} | found | library_of(self.node)
