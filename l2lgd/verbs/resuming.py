"""Which meta-training a run goes on with, and what must be as it was."""

import logging
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from l2lgd.config.differences import differences
from l2lgd.config.yaml_files import load_yaml
from l2lgd.errors import ConfigError, one_line
from l2lgd.evaluation.keys import same_images
from l2lgd.meta.state import can_go_on, read_last
from l2lgd.runs.run import Run
from l2lgd.system import launch

log = logging.getLogger(__name__)

MAY_CHANGE_ON_RESUME = (
    "resume",
    "device",
    "deterministic",
    "threads",
    "data_dir",
    "logger",
    "checkpoint_every",
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
        found = load_yaml(file)
        if not isinstance(found, dict):
            raise ValueError("it is no mapping")
        return OmegaConf.create(found)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{file} cannot be read ({one_line(error)}); begin a new run") from error


def _refuse_changes(run: Run, before: DictConfig, now: DictConfig) -> None:
    """Raise ConfigError where an option differs that has to stay as it was."""
    changed = differences(before, now, MAY_CHANGE_ON_RESUME)
    if changed:
        raise ConfigError(
            f"{run.folder} was run with another config ({'; '.join(changed)}), which cannot change "
            "on resume; leave those options out, or begin a new run from its weights with "
            f"initial_weights={run.folder}/checkpoints/best.safetensors"
        )
