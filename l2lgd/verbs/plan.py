"""What is meta-trained, and how, as a config describes it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l2lgd.config.building import build
from l2lgd.config.old_names import OF_ESTIMATOR
from l2lgd.errors import CheckpointError, ConfigError
from l2lgd.evaluation.mixtures import reference_losses
from l2lgd.meta.estimators.base import Estimator
from l2lgd.meta.estimators.mixed import check_horizons
from l2lgd.meta.progress import MetaProgress
from l2lgd.meta.schedules import Unroll
from l2lgd.meta.state import ancestry, load_weights
from l2lgd.meta.trainer import MetaSettings, Trainer
from l2lgd.optimizers.base import LearnedRule
from l2lgd.pretrained.weights import find
from l2lgd.runs.run import Run
from l2lgd.system.ranks import Ranks
from l2lgd.tracking.tracker import NullTracker, RunTracker
from l2lgd.verbs.resuming import MAY_CHANGE_ON_RESUME, warn_of_other_bits


def build_unroll(node: Mapping[str, Any]) -> Unroll:
    """The unroll schedule of a composed config.

    Raises:
        ConfigError: an option is unknown, ill-typed or out of range.
    """
    for name in OF_ESTIMATOR:
        if name in node:
            raise ConfigError(f"unroll.{name} is called estimator.{name} now")
    target = f"{Unroll.__module__}.{Unroll.__qualname__}"
    unroll: Unroll = build({**node, "_target_": target}, "unroll", kind=Unroll)
    return unroll


@dataclasses.dataclass(frozen=True)
class MetaTrainingPlan:
    """What is meta-trained, and how."""

    optimizer: LearnedRule
    unroll: Unroll
    estimator: Estimator
    settings: MetaSettings

    @classmethod
    def of(cls, run: Run) -> "MetaTrainingPlan":
        """As the config says.

        Raises:
            ConfigError: the optimizer is not a learned one, or an option is out of range.
        """
        optimizer = run.build_optimizer(run.config["opt"])
        if not isinstance(optimizer, LearnedRule):
            raise ConfigError(
                f"opt={run.opt_name} is hand-designed, there is nothing to meta-train; "
                "choose a learned one such as opt=lstm"
            )
        unroll = build_unroll(run.config["unroll"])
        check_horizons(run.task, unroll)  # before Adam is tuned
        estimator = build(
            run.config["estimator"], "estimator", run.options.allow_targets, Estimator
        )
        names = [field.name for field in dataclasses.fields(MetaSettings)]
        settings = MetaSettings(**{name: getattr(run.options, name) for name in names})
        return cls(optimizer, unroll, estimator, settings)

    def run(
        self,
        run: Run,
        tracker: RunTracker | NullTracker,
        folder: Path,
        stored: dict[str, Any] | None = None,
        ranks: Ranks | None = None,
    ) -> MetaProgress:
        """Meta-train, from ``initial_weights`` where these are given.

        Args:
            folder: gets the folder ``checkpoints``.
            stored: what the last checkpoint says where this goes on with a run.
            ranks: the processes that share the functions.

        Raises:
            CheckpointError: ``initial_weights`` are missing, or do not fit the optimizer.
        """
        lasting = {k: v for k, v in run.config.items() if k not in MAY_CHANGE_ON_RESUME}
        provenance = run.provenance() | {"mirror_id": tracker.logger_id, "config": lasting}
        provenance["typed_in"] = run.typed_in()
        provenance["implementation"] = self.optimizer.implementation()
        provenance["matmul_precision"] = run.options.matmul_precision
        initial = run.options.initial_weights
        if stored is not None:
            warn_of_other_bits(stored, provenance)
            # A file of initial weights has done its part, and may be gone.
            provenance |= {key: stored[key] for key in ("begun_from",) if key in stored}
        elif initial is not None:
            try:
                ancestor = load_weights(find(initial).path, self.optimizer)
            except CheckpointError as error:
                raise CheckpointError(f"initial_weights: {error}") from error
            provenance["begun_from"] = ancestry(ancestor)
        run.say_what_runs(self.optimizer)
        references = (stored or {}).get("reference_losses")
        if references is None and len(run.task.parts()) > 1:
            references = reference_losses(run, tracker, ranks or Ranks())
        if references is not None:
            provenance["reference_losses"] = references
        return Trainer(run.task, run.options.seed, tracker, ranks).meta_train(
            self.optimizer,
            self.unroll,
            self.estimator,
            self.settings,
            folder / "checkpoints",
            provenance,
            resume=stored is not None,
            from_scratch=initial is None,
            references=references,
        )
