"""What is said on the terminal, which may be closed by then: no run is lost for that."""

import contextlib
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

# What Python calls not printable, and is only shown: blanks, letters that it does not know yet or
# that are private, soft hyphens, and what joins letters or keeps them apart.
HARMLESS = ("Zs", "Cn", "Co")
JOINING = "\u00ad\u200c\u200d"


def printable(text: object, kept: str = "") -> str:
    """A text in which nothing has a meaning for the terminal, but for the letters ``kept``.

    A name in it is still that of its file.
    """
    return "".join(letter if _is_shown(letter) or letter in kept else " " for letter in str(text))


def _is_shown(letter: str) -> bool:
    return letter.isprintable() or letter in JOINING or unicodedata.category(letter) in HARMLESS


def say(text: str) -> None:
    """A line on standard error."""
    with contextlib.suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)


def show_line(text: str) -> None:
    """A line on standard output."""
    with contextlib.suppress(OSError):
        print(printable(text), flush=True)


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
