"""The folder of a run, or of a sweep, is its own before anything is written there."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import read_write

from l2lgd.errors import ConfigError, Leave
from l2lgd.runs.sweeps import SWEEP
from l2lgd.storage import locks
from l2lgd.system import launch


class RunFolder(Callback):
    """Hydra's callback: takes the folder for this process, or ends it."""

    def on_run_start(self, config: Any, **_: Any) -> None:
        if launch.rank():
            return
        HydraConfig.instance().set_config(config)  # for what the folder's name refers to
        with _told():
            folder = _at_home(config.hydra.run)
            _take(folder)
            if config.get("resume") is None:
                _refuse_to_overwrite(folder)

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        with _told():
            _take(_at_home(config.hydra.sweep))


def whence(config: Any) -> list[Path]:
    """The folders that relative paths of a job are of: where its words were first typed, and here.

    Args:
        config: Hydra's own.
    """
    here, sweep = Path(config.runtime.cwd), config.mode == RunMode.MULTIRUN
    if not sweep and not any(word.startswith("resume=") for word in config.overrides.task):
        return [here]
    file = Path(config.sweep.dir) / SWEEP if sweep else Path(config.run.dir) / ".hydra/hydra.yaml"
    try:
        found = yaml.safe_load((here / file).read_text("utf-8"))  # of which JSON is a part
        first = found["cwd"] if sweep else found["hydra"]["runtime"]["cwd"]
        return [Path(first), here]
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return [here]  # others have more to say about that file


def _at_home(where: Any) -> Path:
    """The folder of a run or a sweep, which begins with ``~`` where a YAML file says so."""
    if str(where.dir).startswith("~"):
        with read_write(where):
            where.dir = str(Path(where.dir).expanduser())
    return Path(where.dir)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Hydra makes warnings of a callback's errors; here they end the process."""
    try:
        yield
    except ConfigError as error:
        raise Leave(error) from error


def _take(folder: Path) -> None:
    """Make it, and hold it until this process ends."""
    with contextlib.suppress(OSError):  # what writes there is about to say so
        folder.mkdir(parents=True, exist_ok=True)
    locks.hold(folder)


def _refuse_to_overwrite(folder: Path) -> None:
    """A folder with a meta-training in it is only touched to go on with it."""
    if any(folder.glob("checkpoints/*.safetensors")):
        raise ConfigError(
            f"{folder} already holds a run; go on with resume={folder}, "
            "or choose another hydra.run.dir"
        )
