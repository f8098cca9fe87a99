"""Resident memory over 1,000 meta-steps of a meta-training on MNIST.

Run as ``python scripts/bench/memory_over_meta_steps.py``; needs MNIST in the data folder, and some
three minutes.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from meta_step import CASES, task_of

from l2lgd.meta.estimators.replay import Replay
from l2lgd.meta.schedules import Unroll
from l2lgd.meta.trainer import MetaSettings, Trainer
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
from l2lgd.system import runtime
from l2lgd.tracking.tracker import NullTracker

META_STEPS, EVERY = 1000, 100


class MemoryTracker(NullTracker):
    """Prints the memory of the process now and then."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step % EVERY == 0 and "meta_loss" in values:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            print(f"meta-step {step}: {pages * os.sysconf('SC_PAGE_SIZE') / 1e6:.0f} MB")


def main() -> None:
    """Meta-train, and forget the result."""
    runtime.keep_freed_memory()
    task = task_of(CASES["mnist-1"], torch.device("cpu"))
    settings = MetaSettings(
        meta_steps=META_STEPS,
        meta_learning_rate=0.003,
        meta_decay="constant",
        meta_clip=1.0,
        num_functions=1,
        num_steps=100,
        validate_every=250,
        validation_functions=4,
        checkpoint_every=100,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(task, 0, MemoryTracker())
        trainer.meta_train(CoordinatewiseLSTM(), Unroll([20]), Replay(), settings, Path(folder), {})


if __name__ == "__main__":
    main()
