"""A run's folder is its own, before Hydra writes anything there."""

import contextlib
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback

from l2lgd import launch, locks
from l2lgd.errors import ConfigError, Leave


class RunFolder(Callback):
    """Hydra's callback: takes the folder for this process, or ends it."""

    def on_run_start(self, config: Any, **_: Any) -> None:
        if launch.rank():
            return
        HydraConfig.instance().set_config(config)  # for what the folder's name refers to
        folder = Path(config.hydra.run.dir)
        with contextlib.suppress(OSError):  # Hydra is about to say so
            folder.mkdir(parents=True, exist_ok=True)
        try:
            locks.hold(folder)
            if config.get("resume") is None:
                _refuse_to_overwrite(folder)
        except ConfigError as error:  # Hydra would make a warning of it
            raise Leave(error) from error


def _refuse_to_overwrite(folder: Path) -> None:
    """A folder with a meta-training in it is only touched to go on with it."""
    if any(folder.glob("checkpoints/*.safetensors")):
        raise ConfigError(
            f"{folder} already holds a run; go on with resume={folder}, "
            "or choose another hydra.run.dir"
        )
