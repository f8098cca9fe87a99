"""The evaluations that figures show: what is missing or out of date is made, the rest is kept.

Each is an ``l2lgd evaluate`` of its own, in a folder of its own. One that was interrupted goes on
with the optimizers that it had finished.
"""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from l2lgd.errors import CheckpointError, UserError
from l2lgd.figures.base import Evaluated, Evaluation
from l2lgd.pretrained.weights import SHIPPED
from l2lgd.results.losses import FILE, read
from l2lgd.results.summary import versions
from l2lgd.storage.files import write_atomically
from l2lgd.system import launch

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]
NO_RESULTS = (
    "figures",
    "cli.py",
    "arguments.py",
    "help.py",
    "explanations.py",
    "plotting.py",
    "conf",
)
CONFIG = ("evaluate.yaml", "task", "opt", "unroll", "logger")  # of conf/, what evaluations read
STAMP = "made_of.json"


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
        """Its overrides, all but those that say where losses are taken from and kept."""
        art = self.art_options if evaluation.size == "neural_art" else ()
        count = f"num_functions={self.functions[evaluation.size]}"
        return [*evaluation.options, count, *self.options, *art]

    def folder_of(self, evaluation: Evaluation) -> Path:
        return self.folder / f"{evaluation.name}-{self.functions[evaluation.size]}"


class Evaluations:
    """Makes those of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._code = _digest_of(
            path
            for path in sorted(PACKAGE.rglob("*"))
            if path.suffix in (".py", ".cpp")
            and path.relative_to(PACKAGE).parts[0] not in NO_RESULTS
        )
        found = [SHIPPED] if plan.weights_dir is None else [SHIPPED / "tuned", plan.weights_dir]
        config = Path(str(files("l2lgd.conf")))
        self._inputs = _digest_of(
            path
            for folder in (*found, *(config / part for part in CONFIG), *plan.inputs)
            for path in ([folder] if folder.is_file() else sorted(folder.rglob("*")))
            if path.is_file()
        )
        self._processes: set[subprocess.Popen[str]] = set()
        self._stopped = threading.Event()

    def make(self, wanted: Sequence[Evaluation]) -> dict[str, Evaluated | UserError]:
        """By name, each of them, or why it could not be made."""
        missing = [one for one in wanted if not self._is_current(one)]
        if missing:
            log.info("%d of %d evaluations to make", len(missing), len(wanted))
        failed: dict[str, UserError] = {}
        with ThreadPoolExecutor(self.plan.workers) as pool:
            try:
                results = pool.map(self._made, missing)
                for done, (one, error) in enumerate(zip(missing, results, strict=True), 1):
                    if error is None:
                        log.info("%s: evaluated (%d of %d)", one.name, done, len(missing))
                    else:
                        failed[one.name] = error
                        log.warning("%s: %s", one.name, error)
            except BaseException:
                self._stop()
                raise
        return {
            one.name: failed.get(one.name) or Evaluated(self.plan.folder_of(one)) for one in wanted
        }

    def _stop(self) -> None:
        """End what runs, begin nothing more."""
        self._stopped.set()
        for process in list(self._processes):
            process.terminate()

    def stamp(self, evaluation: Evaluation) -> dict[str, Any]:
        """What it depends on."""
        return {
            "code": self._code,
            "inputs": self._inputs,
            "options": self.plan.options_of(evaluation),
            "data_dir": str(self.plan.data_dir),
            "versions": versions(),
        }

    def _kept_stamp(self, evaluation: Evaluation) -> dict[str, Any]:
        try:
            text = (self.plan.folder_of(evaluation) / STAMP).read_text(encoding="utf-8")
            found: dict[str, Any] = json.loads(text)
        except (OSError, ValueError):
            return {}
        return found

    def _is_current(self, evaluation: Evaluation) -> bool:
        folder = self.plan.folder_of(evaluation)
        done = (folder / "summary.json").is_file()
        if not done or self._kept_stamp(evaluation) != self.stamp(evaluation):
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
        if self._stopped.is_set():
            return UserError("interrupted")
        folder, stamp = self.plan.folder_of(evaluation), self.stamp(evaluation)
        kept = self._kept_stamp(evaluation)
        if any(kept.get(key) != stamp[key] for key in ("code", "versions")):
            shutil.rmtree(folder, ignore_errors=True)
        (folder / "summary.json").unlink(missing_ok=True)
        write_atomically(folder / STAMP, json.dumps(stamp, indent=1).encode())
        earlier = [*self.plan.reuse, *([folder] if (folder / FILE).is_file() else [])]
        options = [*self.plan.options_of(evaluation), f"hydra.run.dir={folder}"]
        if earlier:
            options.append(f"reuse=[{','.join(str(path) for path in earlier)}]")
        command = [sys.executable, "-m", "l2lgd", "evaluate", *options]
        # HYDRA_FULL_ERROR, which this process has set for itself, asks for tracebacks.
        inherited = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
        with (
            launch.tied() as (tie, descriptors),
            subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=inherited | tie | {"OMP_WAIT_POLICY": "passive"},  # not to wait for each other
                pass_fds=descriptors,
            ) as process,
        ):
            self._processes.add(process)
            _, errors = process.communicate()
            self._processes.discard(process)
        if process.returncode == 0:
            return None
        said = errors.strip().splitlines() or [f"exit status {process.returncode}"]
        return UserError(said[-1].removeprefix("l2lgd: "))


def _digest_of(paths: Any) -> str:
    """A hash of names and contents."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.name.encode())
        found.update(path.read_bytes())
    return found.hexdigest()[:16]
