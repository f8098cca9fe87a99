"""Where packages are found that ``allow_targets=`` names."""

import sys
from collections.abc import Sequence
from pathlib import Path


def allow_packages_of(overrides: Sequence[str], folder: Path) -> None:
    """Let packages that are allowed be found in a folder, too: the working directory."""
    allowed = any(o.lstrip("+").startswith("allow_targets=") for o in overrides)
    if allowed and str(folder) not in sys.path:
        sys.path.append(str(folder))  # behind all else, or a file there could stand for it
