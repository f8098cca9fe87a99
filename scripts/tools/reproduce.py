"""Meta-train every shipped optimizer again, by the commands in its metadata, then draw the figures.

What is done is kept, what was interrupted goes on; weights go to ``outputs/reproduce/weights``,
under the names of the shipped ones, figures to ``outputs/reproduce/figures``.

python scripts/tools/reproduce.py --estimate             # how long it takes
python scripts/tools/reproduce.py                        # all of it
python scripts/tools/reproduce.py --only quadratic-lstm mnist-lstm
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from l2lgd.config.building import build
from l2lgd.errors import ConfigError, UserError, nearest
from l2lgd.meta.state import load_weights
from l2lgd.pretrained.weights import SHIPPED
from l2lgd.storage import checkpoint

MINUTES = {  # on one core of a server, where it was looked at
    "quadratic-lstm": 9,
    "mnist-lstm": 45,
    "mnist-lstm_mixture": 45,
    "cifar10-lstm_per_group": 175,
    "cifar_sub-lstm_sub": 90,
    "neural_art-lstm": 60,
}
OF_SHARING = 6  # minutes of each of the others
OF_FIGURES = 30
INITIAL = ("initial_weights=", "checkpoint=")
LEFT_OUT = ("hydra.run.dir=", "logger=")


def chain(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """The metadata of weights and of what they began with, oldest first."""
    found = [metadata]
    while ancestor := found[0].get("begun_from"):
        found.insert(0, ancestor)
    return found


def words(command: str, start: Path | None, vgg: str | None) -> list[str]:
    """A recorded command without its program, to begin with the file ``start``."""
    kept = []
    for word in shlex.split(command)[1:]:
        if word.startswith(INITIAL):
            word = f"{word.partition('=')[0]}={start}"
        if word.startswith("task.vgg.weights=") and vgg:
            word = f"task.vgg.weights={vgg}"
        if not word.startswith(LEFT_OUT):
            kept.append(word)
    return [*kept, "logger=none"]


def run(folder: Path, command: list[str]) -> None:
    """One part of a chain: nothing where it is done, the rest of it where it was interrupted.

    Raises:
        UserError: it failed; the message is the program's own.
    """
    if (folder / "summary.json").is_file():
        return
    if (folder / "checkpoints" / "last.safetensors").is_file():
        command = ["meta-train", f"resume={folder}"]
    else:
        shutil.rmtree(folder, ignore_errors=True)
        command = [*command, f"hydra.run.dir={folder}"]
    print("l2lgd", shlex.join(command), flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "terminal.log").open("a", encoding="utf-8") as log:
        words = [sys.executable, "-m", "l2lgd", *command]
        done = subprocess.run(words, stdout=log, stderr=log, check=False)
    if done.returncode:
        said = (folder / "terminal.log").read_text(encoding="utf-8").strip().splitlines()
        raise UserError(f"{folder}: {said[-1] if said else done.returncode}")


def scaled(path: Path, factor: float) -> Path:
    """The same weights with their updates times a factor, in a file beside."""
    metadata = checkpoint.load(path)[1]
    optimizer = build(metadata["opt"], "opt")
    load_weights(path, optimizer)
    optimizer.scale_updates(factor)
    target = path.with_stem(f"{path.stem}_times_{factor:g}")
    checkpoint.save(target, optimizer.state_dict(), metadata | {"update_scale": factor})
    return target


def begins_with(command: str, folder: Path) -> Path:
    """Which file of the part before, in ``folder``, a recorded command begins with."""
    recorded = next(w.partition("=")[2] for w in shlex.split(command) if w.startswith(INITIAL))
    name = "last" if Path(recorded).stem == "last" else "best"
    path = folder / "checkpoints" / f"{name}.safetensors"
    times = re.search(r"_times_([\d.]+)\.safetensors", recorded)
    return scaled(path, float(times[1])) if times else path


def reproduce(shipped: Path, stem: str, work: Path, vgg: str | None) -> None:
    """All parts of one optimizer."""
    parts = chain(checkpoint.load(shipped / f"{stem}.safetensors")[1])
    folder = start = None
    for number, part in enumerate(parts, 1):
        if folder is not None:
            start = begins_with(part["command"], folder)
        folder = work / "meta-train" / stem.replace("/", "-") / f"part_{number}"
        run(folder, words(part["command"], start, vgg))
    found = folder / "checkpoints" / "best.safetensors"  # type: ignore[operator]
    factor = parts[-1].get("update_scale")
    if factor and shlex.split(parts[-1]["command"])[1] != "tune":
        found = scaled(found, factor)
    target = work / "weights" / f"{stem}.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(found, target)


def missing(stems: list[str], work: Path) -> list[str]:
    return [stem for stem in stems if not (work / "weights" / f"{stem}.safetensors").is_file()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", help="optimizers, by the names of their files")
    parser.add_argument("--work", type=Path, default=Path("outputs/reproduce"))
    parser.add_argument("--shipped", type=Path, default=SHIPPED, help="weights with metadata")
    parser.add_argument("--vgg", help="features of neural art, a file: docs/results/neural-art.md")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--scale", default="small", help="of the figures")
    parser.add_argument("--estimate", action="store_true", help="only say how long it takes")
    given = parser.parse_args()
    files = sorted(given.shipped.rglob("*.safetensors"))
    known = [path.relative_to(given.shipped).with_suffix("").as_posix() for path in files]
    stems = given.only or known
    for stem in stems:
        if stem not in known:
            raise ConfigError(f"--only {stem}{nearest(stem, known)}")
    # The longest first, so that none is left to run alone at the end.
    stems.sort(key=lambda stem: -MINUTES.get(stem, OF_SHARING))
    minutes = [MINUTES.get(stem, OF_SHARING) for stem in missing(stems, given.work)]
    total = max([sum(minutes) / given.workers, *minutes[:1]])
    print(
        f"{len(minutes)} of {len(stems)} optimizers to meta-train, about {total / 60:.1f} hours, "
        f"{given.workers} at once; then figures, about {OF_FIGURES} minutes"
    )
    if given.estimate:
        return
    with ThreadPoolExecutor(given.workers) as pool:
        jobs = [
            pool.submit(reproduce, given.shipped, stem, given.work, given.vgg) for stem in stems
        ]
        problems = [job.exception() for job in jobs]
    for problem in filter(None, problems):
        if not isinstance(problem, UserError):
            raise problem
        print(f"reproduce.py: {problem}", file=sys.stderr)
    if any(problems):
        sys.exit(2)
    if given.only:
        return
    options = [f"scale={given.scale}", f"weights_dir={given.work / 'weights'}"]
    options += [f"vgg={given.vgg}"] if given.vgg else []
    figures = [*options, f"hydra.run.dir={given.work / 'figures'}"]
    done = subprocess.run([sys.executable, "-m", "l2lgd", "figures", *figures], check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    try:
        main()
    except UserError as problem:
        print(f"reproduce.py: {problem}", file=sys.stderr)
        sys.exit(2)
