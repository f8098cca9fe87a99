"""How large and how deep what a file says may be: others may have written it."""

import json
from collections.abc import Mapping
from typing import Any

LARGEST, DEEPEST = 5000, 50  # values in all, and within each other, of a config
DEEPEST_JSON = 300  # weights tell of those that they began from, and those of others


def parsed(text: str) -> Any:
    """What JSON says.

    Raises:
        ValueError: it is none, or nested too deeply.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if extent(found)[1] > DEEPEST_JSON:
        raise ValueError("it is nested too deeply")
    return found


def extent(value: Any) -> tuple[int, int]:
    """How many values there are, and how many are within each other."""
    count, depth, level = 0, 0, [value]
    while level:
        count, depth = count + len(level), depth + 1
        level = [part for whole in level for part in _parts(whole)]
    return count, depth


def _parts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []
