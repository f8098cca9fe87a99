"""Seconds and memory of one meta-step: l2lgd against the textbook loop, interleaved in one run.

The textbook loop is what a careful user of PyTorch writes: torch.nn.LSTMCell, one autograd graph
through the unroll, torch.autograd.grad with respect to the current parameters, so that its cost is
linear in the unroll. Both start from the same position, and end with a step of Adam on φ; that they
find the same meta-gradient is shown first. They drop ∂∇_t/∂φ as the paper does, but in the cases
``…-second``: there it is kept as the default recipes keep it, and our step without it is timed in
the same run. In the textbook loop the convnet of CIFAR-10 is made of PyTorch's layers, as its
authors mean them to be used.

Run as ``python scripts/bench/meta_step.py [--cases mnist-1,mnist-8] [--json]``. The networks are
trained on MNIST from the data folder, or on the embedded digits.
"""

import argparse
import functools
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from l2lgd.data.sources import DataConfig
from l2lgd.errors import UserError
from l2lgd.meta.estimators.objective import TypicalSize
from l2lgd.meta.estimators.replay import replay
from l2lgd.meta.graphed import step_of
from l2lgd.meta.rollout import Position, rollout, start
from l2lgd.optimizers.base import LearnedRule
from l2lgd.optimizers.coordinatewise import BACKENDS, CoordinatewiseLSTM
from l2lgd.optimizers.groups import Group, Grouped
from l2lgd.optimizers.preprocessing import preprocess
from l2lgd.seeding import generator
from l2lgd.system import runtime
from l2lgd.tasks.base import Task
from l2lgd.tasks.classification import ClassificationTask
from l2lgd.tasks.convnet import ConvNetTask
from l2lgd.tasks.quadratic import QuadraticTask

UNROLL = 20
States = list[tuple[Tensor, Tensor]]  # hidden and cell of each layer
SIDES = ("textbook", "ours")
FIRST_ORDER = "first_order"  # ours, where the case has second derivatives
SMOOTHING = 1.0  # of second derivatives in the recipes of all tasks
DIFFERENCE = 0.1  # for convnets; networks on MNIST have exact ones
LARGE = 2_000_000  # coordinate-steps from which on the textbook loop's memory is foretold
HEADROOM = 0.8  # of the available memory that the textbook loop may take


@dataclass(frozen=True)
class Case:
    """What is optimized."""

    functions: int
    hidden_layers: tuple[int, ...] | None = None  # of a network on MNIST
    convnet: bool = False  # that of section 3.3, on CIFAR-10; else quadratics of 10 coordinates
    second: bool = False  # derivatives kept

    @property
    def sides(self) -> tuple[str, ...]:
        """What is timed."""
        return (*SIDES, FIRST_ORDER) if self.second else SIDES


CASES = {
    "quadratic-128": Case(128),
    "mnist-1": Case(1, (20,)),
    "mnist-8": Case(8, (20,)),
    "mnist-16": Case(16, (20,)),
    "mlp-318k": Case(1, (400,)),
    "mlp-1m": Case(1, (1260,)),
    "cifar-1": Case(1, convnet=True),
    "mnist-1-second": Case(1, (20,), second=True),
    "mnist-8-second": Case(8, (20,), second=True),
    "cifar-1-second": Case(1, convnet=True, second=True),
}


def task_of(case: Case, device: torch.device) -> Task:
    """What the functions of a case are drawn from, its data loaded."""
    task: Task = QuadraticTask(dimension=10)
    if case.hidden_layers is not None:
        task = ClassificationTask("mnist", DataConfig(), list(case.hidden_layers))
    if case.convnet:
        task = ConvNetTask("cifar10", DataConfig("cifar10"), [16, 16, 16])
    task.setup(os.environ.get("L2LGD_DATA", "~/.cache/l2lgd"), device)
    return task


def optimizer_of(case: Case, **options: Any) -> LearnedRule:
    """That of the paper."""
    if not case.convnet:
        return CoordinatewiseLSTM(**options)
    members = {name: CoordinatewiseLSTM(**options) for name in ("conv", "rest")}
    return Grouped(members, [Group("conv*.weight", "conv"), Group("*", "rest")])


class TextbookLSTM(nn.Module):
    """A coordinatewise LSTM in the cells of torch.nn."""

    def __init__(self, ours: CoordinatewiseLSTM) -> None:
        super().__init__()
        size = ours.hidden_size
        self.p, self.output_scale = ours.p, ours.output_scale
        self.cells = nn.ModuleList(nn.LSTMCell(w.shape[1] - size, size) for w in ours.weights)
        self.output = nn.Linear(size, 1)
        with torch.no_grad():
            for cell, weight, bias in zip(self.cells, ours.weights, ours.biases, strict=True):
                weight, bias = other_gate_order(weight), other_gate_order(bias).clone()
                bias[size : 2 * size] += ours.forget_bias
                cell.weight_ih.copy_(weight[:, :-size])
                cell.weight_hh.copy_(weight[:, -size:])
                cell.bias_ih.copy_(bias)
                cell.bias_hh.zero_()
            self.output.weight.copy_(ours.output_weight)
            self.output.bias.copy_(ours.output_bias)

    def forward(
        self, gradient: Tensor, states: States | None, width: Tensor | None
    ) -> tuple[Tensor, States]:
        """∇_t (B, n) → g_t (B, n) and the next states."""
        if states is None:
            zeros = gradient.new_zeros(gradient.numel(), self.output.in_features)
            states = [(zeros, zeros) for _ in self.cells]
        flat_width = None if width is None else width.flatten()
        activation = preprocess(gradient.flatten(), "log_sign", self.p, flat_width).T
        following = []
        for cell, state in zip(self.cells, states, strict=True):
            following.append(cell(activation, state))
            activation = following[-1][0]
        return self.output_scale * self.output(activation).view_as(gradient), following

    def gradient_like_ours(self) -> Tensor:
        """What has been found, flat, in the order of CoordinatewiseLSTM.parameters()."""
        weights, biases = [], []
        for cell in self.cells:
            joined = torch.cat((cell.weight_ih.grad, cell.weight_hh.grad), 1)
            weights.append(other_gate_order(joined))
            biases.append(other_gate_order(cell.bias_ih.grad))
        parts = [self.output.weight.grad, self.output.bias.grad, *weights, *biases]
        return torch.cat([part.flatten() for part in parts])


class Textbook(nn.Module):
    """The optimizer of a case, and its convnet, where it has one, in PyTorch's layers."""

    def __init__(self, ours: LearnedRule, at: Position) -> None:
        super().__init__()
        own = [m for m in ours.modules() if isinstance(m, CoordinatewiseLSTM)]
        self.optimizers = nn.ModuleList(TextbookLSTM(member) for member in own)
        self.loss = at.optimizee.loss
        self.columns = [torch.arange(at.parameters.shape[1])]
        if len(own) > 1:
            self.loss = functools.partial(textbook_convnet, at.optimizee)
            slices = at.optimizee.parameter_slices()
            named = {name: self.columns[0][where] for name, where in slices.items()}
            first = [name for name in named if fnmatchcase(name, "conv*.weight")]
            second = [name for name in named if name not in first]
            self.columns = [torch.cat([named[n] for n in names]) for names in (first, second)]

    def meta_gradient(self, at: Position, unroll: int, second: bool) -> None:
        """Of the sum of the losses, averaged over functions, added to ``.grad``."""
        theta, gradient = at.parameters, at.gradient
        typical = TypicalSize(SMOOTHING if second else 0.0)
        states: list[States | None] = [None] * len(self.columns)
        total = torch.zeros((), device=theta.device)
        for step in range(at.step + 1, at.step + unroll + 1):
            update, width = torch.zeros_like(theta), typical.after(gradient)
            for k, (own, columns) in enumerate(zip(self.optimizers, self.columns, strict=True)):
                part = None if width is None else width[:, columns]
                update[:, columns], states[k] = own(gradient[:, columns], states[k], part)
            theta = theta + update
            loss = self.loss(theta, step)
            (gradient,) = torch.autograd.grad(
                loss.sum(), theta, create_graph=second, retain_graph=True
            )
            total = total + loss.mean()
        total.backward()

    def gradient_like_ours(self) -> Tensor:
        """What has been found, flat, in the order of the parameters of the other side."""
        return torch.cat([own.gradient_like_ours() for own in self.optimizers])


