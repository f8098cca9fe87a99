"""Tortures of runs: ended at any moment, by a clock that jumps, with another process; long ones."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from torture_common import (
    COMMAND,
    LAST,
    LOSSES,
    RUN,
    Broken,
    compare,
    compiled,
    expect,
    l2lgd,
    same_benchmarks,
    same_evaluations,
    same_figures,
    same_searches,
)

from l2lgd.storage import checkpoint

STEPS_A_KILL = 100  # meta-steps that a run has for each kill, so that some are left at the end
PARTICLES = ["estimator=pes", "estimator.shortest_horizon=7"]
EVALUATION = ["task=quadratic", "task.dimension=9", "num_functions=50", "num_steps=200"]
EVALUATION += ["tune_functions=30", "logger=none", "threads=1"]
TUNING = ["task=quadratic", "task.dimension=9", "num_functions=60", "num_steps=200"]
TUNING += ["logger=none", "threads=1"]
BENCHMARK = ["tasks=[graph,quadratic_ill,quadratic_noisy]", "seeds=2", "trials=4", "workers=2"]
BENCHMARK += ["optimizers=[quadratic-lstm,untuned_adam]", "device=cpu", "tune_functions=1"]
FIGURE = ["figure=4", "scale.functions.quadratic=3", "scale.functions.mnist=1", "threads=1"]


def kills(folder: Path, times: int, draw: random.Random) -> str:
    """SIGKILL."""
    return interrupted(folder, times, draw, [signal.SIGKILL])


def particles(folder: Path, times: int, draw: random.Random) -> str:
    """SIGKILL of a meta-training by persistent evolution strategies."""
    return interrupted(folder, times, draw, [signal.SIGKILL], PARTICLES)


def signals(folder: Path, times: int, draw: random.Random) -> str:
    """What ends a process politely."""
    return interrupted(folder, times, draw, [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])


def interrupted(
    folder: Path,
    times: int,
    draw: random.Random,
    ways: Sequence[signal.Signals],
    more: Sequence[str] = (),
) -> str:
    """Interrupt a meta-training ``times`` times; in the end it is the same as one left alone."""
    options = [word.format(STEPS_A_KILL * times) for word in (*RUN, *more)]
    ran = l2lgd(folder, "meta-train", *options, "hydra.run.dir=whole")
    expect(ran.returncode == 0, ran.stderr)
    places = []
    words = [*options, "hydra.run.dir=broken"]
    for number in range(times):
        way = ways[number % len(ways)]
        places.append(interrupt(folder, words, way, draw))
        words = way_on(folder, words)
    ran = l2lgd(folder, "meta-train", *words)
    expect(ran.returncode == 0, f"the last run: {ran.stderr}")
    compare(folder / "whole", folder / "broken")
    under_way = sum(0 < place < STEPS_A_KILL * times for place in places)
    expect(under_way > 0, f"no run was under way: meta-steps {places}")
    names = ", ".join(way.name for way in ways)
    return (
        f"{times} times {names}, {under_way} of them under way (meta-steps {min(places)} to "
        f"{max(places)} of {STEPS_A_KILL * times}): weights and metrics are those of a run "
        "without a break"
    )


def way_on(folder: Path, words: Sequence[str]) -> list[str]:
    """The words that go on with a run; one that was ended before it had a config begins again."""
    known = (folder / "broken" / ".hydra" / "hydra.yaml").is_file()
    return ["resume=broken"] if known else list(words)


def interrupt(folder: Path, words: Sequence[str], way: signal.Signals, draw: random.Random) -> int:
    """Start a run, end it at a random moment; returns how far it was."""
    metrics = folder / "broken" / "metrics.jsonl"

    def state() -> tuple[int, int]:
        found = metrics.stat() if metrics.exists() else None
        return (0, 0) if found is None else (found.st_ino, found.st_size)

    before = state()
    with subprocess.Popen(
        [*COMMAND, "meta-train", *words],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=heed_signals,
    ) as process:
        if draw.random() < 0.8:  # the others are ended while they start
            while process.poll() is None and state()[0] == before[0]:
                time.sleep(0.005)
            begun = state()
            while process.poll() is None and state() == begun:
                time.sleep(0.002)
            end = lines_of(metrics) + draw.randrange(STEPS_A_KILL // 2)
            while process.poll() is None and lines_of(metrics) < end:
                time.sleep(0.002)
        else:
            time.sleep(draw.uniform(0, 3))
        process.send_signal(way)
        _, said = process.communicate(timeout=300)
    if way != signal.SIGKILL and process.returncode not in (0, -way):
        expect(process.returncode == 130, f"{way.name}: status {process.returncode}: {said}")
        expect("Traceback" not in said, said)
    return lines_of(metrics)


def lines_of(metrics: Path) -> int:
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def heed_signals() -> None:
    """Undo what nohup and shells do to processes in the background."""
    for way in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(way, signal.SIG_DFL)


def evaluations(folder: Path, times: int, draw: random.Random) -> str:
    """SIGKILL during an evaluation with rates to tune, each time begun again with its losses."""
    taken = 0

    def words(run: str) -> list[str]:
        nonlocal taken
        reused = [f"reuse=[{run}]"] if (folder / run / LOSSES).exists() else []
        taken += len(reused)
        return ["evaluate", *EVALUATION, f"tuned_dir=tuned_{run}", f"hydra.run.dir={run}", *reused]

    killed_again_and_again(folder, times, draw, words)
    same_evaluations(folder / "whole", folder / "broken")
    return f"{times} kills, {taken} times with losses to reuse: losses and rates are the same"


def tunings(folder: Path, times: int, draw: random.Random) -> str:
    """SIGKILL while rates are searched, each time begun again."""

    def words(run: str) -> list[str]:
        return ["tune", *TUNING, f"tuned_dir=tuned_{run}", f"hydra.run.dir={run}"]

    killed_again_and_again(folder, times, draw, words)
    same_searches(folder / "whole", folder / "broken")
    return f"{times} kills: rates and their trials are the same"


def drawings(folder: Path, times: int, draw: random.Random) -> str:
    """SIGKILL while a figure is evaluated and drawn, each time begun again."""

    def words(run: str) -> list[str]:
        return ["figures", *FIGURE, f"hydra.run.dir={run}"]

    killed_again_and_again(folder, times, draw, words)
    same_figures(folder / "whole", folder / "broken")
    return f"{times} kills: the pictures and their numbers are the same to the byte"


def benchmarks(folder: Path, times: int, draw: random.Random) -> str:
    """SIGKILL during a benchmark by two processes, each time begun again."""

    def words(run: str) -> list[str]:
        kept = [f"results_dir=kept_{run}", f"tuned_dir=tuned_{run}"]
        return ["benchmark", *BENCHMARK, *kept, f"hydra.run.dir={run}"]

    written: dict[Path, int] = {}

    def nothing_twice() -> None:
        for path, when in written.items():
            expect(path.stat().st_mtime_ns == when, f"{path.name} was made twice")
        files = (folder / "kept_broken").glob("*.safetensors")
        written.update({path: path.stat().st_mtime_ns for path in files})

    killed_again_and_again(folder, times, draw, words, nothing_twice)
    nothing_twice()
    same_benchmarks(folder / "whole", folder / "broken")
    return f"{times} kills: trials and losses are the same to the bit, and none was made twice"


def killed_again_and_again(
    folder: Path,
    times: int,
    draw: random.Random,
    words: Callable[[str], list[str]],
    look: Callable[[], None] = lambda: None,
) -> None:
    """A command left alone in the run folder ``whole``, and one killed at random in ``broken``.

    Args:
        look: is called after each kill.
    """
    began = time.monotonic()
    ran = l2lgd(folder, *words("whole"))
    expect(ran.returncode == 0, ran.stderr)
    took = time.monotonic() - began
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for _ in range(times):
        with subprocess.Popen(
            [*COMMAND, *words("broken")], cwd=folder, start_new_session=True, **quiet
        ) as process:
            time.sleep(draw.uniform(0.2 * took, took))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        losses = folder / "broken" / LOSSES
        if losses.exists():
            checkpoint.load(losses)
        look()
    ran = l2lgd(folder, *words("broken"))
    expect(ran.returncode == 0, ran.stderr)


def clock(folder: Path, times: int, draw: random.Random) -> str:
    """A clock that jumps by two days every few calls; the run is killed and resumed, too."""
    library = compiled(folder, CLOCK)
    words = ["meta-train", *(word.format(100) for word in RUN[:-1]), "logger=wandb"]
    ran = l2lgd(folder, *words, "hydra.run.dir=whole")
    expect(ran.returncode == 0, ran.stderr)
    os.environ["LD_PRELOAD"] = library
    try:
        words = [*words[1:], "hydra.run.dir=broken"]
        interrupt(folder, words, signal.SIGKILL, draw)
        ran = l2lgd(folder, "meta-train", *way_on(folder, words))
    finally:
        del os.environ["LD_PRELOAD"]
    expect(ran.returncode == 0, ran.stderr)
    compare(folder / "whole", folder / "broken")
    lines = (folder / "broken" / "metrics.jsonl").read_text("utf-8").splitlines()
    times_said = [json.loads(line)["time"] for line in lines]
    back = sum(after < before for before, after in pairwise(times_said))
    expect(back > 0, "the clock did not jump")
    return f"it went back {back} times: weights and metrics are those of a run without"


CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    static unsigned calls;
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(id, now);
    if (id == CLOCK_REALTIME)
        now->tv_sec += calls++ / 7 % 2 ? 86400 : -86400;
    return status;
}
"""


