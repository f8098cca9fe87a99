"""One meta-training by one process and by several under torchrun, a core each.

Run as ``python scripts/bench/processes.py [processes] [functions] [meta-steps]``; needs MNIST in
the data folder, and as many idle cores as processes. Prints the throughput of both and its ratio,
and the relative difference of their first meta-gradients.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from l2lgd.storage import checkpoint


def meta_train(folder: Path, processes: int, functions: int, meta_steps: int) -> None:
    """The installed command, with one thread a process."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    options = [
        "task=mnist",
        "unroll=paper",
        "logger=none",
        "threads=1",
        "meta_clip=null",  # which would hide a wrong factor
        "opt.initial_output=1",  # at zero most of the first meta-gradient is zero
        f"num_functions={functions}",
        f"meta_steps={meta_steps}",
        f"validate_every={meta_steps}",
        f"validation_functions={processes}",
        f"hydra.run.dir={folder}",
    ]
    module = [*(launcher if processes > 1 else []), "l2lgd", "meta-train"]
    done = subprocess.run(
        [sys.executable, "-m", *module, *options], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)


def meta_gradient(folder: Path) -> Tensor:
    """Of a run of one meta-step, up to a factor: Adam's running mean."""
    tensors, _ = checkpoint.load(folder / "checkpoints" / "last.safetensors")
    means = [tensor for name, tensor in sorted(tensors.items()) if name.endswith(".exp_avg")]
    return torch.cat([mean.flatten() for mean in means])


def main(processes: int = 2, functions: int = 8, meta_steps: int = 30) -> None:
    """Print both, and how they compare."""
    rates, gradients = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for count in (1, processes):
            once, folder = (Path(scratch) / f"{count}-{kind}" for kind in ("once", "all"))
            meta_train(once, count, functions, 1)
            gradients.append(meta_gradient(once))
            meta_train(folder, count, functions, meta_steps)
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            rates.append(summary["coordinate_steps_per_second"])
            print(f"{count} process(es): {rates[-1] / 1e6:.2f} M coordinate-steps/s")
    difference = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    print(f"ratio {rates[1] / rates[0]:.2f}")
    print(f"relative difference of their first meta-gradients {difference:.1e}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
