"""Where numbers go while a run is under way: metrics.jsonl, the terminal, a logger."""

import contextlib
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from l2lgd.storage.files import disk_error, write_atomically
from l2lgd.tracking.console import Bars, can_draw
from l2lgd.tracking.loggers import About, GuardedLogger, Logger
from l2lgd.tracking.metrics import lines_up_to


class Tracker(Protocol):
    """What the trainer tells about a run."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Named numbers at a step."""

    def progress(
        self, done: int, total: int, inner: int, inner_total: int, note: str | None = None
    ) -> None:
        """How far the run is, and how far the trajectory inside it; a note stays until the next."""

    def steps(self, done: int, total: int) -> None:
        """How far the trajectory is, when the run is where it was."""

    def flush(self) -> None:
        """See to it that what was logged outlives the machine."""


class NullTracker:
    """Tells nobody."""

    logger_id: str | None = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def progress(
        self, done: int, total: int, inner: int, inner_total: int, note: str | None = None
    ) -> None:
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
    """``metrics.jsonl`` in the run folder is the truth; the terminal and a logger show it.

    Args:
        about: the run; with ``resume_at``, lines up to that step are kept and later ones dropped.
        labels: of the outer and the inner progress bar.
        logger: shows the run elsewhere.
        quiet: no progress bars, as in a sweep.
        stay: whether the bars are left on the screen in the end.
    """

    def __init__(
        self,
        about: About,
        labels: tuple[str, str],
        logger: Logger | None = None,
        quiet: bool = False,
        stay: bool = True,
    ) -> None:
        self._path = about.folder / "metrics.jsonl"
        kept = [] if about.resume_at is None else lines_up_to(self._path, about.resume_at)
        write_atomically(self._path, "".join(line + "\n" for line in kept).encode())
        self._file = self._path.open("a", encoding="utf-8")
        self._logger = GuardedLogger(logger or Logger())
        self._logger.tell(lambda own: own.begin(about))
        self._bars = Bars(labels, stay) if not quiet and can_draw() else None

    @property
    def logger_id(self) -> str | None:
        """To go on with the same run of the logger later."""
        return self._logger.id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        line: dict[str, float | None] = {"step": step, "time": round(time.time(), 3)}
        line |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise disk_error(self._path, error) from error
        self._logger.tell(lambda own: own.log(step, values))

    def progress(
        self, done: int, total: int, inner: int, inner_total: int, note: str | None = None
    ) -> None:
        if self._bars:
            self._bars.update(0, done, total, note)
            self._bars.update(1, inner, inner_total)

    def steps(self, done: int, total: int) -> None:
        if self._bars:
            self._bars.update(1, done, total)

    def flush(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise disk_error(self._path, error) from error

    def stop_bars(self) -> None:
        """Leave the bars as they are; what is shown from now on is below them."""
        if self._bars:
            self._bars.stop()

    def picture(self, name: str, path: Path) -> None:
        """A PNG file, for the logger."""
        self._logger.tell(lambda own: own.picture(name, path))

    def weights(self, name: str, path: Path, metadata: Mapping[str, Any]) -> None:
        """A file of trained weights, for the logger."""
        self._logger.tell(lambda own: own.weights(name, path, metadata))

    def close(self) -> None:
        """Flush and end everything; safe to call twice."""
        self.stop_bars()
        with contextlib.suppress(OSError):  # of a line that was reported as not written
            self._file.close()
        self._logger.tell(lambda own: own.close())
        self._logger = GuardedLogger(Logger())
