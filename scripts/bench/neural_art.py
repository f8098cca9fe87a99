"""Seconds and memory of one neural-art problem against its number of pixels.

A step is the loss, its gradient and the update of the LSTM, of one image. Memory is how far the
process's peak rises above what it has once network and photograph are loaded. Overrides are those
of l2lgd evaluate, such as task.vgg.weights=FILE. Run with nothing else running; takes a minute.

python scripts/bench/neural_art.py
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from l2lgd.config.building import build
from l2lgd.config.defaults import composed
from l2lgd.errors import UserError
from l2lgd.meta.rollout import advance, start
from l2lgd.seeding import generator

SIZES = (64, 128, 256, 512)
REPETITIONS = 5


def megabytes(name: str) -> float:
    """``VmHWM``, the peak of resident memory, or ``VmRSS``, what is resident now."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


def measure(overrides: list[str]) -> tuple[float, float]:
    """Median seconds of a step, and MiB."""
    found = composed("evaluate", ["task=neural_art", "opt=lstm", *overrides])
    config: Any = OmegaConf.to_container(found, resolve=True)
    task = build(config["task"], "task")
    task.setup(config["data_dir"], torch.device("cpu"))  # type: ignore[attr-defined]
    function = task.sample("test", 1, generator(0))  # type: ignore[attr-defined]
    optimizer: Any = build(config["opt"], "opt")
    # What the style took belongs to no step: begin the peak anew.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = megabytes("VmRSS")
    at, times = start(optimizer, function), []
    for _ in range(REPETITIONS):
        began = time.perf_counter()
        at = advance(at)
        times.append(time.perf_counter() - began)
    return statistics.median(times), megabytes("VmHWM") - before


def main() -> None:
    """A process for each size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("overrides", nargs="*", help="of l2lgd evaluate, as task.vgg.weights=FILE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, help="only this one, in this process")
    given = parser.parse_args()
    if given.size is not None:
        torch.set_num_threads(given.threads)
        print(
            *measure([f"task.size={given.size}", f"task.style_size={SIZES[0]}", *given.overrides])
        )
        return
    print(f"{'pixels':>9} {'s a step':>9} {'µs a pixel':>11} {'MiB':>8} {'KiB a pixel':>12}")
    for size in SIZES:
        again = [sys.executable, __file__, f"--size={size}", f"--threads={given.threads}"]
        done = subprocess.run([*again, *given.overrides], stdout=subprocess.PIPE, check=False)
        if done.returncode:
            sys.exit(done.returncode)  # it has said why
        seconds, memory = map(float, done.stdout.split())
        pixels = size * size
        per_pixel = f"{1e6 * seconds / pixels:11.1f} {memory:8.0f} {1024 * memory / pixels:12.2f}"
        print(f"{size:>4}×{size:<4} {seconds:9.3f} {per_pixel}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as problem:
        print(f"neural_art.py: {problem}", file=sys.stderr)
        sys.exit(2)
