"""What is said on the terminal, which may be closed by then: no run is lost for that."""

import contextlib
import sys
from typing import Any


def printable(text: object) -> str:
    """In one line, and with nothing in it that has a meaning for the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


def say(text: str) -> None:
    """A line on standard error."""
    with contextlib.suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)


def show(table: Any) -> None:
    """A table of rich's on standard output."""
    from rich.console import Console

    with contextlib.suppress(OSError, SystemExit):  # rich exits where a pipe is closed
        Console().print(table)
