"""The folder of a run, or of a sweep, is its own before anything is written there."""

import contextlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import OmegaConf, read_write
from yaml import YAMLError

from l2lgd.config.overrides import typed
from l2lgd.config.yaml_files import load_yaml
from l2lgd.errors import CheckpointError, ConfigError, Leave
from l2lgd.runs.launching import are_given
from l2lgd.runs.sweeps import SWEEP
from l2lgd.storage import locks
from l2lgd.storage.files import check_writable, sync
from l2lgd.storage.nesting import parsed
from l2lgd.system import launch

LAST = "checkpoints/last.safetensors"


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

    def on_job_start(self, config: Any, **_: Any) -> None:
        """What Hydra has written outlives a power cut."""
        if config.hydra.output_subdir is not None:
            folder = Path(config.hydra.runtime.output_dir) / config.hydra.output_subdir
            for path in folder.glob("*.yaml"):
                sync(path)

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        with _told():
            folder = _at_home(config.hydra.sweep)
            if not are_given():
                _refuse_to_sweep_over(folder)
            _take(folder)


def whence(config: Any) -> list[Path]:
    """The folders that relative paths of a job are of: where its words were first typed, and here.

    Args:
        config: Hydra's own.
    """
    here, sweep = Path(config.runtime.cwd), config.mode == RunMode.MULTIRUN
    words: Any = OmegaConf.to_container(config.overrides.task, resolve=False)
    if not sweep and not any(word.startswith("resume=") for word in words):
        return [here]
    file = Path(config.sweep.dir) / SWEEP if sweep else Path(config.run.dir) / ".hydra/hydra.yaml"
    try:
        found = parsed((here / file).read_text("utf-8")) if sweep else load_yaml(here / file)
        first = found["cwd"] if sweep else found["hydra"]["runtime"]["cwd"]
        return [Path(first), here]
    except (OSError, ValueError, LookupError, TypeError, YAMLError):
        told = None if sweep else told_by_checkpoint(here / config.run.dir)
        return [told[1], here] if told else [here]  # others have more to say about that file


def told_by_checkpoint(folder: Path) -> tuple[list[str], Path] | None:
    """The command of a run and the folder where it was typed, if a last checkpoint tells them."""
    from l2lgd.meta.state import read_last

    for last in (folder / LAST, *sorted(folder.glob(f"trial_*/{LAST}"))):
        try:
            _, about, _ = read_last(last)
            typed_in = folder.absolute() / about["typed_in"] if "typed_in" in about else Path.cwd()
            return shlex.split(about["command"]), Path(os.path.normpath(typed_in))
        except (CheckpointError, KeyError, ValueError, TypeError, AttributeError):
            continue
    return None


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
    except Exception as error:
        raise Leave(error) from error


def _take(folder: Path) -> None:
    """Make it, and hold it until this process ends."""
    with contextlib.suppress(OSError):  # what writes there is about to say so
        folder.mkdir(parents=True, exist_ok=True)
    locks.hold(folder)


def _refuse_to_overwrite(folder: Path) -> None:
    """A folder with meta-trainings in it is only touched to go on with them."""
    patterns = ("checkpoints/*.safetensors", "trial_*/checkpoints/*.safetensors")
    if any(any(folder.glob(pattern)) for pattern in patterns):
        raise ConfigError(
            f"{folder} already holds a run; go on with {typed('resume', folder)}, "
            "or choose another hydra.run.dir"
        )


def _refuse_to_sweep_over(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"hydra.sweep.dir={folder} is a file; choose another folder")
    if any(folder.glob("*/.hydra")):
        raise ConfigError(
            f"{folder} already holds a sweep; run what it has left undone with "
            f"{typed('rerun', folder)}, or choose another hydra.sweep.dir"
        )
    check_writable(folder / "sweep.json")
