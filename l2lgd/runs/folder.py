"""The folder of a run, or of a sweep, is its own before anything is written there."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback

from l2lgd.errors import ConfigError, Leave
from l2lgd.storage import locks
from l2lgd.system import launch


class RunFolder(Callback):
    """Hydra's callback: takes the folder for this process, or ends it."""

    def on_run_start(self, config: Any, **_: Any) -> None:
        if launch.rank():
            return
        HydraConfig.instance().set_config(config)  # for what the folder's name refers to
        folder = Path(config.hydra.run.dir)
        with _told():
            _take(folder)
            if config.get("resume") is None:
                _refuse_to_overwrite(folder)

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        with _told():
            _take(Path(config.hydra.sweep.dir))


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
