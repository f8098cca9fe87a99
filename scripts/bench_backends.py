"""One MNIST meta-step with the compiled backend against the PyTorch backend, interleaved.

Run as ``python scripts/bench_backends.py [repetitions]``; needs MNIST in the data folder.
"""

import os
import statistics
import sys
import time

import torch

from l2lgd import runtime
from l2lgd.data import DataConfig
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
from l2lgd.seeding import generator
from l2lgd.tasks.classification import ClassificationTask
from l2lgd.unroll import replay, rollout, start

UNROLL = 20


def main(repetitions: int) -> None:
    """Print the median seconds of both backends, their ratio, and how far they differ."""
    runtime.keep_freed_memory()
    task = ClassificationTask("mnist", DataConfig(), [20])
    task.setup(os.environ.get("L2LGD_DATA", "~/.cache/l2lgd"), torch.device("cpu"))
    optimizee = task.sample("train", 1, generator(0, "bench"))
    optimizers = {backend: CoordinatewiseLSTM(backend=backend) for backend in ("auto", "torch")}
    seconds: dict[str, list[float]] = {backend: [] for backend in optimizers}
    gradients = {}
    for _ in range(repetitions + 1):  # the first is a warm-up
        for backend, optimizer in optimizers.items():
            optimizer.zero_grad()
            at = start(optimizer, optimizee)
            began = time.perf_counter()
            record, _ = rollout(optimizer, at, UNROLL)
            replay(optimizer, record, lambda losses, steps: losses)
            seconds[backend].append(time.perf_counter() - began)
            gradients[backend] = torch.cat([p.grad.flatten() for p in optimizer.parameters()])
    medians = {backend: statistics.median(times[1:]) for backend, times in seconds.items()}
    difference = (gradients["auto"] - gradients["torch"]).norm() / gradients["torch"].norm()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, unroll {UNROLL}")
    print(f"compiled {medians['auto']:.3f} s, PyTorch {medians['torch']:.3f} s a meta-step")
    print(f"ratio {medians['torch'] / medians['auto']:.2f}")
    print(f"relative difference of the meta-gradients {difference:.1e}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
