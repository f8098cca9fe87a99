"""What is said on the terminal, which may be closed by then: no run is lost for that."""

import contextlib
import sys
from typing import Any


def say(text: str) -> None:
    """A line on standard error, in which nothing has a meaning for the terminal."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def show(table: Any) -> None:
    """A table of rich's on standard output."""
    from rich.console import Console

    with contextlib.suppress(OSError, SystemExit):  # rich exits where a pipe is closed
        Console().print(table)
