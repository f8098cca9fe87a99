"""``summary.json``."""

import json
import math
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from l2lgd.storage.files import write_atomically


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """``summary.json``; numbers that are not finite become null."""
    text = json.dumps(_without_nonfinite(summary), indent=2)
    write_atomically(path, (text + "\n").encode())


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {
        "l2lgd": version("l2lgd"),
        "torch": version("torch"),
        "python": platform.python_version(),
    }


def _without_nonfinite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nonfinite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nonfinite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
