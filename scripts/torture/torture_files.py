"""Tortures of what is read and written: damaged files, folders and disks that take no more."""

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from torture_common import (
    LAST,
    LOSSES,
    RUN,
    Broken,
    compare,
    compiled,
    expect,
    forked,
    in_one_line,
    l2lgd,
    prepare,
    same_evaluations,
    same_figures,
    same_searches,
)
from torture_words import VALID

from l2lgd.errors import CheckpointError
from l2lgd.storage import checkpoint


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


def data(folder: Path, times: int, draw: random.Random) -> str:
    """Files of data sets, and others that are read, cut short, some with garbage at the end."""
    prepare(folder, draw)
    ran = l2lgd(folder, "tune", *VALID["tune"])
    expect(ran.returncode == 0, ran.stderr)
    shutil.copytree(data_folder() / "MNIST", folder / "data" / "MNIST")
    of_mnist = ["task=mnist", "task.data.source=torchvision", "data_dir=data", "num_functions=1"]
    of_mnist += ["num_steps=1", "baselines=[]", "logger=none"]
    files = {path: ["evaluate", *of_mnist] for path in (folder / "data").rglob("*-ubyte")}
    expect(len(files) == 4, "there are no files of MNIST in data_dir")
    for name in ("photograph.png", "painting.png", "vgg.safetensors"):
        files[folder / name] = ["stylize", *VALID["stylize"]]
    for name in (LOSSES, "summary.json"):
        files[folder / "evaluation" / name] = ["figures", *VALID["figures"]]
    (rates,) = (folder / "tuned").iterdir()
    files[rates] = ["tune", *VALID["tune"]]  # tuned again
    swept = ["--multirun", "seed=0,1", "hydra.sweep.dir=sweep"]
    for more in (["hydra.run.dir=run"], swept):
        status, answer = forked(folder, ["meta-train", *VALID["meta-train"], *more])
        expect(status == 0, answer)
    for name in ("overrides.yaml", "hydra.yaml"):
        files[folder / "run" / ".hydra" / name] = ["meta-train", "resume=run"]
    for name in ("sweep.json", "0/job.json"):
        files[folder / "sweep" / name] = ["meta-train", "rerun=sweep"]
    said, refused = [], 0
    for number in range(times):
        path, words = list(files.items())[number % len(files)]
        content = path.read_bytes()
        sizes = [0, draw.randrange(min(100, len(content))), draw.randrange(len(content))]
        size = draw.choice(sizes)
        tail = draw.choice([b"", b"\0\xff", draw.randbytes(30)])
        path.write_bytes(content[:size] + tail)
        status, answer = forked(folder, words)
        path.write_bytes(content)
        refused += status == 2
        names = [path.name, path.parts[-3]]
        if path.suffix == ".yaml":  # half a list of options is one, too
            names += ["=", "was run with another config"]
        if status not in (0, 2) or (status and not in_one_line(answer, names)):
            said.append(f"{path.name}, {size} bytes of {len(content)}: status {status}: {answer}")
        if status == 0 and path.suffix not in (".json", ".yaml"):
            said.append(f"{path.name}, {size} bytes of {len(content)}: taken as it is")
    expect(not said, "\n".join(said))
    return f"{times} files cut short: {refused} refused in one line; damaged rates are tuned anew"


def data_folder() -> Path:
    return Path(os.environ.get("L2LGD_DATA", "~/.cache/l2lgd")).expanduser()


def unwritable(folder: Path, times: int, draw: random.Random) -> str:
    """Folders that cannot be written to: one line, before anything is computed."""
    prepare(folder, draw)
    closed = folder / "closed"
    closed.mkdir(mode=0o555)
    mounted = None
    if os.geteuid() == 0:  # whom permissions do not bind
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(closed)])
        expect(mounted.returncode == 0, "nothing can be mounted here")
    count = 0
    try:
        for verb, words in VALID.items():
            given = [word for word in words if not word.startswith("hydra.")]
            bad = [["hydra.run.dir=closed/run"]]
            if verb == "stylize":
                bad.append(["hydra.run.dir=run", "output=closed/painted.png"])
            if verb != "figures":
                bad.append(["--multirun", "seed=0", "hydra.sweep.dir=closed/sweep"])
            for more in bad:
                status, said = forked(folder, [verb, *given, *more])
                told = f"l2lgd {verb} {' '.join(more)}: status {status}: {said}"
                expect(status == 2 and in_one_line(said, ["closed"]), told)
                count += 1
    finally:
        if mounted is not None:
            subprocess.run(["umount", str(closed)], check=False)
    return f"{count} folders that cannot be written to, each refused in one line"


def disk(folder: Path, times: int, draw: random.Random) -> str:
    """A disk that fills up while something is written, then has room, for every verb."""
    place = folder / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30M", "tmpfs", str(place)])
    expect(mounted.returncode == 0, "no tmpfs can be mounted here (needs root)")
    try:
        counts = [
            f"{verb} {full_disks(folder, place, verb, times, draw)} of {times}" for verb in WRITING
        ]
    finally:
        subprocess.run(["umount", str(place)], check=False)
    return f"runs that met a full disk: {', '.join(counts)}; one line, and then the same results"


