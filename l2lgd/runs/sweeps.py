"""Sweeps (``--multirun``): what every job leaves behind, the ranking, and what to run again.

Hydra's launchers run the jobs; here is what they tell. A sweep's folder has ``sweep.json`` with
the overrides of each job, every job's folder a ``job.json`` that says how it ended, if it did.
"""

import functools
import itertools
import json
import os
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import OmegaConf

from l2lgd.config.overrides import quoted
from l2lgd.errors import ConfigError, one_line
from l2lgd.runs.launching import Jobs, overhear
from l2lgd.storage.files import write_atomically
from l2lgd.storage.nesting import parsed
from l2lgd.system import launch

SWEEP, JOB, TRACEBACK = "sweep.json", "job.json", "error.txt"
ASIDE = ".before_"  # in the names of folders that made room
started: list[Path] = []  # folders of the sweeps that this process has begun


@dataclass
class Job:
    """One job of a sweep.

    Args:
        number: also of its folder.
        overrides: its options.
        of_hydra: those of Hydra itself that it has for itself.
        status: completed, failed or unfinished.
        value: what it reached, lower is better.
        error: in one line.
    """

    number: int
    overrides: list[str]
    folder: Path
    status: str = "unfinished"
    value: float | None = None
    seconds: float | None = None
    error: str = ""
    begun: bool = False  # has it ever been?
    of_hydra: list[str] = field(default_factory=list)

    @property
    def options(self) -> dict[str, str]:
        pairs = (override.lstrip("+").partition("=") for override in self.overrides)
        return {name: value for name, _, value in pairs}


@dataclass
class Sweep:
    """All jobs of a sweep, as far as they are."""

    folder: Path
    verb: str
    overrides: list[str]  # of Hydra itself, such as the launcher, after flags
    jobs: list[Job]

    @classmethod
    def read(cls, folder: Path) -> "Sweep":
        """What the folder of a sweep says.

        Raises:
            ConfigError: there is none, or it cannot be read.
        """
        file, way_out = folder / SWEEP, ""
        try:
            plan = parsed(file.read_text("utf-8"))
            planned = [[str(override) for override in own] for own in plan["jobs"]]
            own_hydra = plan.get("hydra_of_jobs") or [[] for _ in planned]  # not of versions before
            jobs = [
                Job(k, own, folder / str(k), of_hydra=of_hydra)
                for k, (own, of_hydra) in enumerate(zip(planned, own_hydra, strict=True))
            ]
            _check_words(plan["hydra"], *(job.of_hydra for job in jobs))
            _check_jobs(jobs)
            way_out = "; without that file, its job is run again"
            for file in folder.rglob(JOB):
                if ASIDE not in file.parent.name:
                    found = parsed(file.read_text("utf-8"))
                    number = found.pop("job")
                    if number not in range(len(jobs)):
                        raise ValueError(f"there is no job {number}")
                    found["of_hydra"] = jobs[number].of_hydra
                    jobs[number] = Job(number, folder=file.parent, begun=True, **found)
                    _check_jobs([jobs[number]])
            return cls(folder, plan["verb"], plan["hydra"], jobs)
        except FileNotFoundError as error:
            raise ConfigError(f"{folder}: there is no sweep in that folder (no {SWEEP})") from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ConfigError(f"{file} cannot be read: {one_line(error)}{way_out}") from error

    def ranked(self) -> list[Job]:
        """Those that have reached something, best first, then the others."""

        def rank(job: Job) -> tuple[bool, float]:
            known = job.value is not None and job.value == job.value
            return not known, job.value if known and job.value is not None else 0.0

        return sorted(self.jobs, key=rank)

    def left(self) -> list[Job]:
        """What failed or did not end."""
        return [job for job in self.jobs if job.status != "completed"]

    def swept(self) -> list[str]:
        """The options in which jobs differ."""
        names = dict.fromkeys(name for job in self.jobs for name in job.options)
        return [n for n in names if len({job.options.get(n) for job in self.jobs}) > 1]


def _check_words(*lists: object) -> None:
    """Raise ValueError for what no sweep has written: files may have been changed."""
    for words in lists:
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"{words} are no options")


def _check_jobs(jobs: Sequence[Job]) -> None:
    _check_words(*(job.overrides for job in jobs))
    for job in jobs:
        for word in job.overrides:
            if _of_hydra(word):
                raise ValueError(f"{word} is no option of a job")