def textbook_convnet(optimizee: Any, parameters: Tensor, step: int) -> Tensor:
    """The losses of convnets, one after the other, in PyTorch's layers."""
    pixels, labels = optimizee.minibatch(step)
    named, epsilon = optimizee.unpack(parameters), optimizee.network.epsilon
    losses = []
    for row, images in enumerate(pixels.permute(0, 1, 4, 2, 3)):
        own = {name: tensor[row] for name, tensor in named.items()}
        for index in range(3):
            weight, bias = own[f"conv{index}.weight"], own[f"conv{index}.bias"]
            offset = own[f"conv{index}.offset"]
            images = functional.conv2d(images, weight, bias, padding="same")
            images = functional.relu(normalised(images, offset, epsilon))
            images = functional.max_pool2d(images, 2)
        hidden = functional.linear(images.flatten(1), own["hidden.weight"].T, own["hidden.bias"])
        hidden = functional.relu(normalised(hidden, own["hidden.offset"], epsilon))
        logits = functional.linear(hidden, own["output.weight"].T, own["output.bias"])
        losses.append(functional.cross_entropy(logits, labels[row]))
    return torch.stack(losses)


def normalised(x: Tensor, offset: Tensor, epsilon: float) -> Tensor:
    """Batch normalisation, which wants a scale to be differentiable twice."""
    scale = torch.ones_like(offset)
    return functional.batch_norm(x, None, None, scale, offset, training=True, eps=epsilon)


def other_gate_order(rows: Tensor) -> Tensor:
    """From input, forget, output, candidate to torch.nn's input, forget, candidate, output."""
    i, f, third, fourth = rows.chunk(4)
    return torch.cat((i, f, fourth, third))


class Bench:
    """One case on one device, both sides.

    Args:
        options: of the optimizer.
    """

    def __init__(
        self, case: Case, device: torch.device, unroll: int = UNROLL, **options: Any
    ) -> None:
        self.case, self.device, self.unroll = case, device, unroll
        self.difference = DIFFERENCE if case.convnet else 0.0
        self.ours = optimizer_of(case, **options).to(device)
        draw = generator(0, "bench")  # the same functions in every process
        self.optimizee = task_of(case, device).sample("train", case.functions, draw)
        self.at = start(self.ours, self.optimizee)
        self.step = step_of(self.at)
        self.textbook = Textbook(self.ours, self.at).to(device)
        self.seconds: dict[str, list[float]] = {side: [] for side in case.sides}
        self.parts: dict[str, list[float]] = {"optimizee": [], "rollout": [], "replay": []}
        # A rate of zero: each repetition does the same work on the same weights.
        ours = torch.optim.Adam(self.ours.parameters(), lr=0.0)
        self.adam = dict.fromkeys(case.sides, ours)
        self.adam["textbook"] = torch.optim.Adam(self.textbook.parameters(), lr=0.0)

    @property
    def coordinate_steps(self) -> int:
        """Of one meta-step."""
        return self.at.parameters.numel() * self.unroll

    def meta_step(self, side: str) -> None:
        """One, timed."""
        began = self.now()
        self.adam[side].zero_grad()
        if side == "textbook":
            self.textbook.meta_gradient(self.at, self.unroll, self.case.second)
        else:
            self._rollout_and_replay(side)
        self.adam[side].step()
        self.seconds[side].append(self.now() - began)

    def _rollout_and_replay(self, side: str) -> None:
        second = self.case.second and side != FIRST_ORDER
        spent = 0.0
        plain: Callable[..., Any] = type(self.optimizee).loss_and_gradient

        def timed(*arguments: Any) -> Any:
            nonlocal spent
            began = self.now()
            found = plain(self.optimizee, *arguments)
            spent += self.now() - began
            return found

        self.optimizee.loss_and_gradient = timed  # type: ignore[method-assign]
        began = self.now()
        record, _ = rollout(self.at, self.unroll, keep_path=second, step=self.step)
        between, within = self.now(), spent
        replay(record, lambda losses, steps: losses, SMOOTHING, self.difference)
        if side == "ours":
            self.parts["optimizee"].append(within)
            self.parts["rollout"].append(between - began - within)
            self.parts["replay"].append(self.now() - between)

    def now(self) -> float:
        """Seconds, when the device has done its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def meta_gradient_error(self) -> float:
        """‖ours − textbook‖ / ‖textbook‖, both in the precision of the benchmark."""
        difference, self.difference = self.difference, 0.0  # what is exact can be compared
        for side in SIDES:
            self.meta_step(side)
        self.difference = difference
        ours = torch.cat([weight.grad.flatten() for weight in self.ours.parameters()])
        true = self.textbook.gradient_like_ours()
        return ((ours - true).norm() / true.norm()).item()

    def run(self, budget: float, sides: tuple[str, ...]) -> None:
        """Interleaved meta-steps for ``budget`` seconds, and at least two of each side."""
        for times in (*self.seconds.values(), *self.parts.values()):
            times.clear()
        began = time.perf_counter()
        while len(self.seconds["ours"]) < 2 or time.perf_counter() - began < budget:
            for side in sides:
                self.meta_step(side)

    def peak_bytes(self, side: str) -> int:
        """Of this process, or of PyTorch on the GPU, after one or two meta-steps."""
        for _ in range(1 if self.coordinate_steps > LARGE else 2):
            self.meta_step(side)
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        status = Path("/proc/self/status")
        if status.exists():  # ru_maxrss would count the parent at the time of the fork
            lines = status.read_text(encoding="utf-8").splitlines()
            (line,) = (line for line in lines if line.startswith("VmHWM"))
            return 1024 * int(line.split()[1])
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_in_own_process(arguments: argparse.Namespace, name: str, side: str, unroll: int) -> int:
    """Bytes."""
    options = ["--device", arguments.device, "--backend", arguments.backend]
    options += ["--threads", str(torch.get_num_threads())]
    command = [sys.executable, __file__, "--peak", name, side, str(unroll), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def foretold_peak(arguments: argparse.Namespace, name: str) -> float:
    """Bytes of the textbook loop, from two short unrolls."""
    one, two = (peak_in_own_process(arguments, name, "textbook", unroll) for unroll in (1, 2))
    return one + (two - one) * (UNROLL - 1)


def available_bytes(device: torch.device) -> float:
    """What the textbook loop could have."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    group = Path("/sys/fs/cgroup/memory.max")
    if group.exists() and (limit := group.read_text(encoding="utf-8").strip()) != "max":
        limits.append(int(limit))
    return min(limits)


