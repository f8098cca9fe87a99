"""Progress bars on the terminal."""

import contextlib
import logging

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

log = logging.getLogger(__name__)


class Bars:
    """Two bars on the terminal, drawn at most ten times a second."""

    def __init__(self, console: Console, labels: tuple[str, str]) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            refresh_per_second=10,
        )
        self._tasks: list[TaskID] = [
            self._progress.add_task(label, total=None, note="") for label in labels
        ]
        self._progress.start()

    def update(self, done: int, total: int, inner: int, inner_total: int, note: str) -> None:
        outer_task = self._tasks[0]
        fields = {"note": note} if note else {}
        with contextlib.suppress(OSError):  # the terminal is closed
            self._progress.update(outer_task, completed=done, total=total, **fields)
        self.update_inner(inner, inner_total)

    def update_inner(self, done: int, total: int) -> None:
        with contextlib.suppress(OSError):
            self._progress.update(self._tasks[1], completed=done, total=total)

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._progress.stop()
