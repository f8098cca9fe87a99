"""Reading ``metrics.jsonl``: of a run to go on with, and of one to draw."""

import json
import logging
import math
from pathlib import Path

log = logging.getLogger(__name__)


def lines_up_to(path: Path, step: int) -> list[str]:
    """Whole lines of an earlier run up to a step; what a crash left at the end is dropped.

    What is damaged further up, or missing, is left out with a warning.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    kept, damaged, lost, reached, missing = [], 0, 0, 0, 0
    for line in lines:
        try:
            found = int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            damaged += bool(line.strip())
            continue
        if found > step:
            continue
        kept.append(line)
        missing += max(0, found - reached - 1)
        reached, lost = found, damaged  # those before this line
    if lost:
        log.warning("%s: %d damaged lines are left out", path, lost)
    if missing:
        log.warning("%s: %d steps are missing", path, missing)
    if reached < step:
        log.warning("%s ends at step %d; what came until step %d is lost", path, reached, step)
    return kept


def series(path: Path, *names: str) -> dict[str, list[tuple[int, float]]]:
    """By name, the values (step, value) of a run; NaN for what was not finite.

    Damaged lines are left out.
    """
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line)
            for name in found.keys() & record.keys():
                value = record[name]
                found[name].append((int(record["step"]), math.nan if value is None else value))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
    return found
