"""What is said on the terminal, which may be closed by then: no run is lost for that."""

import contextlib
import sys
from collections.abc import Iterator
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
        Console(markup=False, emoji=False).print(_Printable(table))  # brackets are brackets


class _Printable:
    """What rich draws, without what the cells of a table have for the terminal."""

    def __init__(self, drawn: Any) -> None:
        self._drawn = drawn

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.segment import Segment

        for text, style, control in console.render(self._drawn, options):
            yield Segment(text if control else printable(text, kept="\n"), style, control)