def rank(folder: Path, times: int, draw: random.Random) -> str:
    """One of two processes is killed: the other ends, and the run can go on."""
    options = [word.format(10**6) for word in RUN]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*torchrun, "--master-port", str(draw.randrange(20000, 40000)), "-m", "l2lgd"]
    with subprocess.Popen(
        [*command, "meta-train", *options, "hydra.run.dir=run"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as launcher:
        last = folder / "run" / LAST
        end = time.monotonic() + 120
        while not last.is_file() and time.monotonic() < end and launcher.poll() is None:
            time.sleep(0.05)
        expect(last.is_file(), "no checkpoint within two minutes")
        workers = children_of(launcher.pid)
        expect(len(workers) == 2, f"{len(workers)} processes")
        os.kill(draw.choice(workers), signal.SIGKILL)
        began = time.monotonic()
        try:
            _, said = launcher.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(launcher.pid, signal.SIGKILL)
            raise Broken("the other process goes on for more than 60 s") from None
    took = time.monotonic() - began
    expect(launcher.returncode != 0, "status 0")
    told = [line for line in said.splitlines() if line.startswith("l2lgd")]
    expect(any("; to go on: torchrun" in line for line in told), said)
    step = checkpoint.load(last)[1]["progress"]["meta_step"]
    return f"the other one ended after {took:.1f} s; a checkpoint of meta-step {step} is there"


def children_of(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(word) for word in path.read_text("ascii").split()]


def long(folder: Path, times: int, draw: random.Random) -> str:
    """Memory, open files and seconds a meta-step, in ten parts of a run."""
    from l2lgd.meta.estimators.replay import Replay
    from l2lgd.meta.schedules import Unroll
    from l2lgd.meta.trainer import MetaSettings, Trainer
    from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
    from l2lgd.system import runtime
    from l2lgd.tasks.quadratic import QuadraticTask
    from l2lgd.tracking.loggers import About
    from l2lgd.tracking.tracker import RunTracker

    marks: list[tuple[int, int, int, float]] = []
    every = max(1, times // 10)

    class Watching(RunTracker):
        def log(self, step: int, values: Any) -> None:
            super().log(step, values)
            if step % every == 0 and "meta_loss" in values:
                pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
                files = len(list(Path("/proc/self/fd").iterdir()))
                marks.append((step, pages * resource.getpagesize(), files, time.monotonic()))

    runtime.keep_freed_memory()
    runtime.set_threads(1)
    settings = MetaSettings(
        meta_steps=times,
        meta_learning_rate=0.003,
        meta_decay="constant",
        meta_clip=1.0,
        meta_average=0.9,
        num_functions=16,
        num_steps=100,
        validate_every=250,
        validation_functions=20,
        checkpoint_every=50,
    )
    tracker = Watching(About(folder, "", {}), ("", ""), quiet=True)
    with contextlib.closing(tracker):
        trainer = Trainer(QuadraticTask(), 0, tracker)
        trainer.meta_train(CoordinatewiseLSTM(), Unroll([20]), Replay(), settings, folder, {})
    _, first, files, _ = marks[0]
    growth = max(memory for _, memory, _, _ in marks) / first - 1
    parts = [after[3] - before[3] for before, after in pairwise(marks)]
    seen = [memory // 10**6 for _, memory, _, _ in marks]
    expect(growth < 0.01, f"memory grew by {growth:.2%}: {seen} MB")
    expect(all(count == files for _, _, count, _ in marks), "open files: more and more")
    return (
        f"{times} meta-steps: memory grew by {growth:.2%} of {first / 1e6:.0f} MB after the first "
        f"tenth, {files} open files throughout; the slowest tenth took "
        f"{max(parts) / min(parts):.2f} times as long as the fastest"
    )
