"""Where numbers go while a run is under way: metrics.jsonl, the terminal, W&B."""

import contextlib
import json
import logging
import math
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

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """What the trainer tells about a run."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Named numbers at a step."""

    def progress(self, done: int, total: int, inner: int, inner_total: int, note: str = "") -> None:
        """How far the run is, and how far the trajectory inside it."""

    def steps(self, done: int, total: int) -> None:
        """How far the trajectory is, when the run is where it was."""


class NullTracker:
    """Tells nobody."""

    wandb_id: str | None = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def progress(self, done: int, total: int, inner: int, inner_total: int, note: str = "") -> None:
        pass

    def steps(self, done: int, total: int) -> None:
        pass

    def close(self) -> None:
        pass


class RunTracker:
    """``metrics.jsonl`` in the run folder is the truth; W&B mirrors it, the terminal shows it.

    Args:
        folder: the run folder.
        labels: of the outer and the inner progress bar.
        wandb: arguments for ``wandb.init``, or None.
        resume_at: keep the lines up to this step and drop later ones; None begins a new file.
        quiet: no progress bars, as in a sweep.
    """

    def __init__(
        self,
        folder: Path,
        labels: tuple[str, str],
        wandb: Mapping[str, Any] | None = None,
        resume_at: int | None = None,
        quiet: bool = False,
    ) -> None:
        self._path = folder / "metrics.jsonl"
        kept = [] if resume_at is None else _lines_up_to(self._path, resume_at)
        write_atomically(self._path, "".join(line + "\n" for line in kept).encode())
        self._file = self._path.open("a", encoding="utf-8")
        self._run = _start_wandb(wandb, folder) if wandb is not None else None
        console = Console(stderr=True)
        self._bars = _Bars(console, labels) if console.is_terminal and not quiet else None

    @property
    def wandb_id(self) -> str | None:
        """To go on with the same W&B run later."""
        return self._run.id if self._run else None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        line = {"step": step, "time": round(time.time(), 3)}
        line |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise disk_error(self._path, error) from error
        if self._run:
            self._run.log(dict(values), step=step)

    def progress(self, done: int, total: int, inner: int, inner_total: int, note: str = "") -> None:
        if self._bars:
            self._bars.update(done, total, inner, inner_total, note)

    def steps(self, done: int, total: int) -> None:
        if self._bars:
            self._bars.update_inner(done, total)

    def close(self) -> None:
        """Flush and end everything; safe to call twice."""
        if self._bars:
            self._bars.stop()
        with contextlib.suppress(OSError):  # of a line that was reported as not written
            self._file.close()
        if self._run:
            self._run.finish()
            self._run = None


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
        self._progress.update(outer_task, completed=done, total=total, **fields)
        self.update_inner(inner, inner_total)

    def update_inner(self, done: int, total: int) -> None:
        self._progress.update(self._tasks[1], completed=done, total=total)

    def stop(self) -> None:
        self._progress.stop()


def _lines_up_to(path: Path, step: int) -> list[str]:
    """Whole lines of an earlier run up to a step; a line that a crash cut short is dropped."""
    kept = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] > step:
                    break
            except (ValueError, KeyError):
                break
            kept.append(line)
    return kept


def _start_wandb(arguments: Mapping[str, Any], folder: Path) -> Any:
    """Begin a W&B run; a run must not be lost because W&B cannot be had, so None then."""
    try:
        import wandb

        settings = wandb.Settings(silent=True)
        return wandb.init(dir=str(folder), resume="allow", settings=settings, **arguments)
    # wandb raises its own and other errors when there is no login, no network or no room.
    except Exception as error:
        log.warning("W&B is off for this run: %s", error)
        return None