def measure(name: str, arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Everything about one case."""
    bench = Bench(CASES[name], device, backend=arguments.backend)
    functions, n = bench.at.parameters.shape
    foretold = foretold_peak(arguments, name) if bench.coordinate_steps > LARGE else 0.0
    fits = foretold < HEADROOM * available_bytes(device)
    sides = tuple(side for side in bench.case.sides if fits or side != "textbook")
    error = bench.meta_gradient_error() if fits else None
    if not fits:
        bench.meta_step("ours")  # a warm-up
    bench.run(arguments.seconds, sides)
    median = {side: statistics.median(bench.seconds[side]) for side in sides}
    measured = [side for side in sides if side in SIDES]
    peak = {side: peak_in_own_process(arguments, name, side, UNROLL) for side in measured}
    parts = {part: statistics.median(times) for part, times in bench.parts.items()}
    return {
        "name": name,
        "coordinates": n,
        "functions": functions,
        "unroll": UNROLL,
        "textbook_seconds": median.get("textbook"),
        "seconds": median["ours"],
        "speedup": median["textbook"] / median["ours"] if fits else None,
        "first_order_seconds": median.get(FIRST_ORDER),
        "textbook_peak_bytes": peak.get("textbook"),
        "peak_bytes": peak["ours"],
        "meta_gradient_error": error,
        "spread": {side: spread(bench.seconds[side]) for side in sides},
        "shares": {part: seconds / median["ours"] for part, seconds in parts.items()},
        "foretold_textbook_bytes": foretold,
    }


def spread(seconds: list[float]) -> float:
    """Half the distance of the quartiles, as a share of the median."""
    if len(seconds) < 2:
        return 0.0
    low, median, high = statistics.quantiles(seconds, n=4)
    return (high - low) / 2 / median


JSON_KEYS = (
    "name",
    "coordinates",
    "functions",
    "unroll",
    "textbook_seconds",
    "seconds",
    "speedup",
    "first_order_seconds",
    "textbook_peak_bytes",
    "peak_bytes",
    "meta_gradient_error",
)


def show(cases: list[dict[str, Any]], where: str) -> None:
    """A table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"one meta-step of {UNROLL} steps, {where}", title_justify="left")
    for heading in ("case", "functions × coordinates", "difference", "textbook", "l2lgd"):
        table.add_column(heading, justify="right")
    for heading in (
        "speedup",
        "to first order",
        "M coordinate-steps/s",
        "memory: textbook",
        "l2lgd",
    ):
        table.add_column(heading, justify="right")
    table.add_column("optimizee + rollout + replay", justify="right")
    for case in cases:
        fits = case["textbook_seconds"] is not None
        slow = timing(case["textbook_seconds"], case["spread"]["textbook"]) if fits else "–"
        work = case["functions"] * case["coordinates"] * UNROLL
        shares, first = case["shares"], case["first_order_seconds"]
        table.add_row(
            case["name"],
            f"{case['functions']} × {case['coordinates']:,}",
            f"{case['meta_gradient_error']:.0e}" if fits else "–",
            slow,
            timing(case["seconds"], case["spread"]["ours"]),
            f"{case['speedup']:.2f} ×" if fits else "–",
            f"{case['seconds'] / first:.2f} ×" if first else "",
            f"{work / case['seconds'] / 1e6:.2f}",
            gigabytes(case["textbook_peak_bytes"])
            if fits
            else f"would be {gigabytes(case['foretold_textbook_bytes'])}",
            gigabytes(case["peak_bytes"]),
            " + ".join(f"{shares[part]:.0%}" for part in ("optimizee", "rollout", "replay")),
        )
    Console(width=max(170, Console().width)).print(table)


