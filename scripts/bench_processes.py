"""One meta-training by one process and by several under torchrun, a core each.

Run as ``python scripts/bench_processes.py [processes] [functions] [meta-steps]``; needs MNIST in
the data folder, and as many idle cores as processes. Prints the throughput of both and its ratio,
and the relative difference of their first meta-gradients.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path


def meta_train(folder: Path, processes: int, functions: int, meta_steps: int) -> None:
    """The installed command, with one thread a process."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    options = [
        "task=mnist",
        "unroll=paper",
        "logger=none",
        "threads=1",
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


def main(processes: int = 2, functions: int = 8, meta_steps: int = 30) -> None:
    """Print both, and the ratio."""
    rates, norms = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for count in (1, processes):
            folder = Path(scratch) / str(count)
            meta_train(folder, count, functions, meta_steps)
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            rates.append(summary["coordinate_steps_per_second"])
            first = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0]
            norms.append(json.loads(first)["meta_gradient_norm"])
            print(f"{count} process(es): {rates[-1] / 1e6:.2f} M coordinate-steps/s")
    print(f"ratio {rates[1] / rates[0]:.2f}")
    print(f"norms of the first meta-gradient differ by {abs(norms[1] / norms[0] - 1):.1e}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
