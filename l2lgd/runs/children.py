"""Processes of this program, which end with it."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence

from l2lgd.errors import UserError
from l2lgd.storage.paths import as_typed
from l2lgd.system import launch


class Children:
    """Runs verbs in processes of their own, from any number of threads."""

    def __init__(self) -> None:
        self._processes: set[subprocess.Popen[str]] = set()
        self._stopped = threading.Event()

    @property
    def stopped(self) -> bool:
        """Is nothing to be begun any more?"""
        return self._stopped.is_set()

    def run(self, words: Sequence[str]) -> UserError | None:
        """Run ``l2lgd`` with these words; returns what went wrong."""
        if self._stopped.is_set():
            return UserError("interrupted")
        # HYDRA_FULL_ERROR, which this process has set for itself, asks for tracebacks.
        inherited = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
        with (
            launch.tied() as (tie, descriptors),
            subprocess.Popen(
                [sys.executable, "-m", "l2lgd", *words],
                cwd=as_typed("."),
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

    def stop(self) -> None:
        """End what runs, begin nothing more."""
        self._stopped.set()
        for process in list(self._processes):
            process.terminate()
