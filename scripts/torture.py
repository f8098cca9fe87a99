"""Faults, many times over: runs that are killed, damaged files, full disks, bad command lines.

    python scripts/torture.py kills --times 100      # SIGKILL at random moments, each time resumed
    python scripts/torture.py signals --times 9      # SIGTERM, SIGINT and SIGHUP in the same way
    python scripts/torture.py evaluations --times 10  # SIGKILL while rates are tuned and evaluated
    python scripts/torture.py damage --times 200     # checkpoints cut short, or with a bit flipped
    python scripts/torture.py words --times 500      # mistakes on the command line
    python scripts/torture.py values --times 1000    # any value for any option
    python scripts/torture.py disk                   # a tmpfs that fills up (needs root)
    python scripts/torture.py rank                   # one of two processes under torchrun killed
    python scripts/torture.py long --times 10000     # meta-steps: memory, open files, speed

Every one prints what it has seen and exits with 1 where something does not hold. Faults come from
``--seed``; the moments of kills are those of a clock, so no two runs are quite alike.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from torture_words import TINY, VALID, any_value, lay_out, mistake, options

from l2lgd import checkpoint
from l2lgd.errors import CheckpointError

RUN = [*TINY, "meta_steps={}", "validate_every=50", "checkpoint_every=5"]
COMMAND = [sys.executable, "-m", "l2lgd"]
STEPS_A_KILL = 100  # meta-steps that a run has for each kill, so that some are left at the end
LAST, BEST = "checkpoints/last.safetensors", "checkpoints/best.safetensors"


class Broken(Exception):
    """Something that does not hold."""


def main() -> int:
    """Run one torture; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=TORTURES)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.times < 1:
        parser.error(f"--times {given.times}: must be at least 1")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        try:
            said = TORTURES[given.what](Path(folder), given.times, random.Random(given.seed))
        except Broken as broken:
            print(f"{given.what}: DOES NOT HOLD: {broken}", file=sys.stderr)
            return 1
    print(f"{given.what}: {said} ({time.monotonic() - began:.0f} s)")
    return 0


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)


