"""What is seen of a run: log lines and progress bars on one console, and the log file.

Bars stay at the bottom of the terminal while lines pass above them. That works only where both go
through the same console; so this module owns the one on standard error. A line is never cut: where
it is longer than the terminal is wide, the terminal itself wraps it.
"""

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from logging import LogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

from l2lgd.system.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn, Task

UPDATES_PER_SECOND = 10
BAR = (10, 40)  # columns, at least and at most
BESIDE_BAR = 66  # columns of label, count, time and note in a meta-training


@functools.cache
def console() -> "Console":
    """The console on standard error."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def on_terminal() -> bool:
    """Is standard error a terminal? Rich also says yes where FORCE_COLOR is set."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # it is closed
        return False


def can_draw() -> bool:
    """Can bars be drawn, and drawn again, on standard error?"""
    return on_terminal() and console().is_interactive


def shown(path: Path) -> str:
    """A path as a person types it: from the folder they are in, where it is below that."""
    from hydra.core.hydra_config import HydraConfig

    # Hydra may have changed the working directory of this process.
    here = HydraConfig.get().runtime.cwd if HydraConfig.initialized() else str(Path.cwd())
    below = path.is_absolute() and path.is_relative_to(here) and str(path) != here
    return os.path.relpath(path, here) if below else str(path)


class TerminalLog(logging.Handler):
    """Shows whole lines, above the bars where there are any. A closed terminal costs no run."""

    def emit(self, record: LogRecord) -> None:
        try:
            text = printable(self.format(record), kept="\n\t")
            with contextlib.suppress(OSError):
                self._show(text)
        except Exception:
            self.handleError(record)  # as every handler of logging's does

    def _show(self, text: str) -> None:
        if on_terminal():
            from rich.text import Text

            console().print(Text(text))
        elif sys.stderr is not None:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


class LogFile(RotatingFileHandler):
    """A bounded file that costs no run: what cannot be written is on the terminal all the same."""

    def format(self, record: LogRecord) -> str:
        return printable(super().format(record), kept="\n\t")  # terminals show files, too

    def handleError(self, record: LogRecord) -> None:
        """Leave out a line for which the disk has no room; other errors are defects."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class Bars:
    """Bars at the bottom of the terminal, a row each, drawn at most ten times a second.

    The first row also says how much time is left; in the end, how much it took.

    Args:
        labels: of the rows.
        stay: whether they are left on the screen in the end.
        seconds_left: of the first row, where its steps are too uneven to reckon that from them.
    """

    def __init__(
        self,
        labels: Sequence[str],
        stay: bool = True,
        seconds_left: Callable[[], float] | None = None,
    ) -> None:
        from rich.progress import Progress

        self._progress = Progress(
            *_columns(seconds_left),
            console=console(),
            refresh_per_second=UPDATES_PER_SECOND,
            speed_estimate_period=3600,
            transient=not stay,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )
        self._rows = [
            self._progress.add_task(label, total=None, timed=row == 0, note="")
            for row, label in enumerate(labels)
        ]
        with contextlib.suppress(OSError):  # the terminal is closed
            self._progress.start()

    def update(self, row: int, done: int, total: int, note: str | None = None) -> None:
        """How far a row is; a note, behind the bar, stays until there is another."""
        with contextlib.suppress(OSError):
            self._progress.update(self._rows[row], completed=done, total=total)
            if note is not None:
                self._progress.update(self._rows[row], note=note)

    def stop(self) -> None:
        """Draw them for the last time; safe to call twice."""
        with contextlib.suppress(OSError):
            self._progress.stop()


def _columns(seconds_left: Callable[[], float] | None) -> list["ProgressColumn"]:
    """Label, bar, count, time, note; where the terminal is narrow, bar and note give way."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class Time(TimeRemainingColumn):
        def render(self, task: "Task") -> Text:
            if not task.fields["timed"]:
                return Text()
            if seconds_left is None or task.finished:
                return super().render(task)
            left = timedelta(seconds=round(seconds_left()))
            return Text(str(left), style="progress.remaining")

    class Note(ProgressColumn):
        def render(self, task: "Task") -> Text:
            return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")

    return [
        TextColumn("{task.description}", markup=False),
        BarColumn(min(max(console().width - BESIDE_BAR, BAR[0]), BAR[1])),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        Time(elapsed_when_finished=True, table_column=Column(no_wrap=True)),
        Note(),
    ]
