"""The evaluations that figures show: what is missing or out of date is made, the rest is kept.

Each is an ``l2lgd evaluate`` of its own, in a folder of its own. One that was interrupted goes on
with the optimizers that it had finished.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from l2lgd.config.overrides import option, quoted
from l2lgd.errors import CheckpointError, UserError
from l2lgd.figures.base import Evaluated, Evaluation
from l2lgd.figures.schedule import Schedule, about, expected_seconds
from l2lgd.pretrained.weights import SHIPPED
from l2lgd.results.losses import FILE, read
from l2lgd.results.summary import versions
from l2lgd.runs.children import Children
from l2lgd.storage.files import write_atomically
from l2lgd.storage.nesting import parsed
from l2lgd.tracking.console import Bars, can_draw

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]
PICTURES = ("results/axes.py", "results/captions.py", "results/plots.py", "config/titles.py")
NO_RESULTS = ("cli", "figures", "tracking", *PICTURES, "conf")  # no number depends on them
CONFIG = (
    "evaluate.yaml",
    "task",
    "opt",
    "estimator",
    "unroll",
    "logger",
)  # of conf/, what evaluations read
STAMP = "made_of.json"
BASELINES = "baselines"  # in the stamp


@dataclass(frozen=True)
class Plan:
    """How evaluations are made.

    Args:
        folder: of their folders.
        functions: by size, how many functions.
        options: that all of them get.
        art_options: that those of neural art get too.
        reuse: folders of earlier evaluations.
        weights_dir: folder of trained weights; None for the shipped ones.
        workers: how many at once.
        data_dir: where data sets are.
        inputs: files that evaluations read besides.
    """

    folder: Path
    functions: Mapping[str, int]
    options: Sequence[str]
    art_options: Sequence[str]
    reuse: Sequence[Path]
    weights_dir: Path | None
    workers: int
    data_dir: Path
    inputs: Sequence[Path] = ()

    def options_of(self, evaluation: Evaluation) -> list[str]:
        """Its overrides, all but its baselines, and where losses are taken from and kept."""
        art = self.art_options if evaluation.size == "neural_art" else ()
        count = f"num_functions={self.functions[evaluation.size]}"
        return [*evaluation.options, count, *self.options, *art]

    def folder_of(self, evaluation: Evaluation) -> Path:
        return self.folder / f"{evaluation.name}-{self.functions[evaluation.size]}"


class Evaluations:
    """Makes those of a plan.

    Args:
        quiet: no progress bar, as in a sweep.
    """

    def __init__(self, plan: Plan, quiet: bool = False) -> None:
        self.plan, self._quiet = plan, quiet
        self._code = _digest_of(
            path
            for path in sorted(PACKAGE.rglob("*"))
            if path.suffix in (".py", ".cpp")
            and not path.relative_to(PACKAGE).as_posix().startswith(NO_RESULTS)
        )
        found = [SHIPPED] if plan.weights_dir is None else [SHIPPED / "tuned", plan.weights_dir]
        config = Path(str(files("l2lgd.conf")))
        self._inputs = _digest_of(
            path
            for folder in (*found, *(config / part for part in CONFIG), *plan.inputs)
            for path in ([folder] if folder.is_file() else sorted(folder.rglob("*")))
            if path.is_file()
        )
        self._children = Children()

    def make(self, wanted: Iterable[Evaluation]) -> dict[str, Evaluated | UserError]:
        """By name, each of them, or why it could not be made."""
        wanted = united(wanted)
        missing = [one for one in wanted if not self._is_current(one)]
        failed = self._make(missing, len(wanted)) if missing else {}
        return {
            one.name: failed.get(one.name) or Evaluated(self.plan.folder_of(one)) for one in wanted
        }

    def _make(self, missing: Sequence[Evaluation], wanted: int) -> dict[str, UserError]:
        """Make them, and tell how far it is; returns those that failed."""
        expected = {
            one.name: expected_seconds(one, self.plan.functions[one.size]) for one in missing
        }
        schedule = Schedule(expected, self.plan.workers)
        left = about(schedule.seconds_left())
        log.info("%d of %d evaluations to make, %s", len(missing), wanted, left)
        bar = None
        if not self._quiet and can_draw():
            bar = Bars(("evaluations",), seconds_left=schedule.seconds_left)
        failed: dict[str, UserError] = {}

        def show() -> None:
            if bar is not None:
                note = ", ".join(schedule.under_way())
                bar.update(0, schedule.done(), len(missing), note=note)

        def made(one: Evaluation) -> UserError | None:
            if self._children.stopped:
                return UserError("interrupted")
            schedule.begin(one.name)
            log.info("%s: being evaluated", one.name)
            show()
            return self._made(one)

        with ThreadPoolExecutor(self.plan.workers) as pool:
            try:
                running = {pool.submit(made, one): one for one in missing}
                for future in as_completed(running):
                    name, error = running[future].name, future.result()
                    schedule.end(name, error is not None)
                    show()
                    if error is None:
                        rest = schedule.seconds_left()
                        left = f"; {about(rest)} left" if schedule.done() < len(missing) else ""
                        done = f"{schedule.done()} of {len(missing)}"
                        log.info("%s: evaluated (%s%s)", name, done, left)
                    else:
                        failed[name] = error
                        log.warning("%s: %s", name, error)
            except BaseException:
                self._children.stop()
                raise
            finally:
                if bar is not None:
                    bar.stop()
        return failed

    def stamp(self, evaluation: Evaluation) -> dict[str, Any]:
        """What it depends on, and which optimizers it has."""
        return {
            BASELINES: list(evaluation.shown()),
            "code": self._code,
            "inputs": self._inputs,
            "options": self.plan.options_of(evaluation),
            "data_dir": str(self.plan.data_dir),
            "versions": versions(),
        }

    def _kept_stamp(self, evaluation: Evaluation) -> dict[str, Any]:
        try:
            text = (self.plan.folder_of(evaluation) / STAMP).read_text(encoding="utf-8")
            found: dict[str, Any] = parsed(text)
        except (OSError, ValueError):
            return {}
        return found

    def _has_made(self, evaluation: Evaluation, but: Sequence[str] = ()) -> bool:
        """Is it there, from what it depends on now, with all of its optimizers or all ``but``?"""
        kept, stamp = self._kept_stamp(evaluation), self.stamp(evaluation)
        missing = set(stamp.pop(BASELINES)) - set(kept.pop(BASELINES, ()))
        done = (self.plan.folder_of(evaluation) / "summary.json").is_file()
        return done and kept == stamp and missing <= set(but)

    def _is_current(self, evaluation: Evaluation) -> bool:
        folder = self.plan.folder_of(evaluation)
        if not self._has_made(evaluation):
            return False
        try:
            read(folder)
        except CheckpointError as error:
            log.warning("%s: evaluated again, as %s", evaluation.name, error)
            (folder / FILE).unlink(missing_ok=True)
            return False
        return True

    def _made(self, evaluation: Evaluation) -> UserError | None:
        """Make one; returns what went wrong."""
        kept = self._kept_stamp(evaluation)
        if self._has_made(evaluation, but=evaluation.baselines):  # only some optimizers are missing
            evaluation = evaluation.showing({*evaluation.shown(), *kept[BASELINES]})
        folder, stamp = self.plan.folder_of(evaluation), self.stamp(evaluation)
        if any(kept.get(key) != stamp[key] for key in ("code", "versions")):
            shutil.rmtree(folder, ignore_errors=True)
        (folder / "summary.json").unlink(missing_ok=True)
        write_atomically(folder / STAMP, json.dumps(stamp, indent=1).encode())
        earlier = [*self.plan.reuse, *([folder] if (folder / FILE).is_file() else [])]
        baselines = f"baselines=[{','.join(evaluation.shown())}]"
        options = [*self.plan.options_of(evaluation), baselines, option("hydra.run.dir", folder)]
        if earlier:
            options.append(f"reuse=[{','.join(quoted(path) for path in earlier)}]")
        return self._children.run(["evaluate", *options])


def united(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Each name once, with the optimizers that any of those of this name needs."""
    found: dict[str, Evaluation] = {}
    for one in evaluations:
        other = found.get(one.name, one)
        found[one.name] = one.showing({*one.shown(), *other.shown()})
    return list(found.values())


def _digest_of(paths: Any) -> str:
    """A hash of names and contents."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.name.encode())
        found.update(path.read_bytes())
    return found.hexdigest()[:16]
