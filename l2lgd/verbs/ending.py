"""How a verb ends: with a picture, which may fail, and with where its result is."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from l2lgd.errors import one_line

log = logging.getLogger(__name__)


def drawn(path: Path, draw: Callable[[Path], None]) -> Path | None:
    """The picture, or None with a warning: no result is lost for a picture."""
    try:
        draw(path)
    # Anything: fonts, settings of the user's and the numbers themselves have all been the cause.
    except Exception as error:
        log.warning("%s is not drawn: %s", path.name, one_line(error))
        return None
    return path


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
