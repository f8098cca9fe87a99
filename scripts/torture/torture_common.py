"""What the tortures of ``torture.py`` have in common: commands, and results that must be equal."""

import json
import multiprocessing
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torture_words import TINY, VALID, lay_out

from l2lgd.storage import checkpoint

RUN = [*TINY, "meta_steps={}", "validate_every=50", "checkpoint_every=5"]
COMMAND = [sys.executable, "-m", "l2lgd"]
LOSSES = "losses.safetensors"
LAST, BEST = "checkpoints/last.safetensors", "checkpoints/best.safetensors"


class Broken(Exception):
    """Something that does not hold."""


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)


def l2lgd(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command as a user gives it."""
    return subprocess.run(
        [*COMMAND, *words], cwd=folder, capture_output=True, text=True, check=False
    )


context = multiprocessing.get_context("forkserver")


def prepare(folder: Path, draw: random.Random) -> None:
    """Lay out files, and see that all verbs run while there is no mistake."""
    lay_out(folder, draw)
    found = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, found))  # the fork server looks there
    context.set_forkserver_preload(["torture_imports"])
    evaluation = ["evaluate", *VALID["evaluate"], "hydra.run.dir=evaluation"]
    for words in (evaluation, *([verb, *words] for verb, words in VALID.items())):
        status, said = forked(folder, words)
        expect(status == 0, f"l2lgd {' '.join(words)}, without a mistake: {said}")


def compiled(folder: Path, code: str) -> str:
    """A library of C, to be loaded before those of the system."""
    source, library = folder / "before.c", folder / "before.so"
    source.write_text(code, encoding="utf-8")
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", library, source, "-ldl"]
    expect(subprocess.run(command).returncode == 0, "no C compiler")
    return str(library)


def forked(folder: Path, line: Sequence[str], **variables: str) -> tuple[int, str]:
    """The status of a command line, and what it says."""
    process = context.Process(target=in_process, args=(folder, line, variables))
    process.start()
    process.join(600)
    expect(process.exitcode is not None, f"{line}: did not end")
    said = (folder / "stderr").read_text("utf-8", errors="replace")
    return int(process.exitcode or 0), said


def in_process(folder: Path, line: Sequence[str], variables: dict[str, str]) -> None:
    """In the fork."""
    os.chdir(folder)
    os.environ.update(variables)
    for name, stream in (("stdout", 1), ("stderr", 2)):
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, stream)
    from l2lgd.cli.main import main as run

    status = run(line)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def in_one_line(said: str, names: Sequence[str]) -> bool:
    """Does the last line of an answer, without a traceback, have one of the names?"""
    last = (said.strip().splitlines() or [""])[-1]
    named = last.startswith("l2lgd: ") and any(name in last for name in names)
    return named and "Traceback" not in said


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


def same_evaluations(whole: Path, other: Path) -> None:
    one, two = (checkpoint.load(run / LOSSES)[0] for run in (whole, other))
    expect(one.keys() == two.keys(), "other optimizers")
    for name, losses in one.items():
        expect(losses.equal(two[name]), f"the losses of {name} differ")
    expect(found_by(whole, "learning_rate") == found_by(other, "learning_rate"), "rates differ")


def same_searches(whole: Path, other: Path) -> None:
    for what in ("learning_rate", "trials"):
        expect(found_by(whole, what) == found_by(other, what), f"{what} differ")


def found_by(run: Path, what: str) -> dict[str, Any]:
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    return {name: result[what] for name, result in summary["results"].items()}


def same_benchmarks(whole: Path, other: Path) -> None:
    one, two = (json.loads((run / "summary.json").read_text("utf-8")) for run in (whole, other))
    for name, task in one["tasks"].items():
        for optimizer, result in task["results"].items():
            again = two["tasks"][name]["results"][optimizer]
            for what in ("final_loss", "held_out_loss", "speed_up", "loss_ratio", "diverged"):
                expect(result[what] == again[what], f"{what} of {optimizer} on {name} differs")
            expect(result.get("trials") == again.get("trials"), f"trials on {name} differ")


def same_figures(whole: Path, other: Path) -> None:
    files = [
        {path.name: path.read_bytes() for path in run.glob("figure_*") if path.suffix != ".md"}
        for run in (whole, other)
    ]
    expect(len(files[0]) > 0, "no pictures")
    expect(files[0].keys() == files[1].keys(), f"files {sorted(files[1])}")
    for name, content in files[0].items():
        expect(content == files[1][name], f"{name} differs")
