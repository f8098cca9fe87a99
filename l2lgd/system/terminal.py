"""What is said on the terminal, which may be closed by then: no run is lost for that."""

import contextlib
import sys
from typing import Any


def printable(text: object, kept: str = "") -> str:
    """A text in which nothing has a meaning for the terminal, but for the letters ``kept``."""
    return "".join(
        letter if letter.isprintable() or letter in kept else " " for letter in str(text)
    )


def say(text: str) -> None:
    """A line on standard error."""
    with contextlib.suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)


def show(table: Any) -> None:
    """A table of rich's on standard output."""
    from rich.console import Console

    with contextlib.suppress(OSError, SystemExit):  # rich exits where a pipe is closed
        Console(markup=False, emoji=False).print(table)  # brackets are brackets
