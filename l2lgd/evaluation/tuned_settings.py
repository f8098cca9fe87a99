"""Searches of spaces, kept by what they depend on; a search that was broken off goes on."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from l2lgd.errors import UserError
from l2lgd.evaluation.space_search import RATE, SpaceSearch, Trial
from l2lgd.evaluation.tuned_rates import file_name
from l2lgd.storage.files import write_atomically
from l2lgd.storage.nesting import parsed

log = logging.getLogger(__name__)


class TunedSettings:
    """Those shipped with the package, and the user's own.

    Args:
        shipped, own: folders; what is found anew is kept in the second.
    """

    def __init__(self, shipped: Path, own: Path) -> None:
        self._shipped, self._own = shipped, own

    def find(self, key: Mapping[str, Any]) -> tuple[Trial, ...]:
        """The trials of a key, which are fewer than it says where a search was broken off."""
        return max((self._read(folder, key) for folder in (self._own, self._shipped)), key=len)

    def _read(self, folder: Path, key: Mapping[str, Any]) -> tuple[Trial, ...]:
        path = folder / file_name(key)
        try:
            stored = parsed(path.read_text(encoding="utf-8"))
            return tuple(_trial(settings, loss) for settings, loss in stored["trials"])
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("ignoring the unreadable tuning result %s (%s)", path, error)
            return ()

    def store(
        self, key: Mapping[str, Any], trials: Sequence[Trial], about: Mapping[str, Any]
    ) -> None:
        """Keep what has been tried; where that is not possible, say so and go on."""
        best = SpaceSearch(tuple(trials)).best
        content = {
            **about,
            "settings": best.settings,
            "validation_loss": _number(best.loss),
            "trials": [[trial.settings, _number(trial.loss)] for trial in trials],
            "key": dict(key),
        }
        path = self._own / file_name(key)
        try:
            write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
        except UserError as error:
            log.warning("the trials are not kept for next time: %s", error)


def _number(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None


def _trial(settings: dict[str, Any], loss: float | None) -> Trial:
    return Trial(
        {**settings, RATE: float(settings[RATE])}, math.inf if loss is None else float(loss)
    )
