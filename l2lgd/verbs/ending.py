"""How a verb ends: with where its result is."""

import logging
import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

log = logging.getLogger(__name__)


def say_where(*results: tuple[str, Path | None]) -> None:
    """The last lines of a verb: what there is, and in which file or folder."""
    for what, path in results:
        if path is not None:
            log.info("%s: %s", what, shown(path))


def shown(path: Path) -> str:
    """A path as a person types it: from the folder they are in, where it is below that."""
    here = HydraConfig.get().runtime.cwd
    below = path.is_absolute() and path.is_relative_to(here) and str(path) != here
    return os.path.relpath(path, here) if below else str(path)