def timing(seconds: float, relative: float) -> str:
    """Median and half the distance of the quartiles."""
    if seconds < 0.1:
        return f"{1000 * seconds:.1f} ms ± {relative:.0%}"
    return f"{seconds:.3f} s ± {relative:.0%}"


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES), help="some of " + ", ".join(CASES))
    parser.add_argument("--seconds", type=float, default=8.0, help="of measuring, a case")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, help="of the CPU; all cores by default")
    parser.add_argument("--backend", default="auto", choices=BACKENDS, help="of l2lgd")
    parser.add_argument(
        "--precision", default="highest", choices=runtime.PRECISIONS, help="of float32 products"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no table")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)  # case, side, unroll
    arguments = parser.parse_args()
    arguments.cases = [name.strip() for name in arguments.cases.split(",")]
    unknown = [name for name in arguments.cases if name not in CASES]
    if unknown:
        parser.error(f"no case {unknown[0]}; choose among {', '.join(CASES)}")
    if not math.isfinite(arguments.seconds):
        parser.error(f"--seconds {arguments.seconds}: must be finite")
    return arguments


def main() -> None:
    arguments = parsed()
    runtime.keep_freed_memory()
    runtime.set_precision(arguments.precision)
    device = runtime.pick_device(arguments.device)
    threads = runtime.set_threads(arguments.threads)
    if arguments.peak:
        name, side, unroll = arguments.peak
        bench = Bench(CASES[name], device, int(unroll), backend=arguments.backend)
        print(bench.peak_bytes(side))
        return
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    cases = []
    for name in arguments.cases:
        if not arguments.json:
            print(f"{name} …", file=sys.stderr)
        cases.append(measure(name, arguments, device))
    if arguments.json:
        chosen = [{key: case[key] for key in JSON_KEYS} for case in cases]
        print(json.dumps({"device": where, "threads": threads, "cases": chosen}))
    else:
        ours = CoordinatewiseLSTM(backend=arguments.backend).to(device).implementation()
        show(cases, f"{where}, {threads} threads, PyTorch {torch.__version__}, ours in {ours}")


if __name__ == "__main__":
    try:
        main()
    except UserError as problem:
        print(f"meta_step.py: {problem}", file=sys.stderr)
        sys.exit(2)
    except subprocess.CalledProcessError as problem:
        sys.exit(f"meta_step.py: the process that measures memory failed: {problem.stderr}")
