"""Tuned learning rates, found again by what they depend on."""

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l2lgd.errors import UserError
from l2lgd.evaluation.rate_search import Search
from l2lgd.storage.files import write_atomically
from l2lgd.storage.nesting import parsed

log = logging.getLogger(__name__)


class TunedRates:
    """Learning rates found earlier: those shipped with the package, and the user's own.

    A rate belongs to a key: the task, its data, the optimizer, the number of steps and how the
    search was done. Anything else is tuned anew.
    """

    def __init__(self, shipped: Path, own: Path) -> None:
        self._shipped, self._own = shipped, own

    def find(self, key: Mapping[str, Any]) -> Search | None:
        """The stored search of a key."""
        for folder in (self._own, self._shipped):
            path = folder / file_name(key)
            try:
                stored = parsed(path.read_text(encoding="utf-8"))
                trials = [
                    (float(rate), math.inf if loss is None else float(loss))
                    for rate, loss in stored["search"]
                ]
                if not any(math.isfinite(loss) for _, loss in trials):
                    raise ValueError("no rate with a finite loss")
                return Search(tuple(trials))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("ignoring the unreadable tuning result %s (%s)", path, error)
        return None

    def shipped_for(self, task_name: str, optimizer_name: str) -> float | None:
        """The rate shipped for a task, whatever its data, for want of one of the very same key."""
        found = sorted(self._shipped.glob(f"{task_name}-{optimizer_name}-*.json"))
        if not found:
            return None
        return float(json.loads(found[0].read_text(encoding="utf-8"))["learning_rate"])

    def store(
        self, key: Mapping[str, Any], search: Search, about: Mapping[str, Any]
    ) -> Path | None:
        """Keep a search, returns its file; where that is not possible, say so and go on."""
        content = {
            **about,
            "learning_rate": search.best_rate,
            "validation_loss": search.best_loss,
            "search": [[rate, f if math.isfinite(f) else None] for rate, f in search.trials],
            "key": dict(key),
        }
        path = self._own / file_name(key)
        try:
            write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
        except UserError as error:
            log.warning("the tuned learning rate is not kept for next time: %s", error)
            return None
        return path


def file_name(key: Mapping[str, Any]) -> str:
    """Where what belongs to a key is kept, in whatever folder."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    name = f"{key['task_name']}-{key['optimizer_name']}-{digest[:12]}.json"
    return name.replace("/", "-").replace("\\", "-")  # those of one's own may be in folders