def l2lgd(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command as a user gives it."""
    return subprocess.run(
        [*COMMAND, *words], cwd=folder, capture_output=True, text=True, check=False
    )


# -- runs that end at any moment ------------------------------------------------------------------


def kills(folder: Path, times: int, draw: random.Random) -> str:
    """SIGKILL."""
    return interrupted(folder, times, draw, [signal.SIGKILL])


def signals(folder: Path, times: int, draw: random.Random) -> str:
    """What ends a process politely."""
    return interrupted(folder, times, draw, [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])


def interrupted(
    folder: Path, times: int, draw: random.Random, ways: Sequence[signal.Signals]
) -> str:
    """Interrupt a meta-training ``times`` times; in the end it is the same as one left alone."""
    options = [word.format(STEPS_A_KILL * times) for word in RUN]
    ran = l2lgd(folder, "meta-train", *options, "hydra.run.dir=whole")
    expect(ran.returncode == 0, ran.stderr)
    places = []
    words = [*options, "hydra.run.dir=broken"]
    for number in range(times):
        way = ways[number % len(ways)]
        places.append(interrupt(folder, words, way, draw))
        if (folder / "broken" / ".hydra" / "hydra.yaml").is_file():
            words = ["resume=broken"]
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
            time.sleep(draw.uniform(0, 0.3))
        else:
            time.sleep(draw.uniform(0, 3))
        process.send_signal(way)
        _, said = process.communicate(timeout=60)
    # Python ends by SIGINT itself where the interruption came while it executed a string.
    if way != signal.SIGKILL and process.returncode not in (0, -way, -signal.SIGINT):
        expect(process.returncode == 130, f"{way.name}: status {process.returncode}: {said}")
        expect("Traceback" not in said, said)
    lines = metrics.read_text("utf-8").count("\n") if metrics.exists() else 0
    return lines


def heed_signals() -> None:
    """Undo what nohup and shells do to processes in the background."""
    for way in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(way, signal.SIG_DFL)


def compare(whole: Path, broken: Path) -> None:
    """Weights, moments and metrics of two runs, to the bit."""
    for name in (BEST, LAST):
        one, other = (checkpoint.load(run / name)[0] for run in (whole, broken))
        expect(one.keys() == other.keys(), f"{name} has other tensors")
        for key, tensor in one.items():
            expect(tensor.equal(other[key]), f"{name}: {key} differs")
    lines = [metrics_of(run) for run in (whole, broken)]
    expect(len(lines[0]) == len(lines[1]), f"{len(lines[1])} lines of metrics, not {len(lines[0])}")
    for one_line, other_line in zip(*lines, strict=True):
        expect(one_line == other_line, f"metrics: {other_line}, not {one_line}")


def metrics_of(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]


def evaluations(folder: Path, times: int, draw: random.Random) -> str:
    """SIGKILL during an evaluation with rates to tune, each time begun again with its losses."""
    options = [
        "task=quadratic",
        "num_functions=50",
        "tune_functions=30",
        "logger=none",
        "threads=1",
    ]
    options += ["task.dimension=9", "num_steps=200"]
    whole = [*options, "tuned_dir=tuned_whole", "hydra.run.dir=whole"]
    ran = l2lgd(folder, "evaluate", *whole)
    expect(ran.returncode == 0, ran.stderr)
    words, taken = [*options, "tuned_dir=tuned_broken", "hydra.run.dir=broken"], 0
    losses = folder / "broken" / "losses.safetensors"
    for _ in range(times):
        reused = ["reuse=[broken]"] if losses.exists() else []
        taken += len(reused)
        command = [*COMMAND, "evaluate", *words, *reused]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, cwd=folder, **quiet) as process:
            time.sleep(draw.uniform(2, 6))
            process.kill()
        if losses.exists():
            checkpoint.load(losses)
    reused = ["reuse=[broken]"] if losses.exists() else []
    ran = l2lgd(folder, "evaluate", *words, *reused)
    expect(ran.returncode == 0, ran.stderr)
    one, other = (checkpoint.load(folder / run / losses.name)[0] for run in ("whole", "broken"))
    expect(one.keys() == other.keys(), "other optimizers")
    for name, values in one.items():
        expect(values.equal(other[name]), f"the losses of {name} differ")
    rates = [
        {name: result["learning_rate"] for name, result in json.loads(text)["results"].items()}
        for text in (
            (folder / run / "summary.json").read_text("utf-8") for run in ("whole", "broken")
        )
    ]
    expect(rates[0] == rates[1], f"rates differ: {rates}")
    return f"{times} kills, {taken} times with losses to reuse: losses and rates are the same"


def rates_of(run: Path) -> dict[str, float | None]:
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    return {name: result["learning_rate"] for name, result in summary["results"].items()}


# -- damaged files --------------------------------------------------------------------------------


def damage(folder: Path, times: int, draw: random.Random) -> str:
    """Checkpoints that are cut short at any kind of place, or have a bit flipped there."""
    options = [word.format(20) for word in RUN]
    ran = l2lgd(folder, "meta-train", *options, "hydra.run.dir=run")
    expect(ran.returncode == 0, ran.stderr)
    path = folder / "run" / LAST
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    kinds = {"length": (0, 8), "header": (8, header), "tensors": (header, len(whole))}
    for number in range(times):
        kind = list(kinds)[number % len(kinds)]
        place = draw.randrange(*kinds[kind])
        if number // len(kinds) % 2:
            content, what = whole[:place], f"cut short at byte {place}"
        else:
            flipped = whole[place] ^ (1 << draw.randrange(8))
            content = whole[:place] + bytes([flipped]) + whole[place + 1 :]
            what = f"bit of byte {place} flipped"
        path.write_bytes(content)
        try:
            checkpoint.load(path)
        except CheckpointError:
            continue
        raise Broken(f"{what} ({kind}, {len(whole)} bytes): loads all the same")
    path.write_bytes(whole[:-1])
    ran = l2lgd(folder, "meta-train", "resume=run")
    expect(ran.returncode == 0 and "the one before it" in ran.stderr, ran.stderr)
    return f"{times} damaged checkpoints, all detected; with a damaged last the one before is taken"


def disk(folder: Path, times: int, draw: random.Random) -> str:
    """A disk that fills up while checkpoint, metrics and figure are written, then has room."""
    place = folder / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3M", "tmpfs", str(place)])
    expect(mounted.returncode == 0, "no tmpfs can be mounted here (needs root)")
    filler = place / "filler"
    said = []
    try:
        options = [word.format(40) for word in RUN]
        ran = l2lgd(folder, "meta-train", *options, "hydra.run.dir=whole")
        expect(ran.returncode == 0, ran.stderr)
        for left in range(0, 700_000, 700_000 // max(4, min(times, 40))):
            shutil.rmtree(place / "run", ignore_errors=True)
            filler.unlink(missing_ok=True)
            first = [word.format(40) for word in RUN]
            with filling(place, filler, left):
                ran = l2lgd(folder, "meta-train", *first, "hydra.run.dir=disk/run")
            expect("Traceback" not in ran.stderr, ran.stderr)
            if ran.returncode:
                expect(ran.returncode == 2, f"status {ran.returncode}: {ran.stderr}")
                expect("full" in ran.stderr.splitlines()[-1], ran.stderr)
                for name in (LAST, BEST):
                    if (place / "run" / name).exists():
                        checkpoint.load(place / "run" / name)
            said.append(ran.returncode)
            if (place / "run" / ".hydra" / "hydra.yaml").exists():
                ran = l2lgd(folder, "meta-train", "resume=disk/run")
                if ran.returncode == 0:
                    compare(folder / "whole", place / "run")
                else:  # its config was not whole
                    expect("begin a new run" in ran.stderr, ran.stderr)
        full = sum(status != 0 for status in said)
        expect(full > 0, "the disk never was full")
        return f"{full} of {len(said)} runs met a full disk: one line, and resumed to the same bits"
    finally:
        subprocess.run(["umount", str(place)], check=False)


@contextlib.contextmanager
def filling(place: Path, filler: Path, left: int) -> Iterator[None]:
    """All of a disk taken but for so many bytes."""
    free = os.statvfs(place)
    filler.write_bytes(b"\0" * max(0, free.f_bavail * free.f_frsize - left))
    try:
        yield
    finally:
        filler.unlink(missing_ok=True)


# -- bad command lines ----------------------------------------------------------------------------


def words(folder: Path, times: int, draw: random.Random) -> str:
    """Mistakes of any kind: one line that names the option, status 2, and nothing is done."""
    prepare(folder, draw)
    wrong = []
    for _ in range(times):
        line, names = mistake(draw)
        status, said = forked(folder, line)
        if status != 2 or not in_one_line(said, names):
            wrong.append(f"l2lgd {' '.join(line)}: status {status}: {said}")
    expect(not wrong, "\n".join(wrong))
    return f"{times} bad command lines, each answered in one line with status 2"


def values(folder: Path, times: int, draw: random.Random) -> str:
    """Any value for any option of any verb: it runs, or one line that names the option."""
    prepare(folder, draw)
    all_options = [(verb, name) for verb in VALID for name in options(verb)]
    refused, wrong = 0, []
    for number in range(times):
        line, names = any_value(draw, all_options[number % len(all_options)])
        status, said = forked(folder, line)
        refused += status == 2
        if status and (status != 2 or not in_one_line(said, names)):
            wrong.append(f"l2lgd {' '.join(line)}: status {status}: {said}")
    expect(not wrong, "\n".join(wrong))
    return (
        f"{times} values for {min(times, len(all_options))} of {len(all_options)} options: "
        f"{refused} refused in one line with status 2, with the others it runs"
    )


def in_one_line(said: str, names: Sequence[str]) -> bool:
    """Does the last line of an answer, without a traceback, have one of the names?"""
    last = (said.strip().splitlines() or [""])[-1]
    named = last.startswith("l2lgd: ") and any(name in last for name in names)
    return named and "Traceback" not in said


def prepare(folder: Path, draw: random.Random) -> None:
    lay_out(folder, draw)
    ran = l2lgd(folder, "evaluate", *VALID["evaluate"], "hydra.run.dir=evaluation")
    expect(ran.returncode == 0, ran.stderr)
    context.set_forkserver_preload(["l2lgd.verbs", "l2lgd.cli", "hydra", "matplotlib.figure"])


context = multiprocessing.get_context("forkserver")


def forked(folder: Path, line: Sequence[str]) -> tuple[int, str]:
    """The status of a command line, and what it says."""
    process = context.Process(target=in_process, args=(folder, line))
    process.start()
    process.join(120)
    expect(process.exitcode is not None, f"{line}: did not end")
    said = (folder / "stderr").read_text("utf-8", errors="replace")
    return int(process.exitcode or 0), said


def in_process(folder: Path, line: Sequence[str]) -> None:
    """In the fork."""
    os.chdir(folder)
    for name, stream in (("stdout", 1), ("stderr", 2)):
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, stream)
    from l2lgd.cli import main as run

    status = run(line)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


# -- several processes, long runs -----------------------------------------------------------------


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
    expect(any("another process of the run has ended; to go on: torchrun" in t for t in told), said)
    step = checkpoint.load(last)[1]["progress"]["meta_step"]
    return f"the other one ended after {took:.1f} s; a checkpoint of meta-step {step} is there"


def children_of(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(word) for word in path.read_text("ascii").split()]


def long(folder: Path, times: int, draw: random.Random) -> str:
    """Memory, open files and seconds a meta-step, in ten parts of a run."""
    from l2lgd import runtime
    from l2lgd.mirrors import About
    from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
    from l2lgd.schedules import Unroll
    from l2lgd.tasks.quadratic import QuadraticTask
    from l2lgd.tracking import RunTracker
    from l2lgd.trainer import MetaSettings, Trainer

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
    tracker = RunTracker.__new__(Watching)
    RunTracker.__init__(tracker, About(folder, "", {}), ("", ""), quiet=True)
    with contextlib.closing(tracker):
        trainer = Trainer(QuadraticTask(), 0, tracker)
        trainer.meta_train(CoordinatewiseLSTM(), Unroll([20]), settings, folder, {})
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


TORTURES: dict[str, Callable[[Path, int, random.Random], str]] = {
    "kills": kills,
    "signals": signals,
    "evaluations": evaluations,
    "damage": damage,
    "disk": disk,
    "words": words,
    "values": values,
    "rank": rank,
    "long": long,
}


if __name__ == "__main__":
    sys.exit(main())