TRAINING = [word.format(40) for word in RUN]
EVALUATION = ["task=quadratic", "num_functions=20", "num_steps=50", "tune_functions=5"]
EVALUATION += ["baselines=[sgd]", "logger=none", "threads=1"]
TUNING = ["task=quadratic", "num_functions=5", "num_steps=50", "baselines=[sgd]"]
TUNING += ["logger=none", "threads=1"]
FIGURE = ["of=[whole_evaluate]"]
WRITING: dict[str, tuple[list[str], Callable[[Path, Path], None]]] = {  # and what has to be equal
    "meta-train": (TRAINING, compare),
    "evaluate": (EVALUATION, same_evaluations),
    "tune": (TUNING, same_searches),
    "figures": (FIGURE, same_figures),
}


def full_disks(folder: Path, place: Path, verb: str, times: int, draw: random.Random) -> int:
    """How many of so many runs met a full disk."""
    options, same = WRITING[verb]
    kept = [] if verb in ("meta-train", "figures") else [f"tuned_dir={place}/tuned"]
    whole, run = folder / f"whole_{verb}", place / "run"
    ran = l2lgd(folder, verb, *options, *kept, f"hydra.run.dir={whole}")
    expect(ran.returncode == 0, ran.stderr)
    size = sum(4096 + path.stat().st_size for path in whole.rglob("*"))
    full = 0
    for number in range(times):
        for made in (run, place / "tuned"):
            shutil.rmtree(made, ignore_errors=True)
        left = int(size * (number + draw.random()) / times)  # bytes that can be written
        words = [verb, *options, *kept, f"hydra.run.dir={run}"]
        with filling(place, place / "filler", left):
            ran = l2lgd(folder, *words)
        expect("Traceback" not in ran.stderr, ran.stderr)
        full += ran.returncode != 0 or "disk is full" in ran.stderr
        if ran.returncode:
            expect(ran.returncode == 2, f"status {ran.returncode}: {ran.stderr}")
            expect("full" in ran.stderr.splitlines()[-1], ran.stderr)
        for path in run.rglob("*.safetensors"):
            checkpoint.load(path)
        if verb == "meta-train" and any(run.glob("checkpoints/*.safetensors")):
            words = [verb, f"resume={run}"]
        ran = l2lgd(folder, *words)
        expect(ran.returncode == 0, ran.stderr)
        same(whole, run)
    expect(full > 0, "the disk never was full")
    return full


def writes(folder: Path, times: int, draw: random.Random) -> str:
    """From the k-th write to a file on, the disk is full: for k from the first to the last one."""
    os.environ["LD_PRELOAD"] = compiled(folder, WRITES)  # in the forks
    prepare(folder, draw)
    os.environ.pop("LD_PRELOAD")
    said = []
    for verb, (options, same) in WRITING.items():
        words = [verb, *options, "hydra.run.dir={}"]
        words += [] if verb in ("meta-train", "figures") else ["tuned_dir=tuned_{}"]
        total = folder / "total"
        first = [word.format(f"whole_{verb}") for word in words]
        status, answer = forked(folder, first, TOTAL=str(total))
        expect(status == 0, answer)
        count, failed = int(total.read_text("ascii")), 0
        for k in sorted({1 + count * number // times for number in range(times)}):
            for made in ("run", "tuned_run"):
                shutil.rmtree(folder / made, ignore_errors=True)
            status, answer = forked(
                folder, [word.format("run") for word in words], FULL_FROM=str(k)
            )
            told = f"{verb}, write {k} of {count}: status {status}: {answer}"
            expect(status in (0, 2) and "Traceback" not in answer, told)
            expect(status == 0 or "full" in answer.splitlines()[-1], told)
            failed += status == 2
            for path in (folder / "run").rglob("*.safetensors"):
                checkpoint.load(path)
            going_on = verb == "meta-train" and any((folder / "run").glob("checkpoints/*.safe*"))
            again = [verb, "resume=run"] if going_on else [word.format("run") for word in words]
            status, answer = forked(folder, again)
            expect(status == 0, f"{told}\nand then: status {status}: {answer}")
            same(folder / f"whole_{verb}", folder / "run")
        said.append(f"{verb} {failed} of {min(times, count)} (it writes {count} times)")
    return f"the disk full from a write on: {', '.join(said)}: one line, and then the same results"


WRITES = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

ssize_t write(int file, const void *from, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    static long count;
    struct stat about;
    if (!real)
        real = dlsym(RTLD_NEXT, "write");
    const char *full = getenv("FULL_FROM"), *total = getenv("TOTAL");
    if (file > 2 && (full || total) && !fstat(file, &about) && S_ISREG(about.st_mode)) {
        count++;
        if (full && count >= atol(full)) {
            errno = ENOSPC;
            return -1;
        }
        FILE *note = total ? fopen(total, "w") : NULL;
        if (note) {
            char text[32];
            int length = snprintf(text, sizeof text, "%ld", count);
            real(fileno(note), text, length);
            fclose(note);
        }
    }
    return real(file, from, size);
}
"""


@contextlib.contextmanager
def filling(place: Path, filler: Path, left: int) -> Iterator[None]:
    """All of a disk taken but for so many bytes."""
    free = os.statvfs(place)
    filler.write_bytes(b"\0" * max(0, free.f_bavail * free.f_frsize - left))
    try:
        yield
    finally:
        filler.unlink(missing_ok=True)
