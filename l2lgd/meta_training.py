"""A meta-training as a config describes it, begun from the start or gone on with."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from l2lgd import config as configs
from l2lgd import launch
from l2lgd.contestants import same_images
from l2lgd.errors import CheckpointError, ConfigError, one_line
from l2lgd.optimizers.base import LearnedOptimizer
from l2lgd.ranks import Ranks
from l2lgd.run import Run
from l2lgd.saved import MetaProgress, ancestry, can_go_on, load_weights, read_last
from l2lgd.schedules import Unroll
from l2lgd.tracking import NullTracker, RunTracker
from l2lgd.trainer import MetaSettings, Trainer

log = logging.getLogger(__name__)

MAY_CHANGE_ON_RESUME = ("resume", "device", "deterministic", "threads", "data_dir", "logger")
MAY_CHANGE_ON_RESUME += ("checkpoint_every",)


def build_unroll(node: Mapping[str, Any]) -> Unroll:
    """The unroll schedule of a composed config.

    Raises:
        ConfigError: an option is unknown, ill-typed or out of range.
    """
    target = f"{Unroll.__module__}.{Unroll.__qualname__}"
    unroll: Unroll = configs.build({**node, "_target_": target}, "unroll", kind=Unroll)
    return unroll


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is meta-trained, and how."""

    optimizer: LearnedOptimizer
    unroll: Unroll
    settings: MetaSettings

    @classmethod
    def of(cls, run: Run) -> "Recipe":
        """As the config says.

        Raises:
            ConfigError: the optimizer is not a learned one, or an option is out of range.
        """
        optimizer = run.build_optimizer(run.config["opt"])
        if not isinstance(optimizer, LearnedOptimizer):
            raise ConfigError(
                f"opt={run.opt_name} is hand-designed, there is nothing to meta-train; "
                "choose a learned one such as opt=lstm"
            )
        unroll = build_unroll(run.config["unroll"])
        names = [field.name for field in dataclasses.fields(MetaSettings)]
        settings = MetaSettings(**{name: getattr(run.options, name) for name in names})
        return cls(optimizer, unroll, settings)

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
        provenance = run.provenance() | {"mirror_id": tracker.mirror_id, "config": lasting}
        initial = run.options.initial_weights
        if stored is not None:  # a file of initial weights has done its part, and may be gone
            provenance |= {key: stored[key] for key in ("begun_from",) if key in stored}
        elif initial is not None:
            try:
                ancestor = load_weights(Path(initial).expanduser(), self.optimizer)
            except CheckpointError as error:
                raise CheckpointError(f"initial_weights: {error}") from error
            provenance["begun_from"] = ancestry(ancestor)
        run.say_what_runs(self.optimizer)
        return Trainer(run.task, run.options.seed, tracker, ranks).meta_train(
            self.optimizer,
            self.unroll,
            self.settings,
            folder / "checkpoints",
            provenance,
            resume=stored is not None,
            from_scratch=initial is None,
        )


def stored_run(run: Run, config: DictConfig) -> dict[str, Any] | None:
    """What the last checkpoint of the run to go on with says; None to begin from the start.

    The job of a sweep goes on by itself in the folder that it had: a cluster may send it again.

    Raises:
        ConfigError: the configs, the data or the number of processes differ.
        CheckpointError: it cannot be read, nor the one before.
    """
    last = run.folder / "checkpoints" / "last.safetensors"
    known = can_go_on(last)
    sent_again = HydraConfig.get().mode == RunMode.MULTIRUN and known
    if run.options.resume is None and not sent_again:
        return None
    if not known:
        _refuse_changes(run, _config_of(run.folder), config)
        log.info("%s has no checkpoint yet: the run begins anew", run.folder)
        return None
    _, metadata, _ = read_last(last)
    if "config" in metadata:
        _refuse_changes(run, OmegaConf.create(metadata["config"]), config)
    processes, here = metadata.get("processes", 1), launch.size()
    if processes != here:
        raise ConfigError(
            f"{run.folder} was run by {processes} processes, here are {here}; resume with torchrun "
            "and as many, or begin a new run"
        )
    before, now = (same_images(data) for data in (metadata["data"], run.task.data_description()))
    if before != now:
        raise ConfigError(
            f"{run.folder} was run on other data: {before}, now {now}; give the data_dir= that "
            "has them, or begin a new run"
        )
    return metadata


def _config_of(folder: Path) -> DictConfig:
    """What Hydra has kept of a run."""
    file = folder / ".hydra" / "config.yaml"
    try:
        stored = OmegaConf.load(file)
        if not isinstance(stored, DictConfig):
            raise ValueError("it is no mapping")
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{file} cannot be read ({one_line(error)}); begin a new run") from error
    return stored


def _refuse_changes(run: Run, before: DictConfig, now: DictConfig) -> None:
    """Raise ConfigError where an option differs that has to stay as it was."""
    changed = configs.differences(before, now, MAY_CHANGE_ON_RESUME)
    if changed:
        raise ConfigError(
            f"{run.folder} was run with another config ({'; '.join(changed)}); leave those "
            "options as they were, or begin a new run"
        )
