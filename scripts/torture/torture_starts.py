"""Torture of the first seconds of a run: imports, composing, compiling."""

import os
import random
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torture_common import COMMAND, RUN, expect
from torture_runs import heed_signals

from l2lgd.system import signals

WAYS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
FIRST = 3.0  # seconds in which half of the signals are sent
PATIENCE = 30.0  # seconds after which the first signal has done nothing, for want of a fast machine
AT_ONCE = 2  # runs


def starts(folder: Path, times: int, draw: random.Random) -> str:
    """A signal in the first seconds of a run, and another one where it has not ended by then."""
    whole = _took(folder)
    ends = (FIRST, max(FIRST, whole))  # half of the signals for each
    trials = [(WAYS[k % len(WAYS)], draw.uniform(0, ends[k % 2])) for k in range(times)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda k: _ended(folder / str(k), *trials[k]), range(times)))
    first = sum(number == 1 for number, _ in found)
    last = max(seconds for _, seconds in found)
    early = sum(moment < FIRST for _, moment in trials)
    return (
        f"{times} runs, a signal for each, {early} within {FIRST:.0f} s, the others until the "
        f"first meta-step ({whole:.1f} s): {first} ended by it, {times - first} by a second one, "
        f"each {last:.1f} s after it at most"
    )


def _start(folder: Path) -> subprocess.Popen[str]:
    """A run that compiles its kernel, and does not end by itself."""
    folder.mkdir()
    words = [word.format(10**6) for word in RUN]
    return subprocess.Popen(
        [*COMMAND, "meta-train", *words, "hydra.run.dir=run"],
        cwd=folder,
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )


def _took(folder: Path) -> float:
    """Seconds until the first meta-step of a run that is left alone."""
    began = time.monotonic()
    with _start(folder / "whole") as run:
        metrics = folder / "whole" / "run" / "metrics.jsonl"
        while run.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.01)
        took = time.monotonic() - began
        expect(run.poll() is None, "the run ended by itself")
        run.kill()
    return took


def _ended(folder: Path, way: signal.Signals, moment: float) -> tuple[int, float]:
    """How many signals it took, and how many seconds after the last one the run ended."""
    with _start(folder) as run:
        time.sleep(moment)
        number, began = 0, 0.0
        for patience in (PATIENCE, PATIENCE + signals.GRACE):
            number += 1
            run.send_signal(way)
            began = time.monotonic()
            try:
                _, said = run.communicate(timeout=patience)
            except subprocess.TimeoutExpired:
                continue
            break
        else:
            run.kill()
            _, said = run.communicate()
            expect(False, f"{way.name} after {moment:.2f} s, twice: the run goes on: {said}")
    what = f"{way.name} after {moment:.2f} s: status {run.returncode}: {said}"
    # While Python itself starts, it ends by the signal, or with words of its own for SIGINT.
    early = run.returncode == -way or (way == signal.SIGINT and "l2lgd/cli" not in said)
    expect(early or (run.returncode == signals.STATUS and "Traceback" not in said), what)
    shutil.rmtree(folder, ignore_errors=True)
    return number, time.monotonic() - began
