"""Where numbers go while a run is under way: metrics.jsonl, the terminal, a mirror."""

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from l2lgd.checkpoint import disk_error, write_atomically
from l2lgd.mirrors import About, Guarded, Mirror

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """What the trainer tells about a run."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Named numbers at a step."""

    def progress(self, done: int, total: int, inner: int, inner_total: int, note: str = "") -> None:
        """How far the run is, and how far the trajectory inside it."""

    def steps(self, done: int, total: int) -> None:
        """How far the trajectory is, when the run is where it was."""

    def flush(self) -> None:
        """See to it that what was logged outlives the machine."""


class NullTracker:
    """Tells nobody."""

    mirror_id: str | None = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def progress(self, done: int, total: int, inner: int, inner_total: int, note: str = "") -> None:
        pass

    def steps(self, done: int, total: int) -> None:
        pass

    def flush(self) -> None:
        pass

    def picture(self, name: str, path: Path) -> None:
        pass

    def weights(self, name: str, path: Path, metadata: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


class RunTracker:
    """``metrics.jsonl`` in the run folder is the truth; a mirror and the terminal show it.

    Args:
        about: the run; with ``resume_at``, lines up to that step are kept and later ones dropped.
        labels: of the outer and the inner progress bar.
        mirror: shows the run elsewhere.
        quiet: no progress bars, as in a sweep.
    """

    def __init__(
        self,
        about: About,
        labels: tuple[str, str],
        mirror: Mirror | None = None,
        quiet: bool = False,
    ) -> None:
        self._path = about.folder / "metrics.jsonl"
        kept = [] if about.resume_at is None else _lines_up_to(self._path, about.resume_at)
        write_atomically(self._path, "".join(line + "\n" for line in kept).encode())
        self._file = self._path.open("a", encoding="utf-8")
        self._mirror = Guarded(mirror or Mirror())
        self._mirror.tell(lambda own: own.begin(about))
        console = Console(stderr=True)
        self._bars = _Bars(console, labels) if console.is_terminal and not quiet else None

    @property
    def mirror_id(self) -> str | None:
        """To go on with the same run of the mirror later."""
        return self._mirror.id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        line = {"step": step, "time": round(time.time(), 3)}
        line |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise disk_error(self._path, error) from error
        self._mirror.tell(lambda own: own.log(step, values))

    def progress(self, done: int, total: int, inner: int, inner_total: int, note: str = "") -> None:
        if self._bars:
            self._bars.update(done, total, inner, inner_total, note)

    def steps(self, done: int, total: int) -> None:
        if self._bars:
            self._bars.update_inner(done, total)

    def flush(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise disk_error(self._path, error) from error

    def picture(self, name: str, path: Path) -> None:
        """A PNG file, for the mirror."""
        self._mirror.tell(lambda own: own.picture(name, path))

    def weights(self, name: str, path: Path, metadata: Mapping[str, Any]) -> None:
        """A file of trained weights, for the mirror."""
        self._mirror.tell(lambda own: own.weights(name, path, metadata))

    def close(self) -> None:
        """Flush and end everything; safe to call twice."""
        if self._bars:
            self._bars.stop()
        with contextlib.suppress(OSError):  # of a line that was reported as not written
            self._file.close()
        self._mirror.tell(lambda own: own.close())
        self._mirror = Guarded(Mirror())


class _Bars:
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


def _lines_up_to(path: Path, step: int) -> list[str]:
    """Whole lines of an earlier run up to a step; what a crash left at the end is dropped.

    What is damaged further up, or missing, is left out with a warning.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    kept, damaged, lost, reached, missing = [], 0, 0, 0, 0
    for line in lines:
        try:
            found = int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            damaged += bool(line.strip())
            continue
        if found > step:
            continue
        kept.append(line)
        missing += max(0, found - reached - 1)
        reached, lost = found, damaged  # those before this line
    if lost:
        log.warning("%s: %d damaged lines are left out", path, lost)
    if missing:
        log.warning("%s: %d steps are missing", path, missing)
    if reached < step:
        log.warning("%s ends at step %d; what came until step %d is lost", path, reached, step)
    return kept
