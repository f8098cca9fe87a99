"""``l2lgd benchmark``."""

import contextlib
import logging
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from l2lgd.benchmark.contestants import Contestant, contestants
from l2lgd.benchmark.measuring import Bench, OfTask
from l2lgd.benchmark.outcome import of_task, over_tasks
from l2lgd.benchmark.report import write
from l2lgd.benchmark.suite import BenchmarkTask, entries, in_place
from l2lgd.benchmark.tables import printed
from l2lgd.config.overrides import option, quoted
from l2lgd.config.schemas import validated
from l2lgd.errors import ConfigError, UserError
from l2lgd.results.summary import versions, write_summary
from l2lgd.runs.children import Children
from l2lgd.runs.run import own_configs
from l2lgd.storage import locks
from l2lgd.storage.files import check_writable
from l2lgd.storage.paths import as_typed, where_typed
from l2lgd.system.runtime import pick_device
from l2lgd.system.terminal import show
from l2lgd.verbs.ending import say_where

log = logging.getLogger(__name__)

LONG = 2e7  # coordinates times steps
OWN = ("tasks", "workers", "hydra.run.dir")  # options that those processes get otherwise


def benchmark(config: DictConfig) -> float:
    """Compare optimizers over tasks; returns the first one's median loss ratio to the reference.

    Raises:
        ConfigError: an option is out of range, or there is no such task or optimizer.
        UserError: a task could not be measured; what was is kept.
    """
    options = validated(config, "benchmark")
    for name in ("seeds", "trials", "tune_functions", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value}: must be at least 1")
    began = time.monotonic()
    chosen = entries(options.suite.tasks, options.tasks)
    compared = contestants(options.reference, options.optimizers)
    with in_place(chosen[0].name):
        for one in compared:
            one.check(chosen[0].options, options.allow_targets)
    folder = Path(HydraConfig.get().runtime.output_dir)
    for place in (folder, as_typed(options.results_dir), as_typed(options.tuned_dir)):
        check_writable(place / "summary.json")
    locks.hold(folder)
    with _way_on():
        found = _found(chosen, compared, options, folder)
    tasks = {one.entry.name: of_task(one, options.reference) for one in found}
    summary: dict[str, Any] = {
        "verb": "benchmark",
        "suite": HydraConfig.get().runtime.choices["suite"],
        "reference": options.reference,
        "seeds": options.seeds,
        "seed": options.seed,
        "scores": over_tasks(tasks, compared),
        "tasks": tasks,
        "command": _command(),
        "versions": versions(),
        "device": str(pick_device(options.device)),
        "seconds": time.monotonic() - began,
    }
    write_summary(folder / "summary.json", summary)
    show(printed(summary))
    left = write(folder, summary)
    say_where(*left.items(), ("run folder", folder))
    return float(summary["scores"][compared[1].name]["loss_ratio"]["median"])


def _found(
    chosen: Sequence[BenchmarkTask], compared: list[Contestant], options: Any, folder: Path
) -> list[OfTask]:
    """What was measured on each task, in this process or in one for each, some at once.

    Raises:
        UserError: there are tasks that could not be measured; all others are.
    """
    workers = options.workers or _workers(options.device)
    alone = workers == 1 or len(chosen) == 1
    found: dict[str, OfTask] = {}
    failed: dict[str, UserError] = {}

    def look(entries: Sequence[BenchmarkTask], make: bool) -> None:
        for entry in entries:
            try:
                found[entry.name] = Bench(entry, options, folder).measure(compared, make)
            except ConfigError:  # which other tasks would run into, too
                raise
            except UserError as error:
                failed[entry.name] = error
                log.warning("%s: %s", entry.name, error)

    look(chosen, make=alone)
    missing = [entry for entry in chosen if entry.name in found and found[entry.name].missing]
    missing.sort(key=lambda entry: -entry.num_steps * found[entry.name].coordinates)
    if missing:
        jobs = [job for entry in missing for job in _jobs(found[entry.name], options.reference)]
        failed |= _make(jobs, folder, workers)
        look([entry for entry in missing if entry.name not in failed], make=False)
    for name, one in found.items():
        if one.missing and name not in failed:
            failed[name] = UserError(f"results_dir={options.results_dir} lacks what was measured")
    if failed:
        name, error = next(iter(failed.items()))
        if len(chosen) == 1:
            raise error
        raise UserError(
            f"not measured: {', '.join(failed)} ({name}: {error}); all else is kept, give the same "
            "command again to go on, or leave these out of tasks="
        )
    return [found[entry.name] for entry in chosen]


class Measuring(NamedTuple):
    """What a process measures."""

    task: str
    optimizers: list[str] | None = None  # None for all

    @property
    def name(self) -> str:
        return self.task if self.optimizers is None else f"{self.task}, {self.optimizers[0]}"

    def words(self, folder: Path) -> list[str]:
        """Options of ``benchmark``."""
        one = "" if self.optimizers is None else Path(self.optimizers[0]).stem
        found = [
            f"tasks=[{self.task}]",
            option("hydra.run.dir", folder / "tasks" / self.task / one),
        ]
        if self.optimizers is not None:
            found.append(f"optimizers=[{','.join(quoted(name) for name in self.optimizers)}]")
        return found


def _jobs(task: OfTask, reference: str) -> list[Measuring]:
    """One for a task; one for each optimizer where that takes long and the reference is known."""
    lacking = [name for name, found in task.measured.items() if found is None]
    if reference in lacking or task.coordinates * task.entry.num_steps < LONG:
        return [Measuring(task.entry.name)]
    return [Measuring(task.entry.name, [name]) for name in lacking]


def _make(jobs: Sequence[Measuring], folder: Path, workers: int) -> dict[str, UserError]:
    """Have processes measure, so many at once; returns what went wrong, by task."""
    given = [word for word in _given() if word.partition("=")[0] not in OWN]
    words = ["benchmark", *given, "workers=1"]
    children, began = Children(), time.monotonic()
    failed: dict[str, UserError] = {}
    log.info("%d measurements to make, %d at once", len(jobs), min(workers, len(jobs)))
    with ThreadPoolExecutor(workers) as pool:
        try:
            running = {pool.submit(children.run, [*words, *job.words(folder)]): job for job in jobs}
            for done, future in enumerate(as_completed(running), 1):
                job, error = running[future], future.result()
                minutes = (time.monotonic() - began) / 60
                where = f"{done} of {len(jobs)}, {minutes:.1f} minutes"
                if error is None:
                    log.info("%s: measured (%s)", job.name, where)
                else:
                    failed[job.task] = error
                    log.warning("%s: %s (%s)", job.name, error, where)
        except BaseException:
            children.stop()
            raise
    return failed


def _given() -> list[str]:
    """The words after the verb."""
    return [*own_configs(where_typed()), *HydraConfig.get().overrides.task]


def _command() -> str:
    return shlex.join(["l2lgd", "benchmark", *_given()])


@contextlib.contextmanager
def _way_on() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_command()) from None  # what was measured is kept


def _workers(device: str) -> int:
    if pick_device(device).type != "cpu":
        return 1
    return max(1, len(os.sched_getaffinity(0)))
