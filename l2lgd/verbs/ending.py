"""How a verb ends: with where its result is."""

import logging
from pathlib import Path

from l2lgd.tracking.console import shown

log = logging.getLogger(__name__)


def say_where(*results: tuple[str, Path | None]) -> None:
    """The last lines of a verb: what there is, and in which file or folder."""
    for what, path in results:
        if path is not None:
            log.info("%s: %s", what, shown(path))
