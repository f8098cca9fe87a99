"""What is said on the terminal, which may be closed by then: no run is lost for that."""

import contextlib
import sys
from typing import Any


def say(text: str) -> None:
    """A line on standard error."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def show(table: Any) -> None:
    """A table of rich's on standard output."""
    from rich.console import Console

    with contextlib.suppress(OSError):
        Console().print(table)
