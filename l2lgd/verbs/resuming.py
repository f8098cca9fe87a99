"""Which meta-training a run goes on with, and what must be as it was."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from l2lgd.config.differences import differences
from l2lgd.config.overrides import typed
from l2lgd.config.yaml_files import load_yaml
from l2lgd.errors import ConfigError, ProcessLost, one_line
from l2lgd.evaluation.keys import same_images
from l2lgd.meta.state import can_go_on, read_last
from l2lgd.runs.commands import resumption
from l2lgd.runs.run import Run
from l2lgd.system import launch
from l2lgd.system.ranks import Ranks

log = logging.getLogger(__name__)

MAY_CHANGE_ON_RESUME = (
    "resume",
    "device",
    "deterministic",
    "matmul_precision",
    "threads",
    "data_dir",
    "tuned_dir",
    "logger",
    "checkpoint_every",
)


def stored_run(run: Run, folder: Path) -> dict[str, Any] | None:
    """What the last checkpoint in a folder of the run says; None to begin from the start.

    The job of a sweep goes on by itself in the folder that it had: a cluster may send it again.

    Raises:
        ConfigError: the configs, the data or the number of processes differ.
        CheckpointError: it cannot be read, nor the one before.
    """
    last = folder / "checkpoints" / "last.safetensors"
    known = can_go_on(last)
    sent_again = HydraConfig.get().mode == RunMode.MULTIRUN and known
    if run.options.resume is None and not sent_again:
        return None
    if not known:
        if folder == run.folder:
            _refuse_changes(run, _config_of(folder))
            log.info("%s has no checkpoint yet: the run begins anew", folder)
        return None
    _, metadata, _ = read_last(last)
    if "config" in metadata:
        _refuse_changes(run, OmegaConf.create(metadata["config"]))
    processes, here = metadata.get("processes", 1), launch.size()
    if processes != here:
        raise ConfigError(
            f"{folder} was run by {processes} processes, here are {here}; resume with torchrun "
            "and as many, or begin a new run"
        )
    before, now = (same_images(data) for data in (metadata["data"], run.task.data_description()))
    if before != now:
        raise ConfigError(
            f"{folder} was run on other data: {before}, now {now}; give the data_dir= that "
            "has them, or begin a new run"
        )
    return metadata


def warn_of_other_bits(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Where a run goes on with what gives other last digits, from what its checkpoints say."""
    then, here = _arithmetic(before), _arithmetic(now)
    changed = [f"{k}: {v} → {here[k]}" for k, v in then.items() if v is not None and v != here[k]]
    if changed:
        log.warning(
            "the run goes on with other arithmetic (%s): its numbers will not be those of a run "
            "without a break to the last digit",
            "; ".join(changed),
        )


def _arithmetic(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What the last digits depend on; None for what a version before has not stored."""
    device = str(provenance.get("device")).partition(":")[0]
    return {
        "device": device,
        "threads": provenance.get("threads") if device == "cpu" else None,
        "implementation": provenance.get("implementation"),
        "processor": provenance.get("processor"),
        "matmul_precision": provenance.get("matmul_precision", "highest"),
        "torch": provenance.get("versions", {}).get("torch"),
    }


@contextlib.contextmanager
def way_on(run: Run, ranks: Ranks | None = None) -> Iterator[None]:
    """Have what ends a run tell how to go on with it."""
    where = str(run.folder) if ranks is None else ranks.of_first(str(run.folder))
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(resumption(run.verb, where)) from None
    except ProcessLost as lost:
        raise ProcessLost(f"{lost}; to go on: {resumption(run.verb, where)}") from lost


def _config_of(folder: Path) -> DictConfig:
    """What Hydra has kept of a run."""
    file = folder / ".hydra" / "config.yaml"
    try:
        found = load_yaml(file)
        if not found or not isinstance(found, dict):
            raise ValueError("it is empty, or no mapping")
        return OmegaConf.create(found)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{file} cannot be read ({one_line(error)}); begin a new run") from error


def _refuse_changes(run: Run, before: DictConfig) -> None:
    """Raise ConfigError where an option differs that has to stay as it was."""
    changed = differences(before, OmegaConf.create(run.config), MAY_CHANGE_ON_RESUME)
    if changed:
        best = run.folder / "checkpoints" / "best.safetensors"
        way = f"from its weights with {typed('initial_weights', best)}"
        raise ConfigError(
            f"{run.folder} was run with another config ({'; '.join(changed)}), which cannot change "
            "on resume; leave those options out, or begin a new run "
            + (way if best.exists() else "in another hydra.run.dir")
        )