class SweepRecord(Callback):
    """Hydra's callback: has jobs written to ``sweep.json`` before they are run, ``job.json`` when
    they end.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._process = os.getpid()  # of the sweep; launchers hand this object to their workers

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        started.append(folder)
        overhear(folder, functools.partial(_write_plan, config))

    def on_job_start(self, config: Any, **_: Any) -> None:
        self._began = time.monotonic()
        if not _swept(config):
            return
        launch.end_with(self._process)
        folder = Path(config.hydra.runtime.output_dir)
        if (folder / JOB).exists():  # the job is run again, and keeps its number
            number = json.loads((folder / JOB).read_text("utf-8"))["job"]
            _renumber(number)
        else:
            write_job(folder, config.hydra.job.num, config.hydra.overrides.task)

    def on_job_end(self, config: Any, job_return: Any, **_: Any) -> None:
        if not _swept(config):
            return
        folder = Path(config.hydra.runtime.output_dir)
        found = json.loads((folder / JOB).read_text("utf-8"))
        try:
            found |= {"status": "completed", "value": job_return.return_value}
            found.pop("error", None)  # of an earlier attempt
        except Exception as error:  # whatever ended the job
            found |= {"status": "failed", "error": _explained(error, folder)}
        found["seconds"] = round(time.monotonic() - self._began, 3)
        write_atomically(folder / JOB, json.dumps(found, indent=1).encode())


def _write_plan(config: Any, jobs: Jobs) -> None:
    sources = config.hydra.runtime.config_sources
    flags = [f"--config-dir={s.path}" for s in sources if s.provider == "command-line"]
    of_hydra: Any = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
    own = [override for override in of_hydra if not _of_folders(override)]
    plan = {
        "verb": config.hydra.job.name,
        "hydra": [*flags, *own],
        "jobs": [[word for word in job if not _of_hydra(word)] for job in jobs],
        "hydra_of_jobs": [[word for word in job if _of_hydra(word)] for job in jobs],
        "cwd": config.hydra.runtime.cwd,  # that relative paths of its jobs are of
    }
    write_atomically(Path(config.hydra.sweep.dir) / SWEEP, json.dumps(plan, indent=1).encode())


def _renumber(number: int) -> None:
    """Let ``${hydra:job.num}`` be what it was."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import read_write

    config: Any = HydraConfig.get()
    with read_write(config):
        config.job.num = number


def write_job(folder: Path, number: int, overrides: Sequence[str]) -> None:
    """Note a job of which nothing more is known yet."""
    found = {"job": number, "overrides": list(overrides), "status": "unfinished"}
    write_atomically(folder / JOB, json.dumps(found, indent=1).encode())


def _swept(config: Any) -> bool:
    from hydra.types import RunMode

    return bool(config.hydra.mode == RunMode.MULTIRUN)


def again(sweep: Sweep, changes: Sequence[str]) -> list[list[str]]:
    """The overrides of all jobs that are left, each in the folder that it had.

    Args:
        changes: further overrides, for all of them.
    """
    jobs = []
    for job in sweep.left():
        where = job.folder.relative_to(sweep.folder).as_posix()
        jobs.append(
            [*job.overrides, *job.of_hydra, *changes, f"hydra.sweep.subdir={quoted(where)}"]
        )
    return jobs


def begin_again(sweep: Sweep, changes: Sequence[str]) -> None:
    """Before they are run: without changes, a meta-training goes on where it was; with some it
    begins anew, and its folder is moved aside.
    """
    for job in sweep.left():
        if changes and job.folder.exists():
            _move_aside(job.folder)
        write_job(job.folder, job.number, [*job.overrides, *changes])


def _move_aside(folder: Path) -> None:
    places = (folder.with_name(f"{folder.name}{ASIDE}{k}") for k in itertools.count(1))
    folder.rename(next(place for place in places if not place.exists()))


def _of_hydra(override: str) -> bool:
    return override.lstrip("+~").startswith("hydra")


def _of_folders(override: str) -> bool:
    return override.lstrip("+").startswith(("hydra.sweep.dir=", "hydra.mode="))


def _explained(error: Exception, folder: Path) -> str:
    """In one line; the whole traceback of a defect goes to a file."""
    from l2lgd.config.messages import explanation

    known = explanation(error)
    if known is not None:
        return known
    text = "".join(traceback.format_exception(error))
    write_atomically(folder / TRACEBACK, text.encode())
    return f"{type(error).__name__}: {one_line(error)} ({folder / TRACEBACK})"
