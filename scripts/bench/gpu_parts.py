"""The parts of ``gpu.py``. Each returns tables, lists of rows, and lines of text."""

import argparse
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import l2lgd
from l2lgd.config.building import build
from l2lgd.config.defaults import composed
from l2lgd.meta.estimators.replay import replay
from l2lgd.meta.evaluator import Evaluator
from l2lgd.meta.graphed import step_of
from l2lgd.meta.rollout import rollout, start
from l2lgd.meta.schedules import Unroll
from l2lgd.optimizers.base import LearnedRule
from l2lgd.pretrained.weights import load
from l2lgd.seeding import generator
from l2lgd.storage import checkpoint
from l2lgd.system import runtime
from l2lgd.tasks.vgg import DEPTHS, WIDTHS
from l2lgd.tracking.tracker import NullTracker

ROOT = Path(__file__).parents[2]
Found = dict[str, Any]
TASKS = sorted(path.stem for path in (ROOT / "conf" / "task").glob("*.yaml"))
OPTIMIZERS = sorted(path.stem for path in (ROOT / "conf" / "opt").glob("*.yaml"))
DENSE = ("bfgs", "ntm_bfgs")  # need memory that is quadratic in n
PAINTING = ("contract", "images")  # parts that need a VGG
CPU = torch.device("cpu")
CLOSE = 1e-3  # relative difference of losses and meta-gradients in float32 that rounding explains


def run(part: str, given: argparse.Namespace) -> Found:
    """One part."""
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        if part in PAINTING:
            small = given.quick or part == "contract"
            write_vgg(Path(folder) / "vgg.safetensors", small=small)
        os.environ["L2LGD_DATA"] = folder
        runtime.set_precision("highest")
        found: Found = PARTS[part](torch.device(given.device), given.quick, Path(folder))
        return found


def so_far(*tables: list[dict[str, Any]]) -> None:
    """Leave the rows that there are, in case that the part does not end."""
    path = Path(sys.argv[sys.argv.index("--result") + 1])
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"tables": [rows for rows in tables if rows]}), "utf-8")
    new.replace(path)


# Data


def lay_out(folder: Path) -> None:
    """A data_dir of random pictures."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for name, shape in (("mnist", (28, 28)), ("cifar10", (32, 32, 3))):
        for part, count in (("train", 30), ("test", 10)):
            for label in range(10):
                own = folder / name / part / str(label)
                own.mkdir(parents=True)
                for index in range(count):
                    pixels = draw.integers(20 * label, 20 * label + 60, shape, dtype=np.uint8)
                    Image.fromarray(pixels).save(own / f"{index}.png")
    for part in ("train", "validation", "test"):
        own = folder / "neural_art" / "content" / part
        own.mkdir(parents=True)
        for index in range(4):
            picture(draw, 320).save(own / f"{index}.png")
    picture(draw, 320).save(folder / "style.png")


def write_vgg(path: Path, small: bool) -> None:
    """A VGG-16 with random weights, of few channels where it is small."""
    tensors, inputs = {}, 3
    for block, depth in enumerate(DEPTHS["vgg16"]):
        for layer in range(depth):
            outputs = 4 if small else WIDTHS[block]
            kernel = torch.randn(outputs, inputs, 3, 3, generator=generator(0, block, layer))
            tensors[f"conv{block + 1}_{layer + 1}.weight"] = kernel * (2 / (9 * inputs)) ** 0.5
            tensors[f"conv{block + 1}_{layer + 1}.bias"] = torch.zeros(outputs)
            inputs = outputs
    about = {"network": "vgg16", "name": "random", "mean": [120.0] * 3, "std": [60.0] * 3}
    checkpoint.save(path, tensors, about)


def picture(draw: np.random.Generator, size: int) -> Any:
    from PIL import Image

    coarse = draw.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def node(group: str, *overrides: str) -> dict[str, Any]:
    """A group of the config of ``l2lgd evaluate``."""
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(composed("evaluate", overrides), resolve=True)
    return dict(found[group])


def task_of(
    name: str, folder: Path, device: torch.device, size: int = 32, batch: int | None = None
) -> Any:
    """A task of the config group, set up."""
    config = node("task", f"task={name}", "opt=adam")
    if batch is not None and "batch_size" in config:
        config["batch_size"] = batch
    if "vgg" in config:
        config["vgg"]["weights"] = str(folder / "vgg.safetensors")
        config |= {"style": str(folder / "style.png"), "size": size}
    task: Any = build(config, "task")
    task.setup(str(folder), device)
    return task


def optimizer_of(name: str, task: str, device: torch.device) -> Any:
    """An optimizer of the config group; weights are drawn, a rate is 0.01."""
    config = node("opt", f"task={task}", f"opt={name}")
    if "learning_rate" in config:
        config["learning_rate"] = 0.01
    found: Any = build(config, "opt")
    if isinstance(found, LearnedRule):
        found.reset_parameters(generator(0, "phi"))
        found.to(device)
    return found


def relative(one: Tensor, other: Tensor) -> float:
    """‖one − other‖ / ‖other‖."""
    other = other.double().cpu()
    return ((one.double().cpu() - other).norm() / other.norm().clamp(min=1e-30)).item()


# Parts


def contract(device: torch.device, quick: bool, folder: Path) -> Found:
    rows = []
    first = ("quadratic", "mnist")
    for task in first if quick else sorted(TASKS, key=lambda name: name not in (*first, "cifar10")):
        ready = [(place, task_of(task, folder, place, batch=8)) for place in (device, CPU)]
        for name in ("lstm", "lstm_gac", "adam") if quick else OPTIMIZERS:
            if name in DENSE and not task.startswith("quadratic"):
                continue
            row: dict[str, Any] = {"task": task, "optimizer": name}
            try:
                here, there = (unrolled(name, task, own, place) for place, own in ready)
                differences = [relative(*pair) for pair in zip(here, there, strict=True)]
                row["largest difference"] = worst = max(differences)
                row["holds"] = worst < CLOSE
            except Exception as error:
                row["holds"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            rows.append({"largest difference": "", **row})
            so_far(rows)
    passed, said = tests_that_need_a_gpu(device)
    found: Found = {"tables": [rows], "text": [said]}
    if wrong := sum(row["holds"] is not True for row in rows):
        found["failed"] = f"{wrong} of {len(rows)} pairs are not as on the CPU"
    elif not passed:
        found["failed"] = "the tests that need a GPU"
    return found


def unrolled(name: str, task: str, ready: Any, device: torch.device) -> list[Tensor]:
    """Losses of two steps, and meta-gradients with second derivatives and without."""
    optimizee = ready.sample("train", 2, generator(0, "contract"))
    optimizer = optimizer_of(name, task, device)
    found = []
    for second in (False, True) if optimizer.phi() else (False,):
        at = start(optimizer, optimizee)
        record, _ = rollout(at, 2, keep_path=second, step=step_of(at))
        found.append(record.losses)
        if optimizer.phi():
            replay(record, Unroll([2]).objective(2), smoothing=1.0)
            found.append(torch.cat([weight.grad.flatten() for weight in optimizer.phi()]))
            for weight in optimizer.phi():
                weight.grad = None
    return found


def tests_that_need_a_gpu(device: torch.device) -> tuple[bool, str]:
    """Did they pass, and what pytest says in the end."""
    if device.type == "cpu":
        return True, "pytest: not without a GPU"
    files = ["pretrained/test_learned_optimizer.py", "kernels/test_kernels_triton.py"]
    words = ["-m", "pytest", *(f"tests/{name}" for name in files), "-k", "cuda or triton"]
    ran = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    said = (ran.stdout + ran.stderr).strip()
    return ran.returncode == 0, f"pytest: {said[-600:]}"


def meta_step(device: torch.device, quick: bool, folder: Path) -> Found:
    names = ("quadratic-128", "mnist-1", "mnist-16", "mlp-1m", "mnist-1-second", "mnist-8-second")
    cases = [(name, "highest") for name in names] + [("mnist-16", "high"), ("mlp-1m", "high")]
    if quick:
        cases = [("quadratic-128", "highest")]
    script = str(ROOT / "scripts" / "bench" / "meta_step.py")
    rows, text = [], []
    for case, precision in cases:
        words = ["--cases", case, "--device", device.type, "--precision", precision, "--json"]
        words += ["--seconds", "0" if quick else "3"]
        ran = subprocess.run(
            [sys.executable, script, *words], capture_output=True, text=True, check=False
        )
        if ran.returncode:
            text.append(f"{case}: {ran.stderr[-1000:]}")
        else:
            rows += [{"precision": precision, **row} for row in json.loads(ran.stdout)["cases"]]
            so_far(rows)
    return {"tables": [rows] if rows else [], "text": text}


def evaluate(device: torch.device, quick: bool, folder: Path) -> Found:
    functions, steps = (4, 5) if quick else (100, 100)
    rates = {"sgd": 0.01, "rmsprop": 0.01, "adam": 0.01, "nag": 0.01}
    rows = []
    for task in ("quadratic", "mnist"):
        for name in ("lstm", *rates):
            row: dict[str, Any] = {"task": task, "optimizer": name}
            curves = []
            for label, place in (("here", device), ("CPU", CPU)):
                ready = task_of(task, folder, place)
                chosen: Any = (
                    load(f"{task}-lstm").to(place)
                    if name == "lstm"
                    else optimizer_of(name, task, place)
                )
                evaluator = Evaluator(ready, 0, NullTracker())
                evaluator.evaluate(chosen, "test", functions, 2)  # compiles, allocates
                with timed(place) as seconds:
                    found = evaluator.evaluate(chosen, "test", functions, steps)
                curves.append(found.losses.double().cpu())
                row[f"{label}, s"] = seconds[0]
            one, other = curves
            row["first steps, difference"] = relative(one[:6], other[:6])
            row["mean of the last ten, ratio"] = (one[-10:].mean() / other[-10:].mean()).item()
            rows.append(row)
            so_far(rows)
    return {"tables": [rows]}


def images(device: torch.device, quick: bool, folder: Path) -> Found:
    rows = []
    size = 32 if quick else 256
    for task, label in (("cifar10", "convnet, batch of 128"), ("neural_art", f"{size} × {size}")):
        ready = task_of(task, folder, device, size)
        for count in (1, 4):
            optimizee = ready.sample("train", count, generator(0, "images"))
            at = start(optimizer_of("lstm", task, device), optimizee)
            for precision in ("highest", "high"):
                runtime.set_precision(precision)
                row = {"what": label, "functions": count, "coordinates": at.parameters.shape[1]}
                row["precision"] = precision
                work: dict[str, Callable[[], object]] = {
                    "forward, ms": functools.partial(optimizee.loss, at.parameters, 0),
                    "and backward, ms": functools.partial(
                        optimizee.loss_and_gradient, at.parameters, 0
                    ),
                    "a step, ms": functools.partial(step_of(at), at),
                }
                times = {name: 1e3 * best(do, device, quick) for name, do in work.items()}
                rows.append(row | times)
                so_far(rows)
    return {"tables": [rows]}


def learned_optimizer(device: torch.device, quick: bool, folder: Path) -> Found:
    steps, training = [], []
    for size in (10_000,) if quick else (1_000_000, 10_000_000, 100_000_000):
        own = nn.Parameter(torch.zeros(size, device=device))
        own.grad = torch.full_like(own, 0.01)
        row: dict[str, Any] = {"coordinates": size}
        kinds: dict[str, Any] = {
            "Adam, foreach": lambda p: torch.optim.Adam(p, foreach=True),
            "Adam, fused": lambda p: torch.optim.Adam(p, fused=True),
            "learned": l2lgd.LearnedOptimizer,
            "learned, bfloat16": lambda p: l2lgd.LearnedOptimizer(p, state_dtype=torch.bfloat16),
        }
        for name, make in kinds.items():
            row[f"{name}, ms"] = 1e3 * best(make([own]).step, device, quick)
        steps.append(row)
        so_far(steps)
    for name, make in models(quick).items():
        model, batch = make()
        model.to(device)
        rates = {}
        for optimizer in (
            torch.optim.AdamW(model.parameters(), fused=True),
            l2lgd.LearnedOptimizer(model.parameters()),
        ):
            inputs = batch(device)

            def one_step(model: Any = model, inputs: Any = inputs, own: Any = optimizer) -> None:
                own.zero_grad()
                model(inputs).float().square().mean().backward()
                own.step()

            rates[type(optimizer).__name__] = len(inputs) / best(one_step, device, quick)
        adam, learned = rates.values()
        count = sum(part.numel() for part in model.parameters())
        share = {"samples per second, AdamW": adam, "learned": learned, "share": learned / adam}
        training.append({"model": name, "parameters": count, **share})
        so_far(steps, training)
    return {"tables": [steps, training]}


def models(quick: bool) -> dict[str, Callable[[], tuple[nn.Module, Callable[..., Tensor]]]]:
    """Models, and random batches for them."""

    def transformer() -> tuple[nn.Module, Callable[..., Tensor]]:
        width, depth = (32, 1) if quick else (384, 6)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, norm_first=True)
        network = nn.Sequential(nn.TransformerEncoder(layer, depth, enable_nested_tensor=False))
        return network, lambda device: torch.randn(16, 128, width, device=device)

    def vit() -> tuple[nn.Module, Callable[..., Tensor]]:
        from torchvision.models import vit_b_16

        return vit_b_16(), lambda device: torch.randn(32, 3, 224, 224, device=device)

    small = {"transformer": transformer}
    return small if quick else {**small, "ViT-B/16": vit}


def determinism(device: torch.device, quick: bool, folder: Path) -> Found:
    steps = 12 if quick else 60
    words = ["meta-train", "task=quadratic", "logger=none", "deterministic=true", "threads=1"]
    words += [f"device={device.type}", f"meta_steps={steps}", "num_functions=8", "num_steps=40"]
    words += ["validate_every=6", "validation_functions=4", "checkpoint_every=1"]
    rows, weights = [], {}
    for name in ("first", "second"):
        command(*words, f"hydra.run.dir={folder / name}")
        weights[name] = finished(folder / name)
    begun = [sys.executable, "-m", "l2lgd", *words, f"hydra.run.dir={folder / 'killed'}"]
    last = folder / "killed" / "checkpoints" / "last.safetensors"
    with subprocess.Popen(begun, cwd=folder, stdout=-3, stderr=-3) as process:
        while not last.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    command("meta-train", f"resume={folder / 'killed'}")
    weights["killed"] = finished(folder / "killed")
    for name, what in (("second", "the same run again"), ("killed", "killed, then resumed")):
        pairs = zip(weights[name].values(), weights["first"].values(), strict=True)
        rows.append({"run": what, "same bits": all(one.equal(other) for one, other in pairs)})
    return {"tables": [rows]}


def command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "l2lgd", *words], check=True, cwd=tempfile.gettempdir())


def finished(run_folder: Path) -> dict[str, Tensor]:
    """The last weights of a run."""
    tensors, _ = checkpoint.load(run_folder / "checkpoints" / "last.safetensors")
    return dict(sorted(tensors.items()))


def profile(device: torch.device, quick: bool, folder: Path) -> Found:
    from torch.profiler import ProfilerActivity

    ready = task_of("mnist", folder, device)
    at = start(optimizer_of("lstm", "mnist", device), ready.sample("train", 1, generator(0, "p")))
    text, rows = [], []
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    step, length = step_of(at), 5 if quick else 20
    for second in (False, True):
        for _ in range(2):  # the first compiles
            with torch.profiler.profile(activities=activities) as seen:
                record, _ = rollout(at, length, keep_path=second, step=step)
                replay(record, Unroll([length]).objective(length), smoothing=1.0)
                if device.type == "cuda":
                    torch.cuda.synchronize()
        names = [event.name for event in seen.events()]
        rows.append(
            {
                "meta-step": "second derivatives" if second else "first order",
                "kernel launches": sum(n.startswith(("cudaLaunch", "cuLaunch")) for n in names),
                "graph launches": sum(n.startswith("cudaGraphLaunch") for n in names),
                "copies": sum(n.startswith("cudaMemcpy") for n in names),
                "synchronisations": sum("Synchronize" in n for n in names),
                "operations": sum(n.startswith("aten::") for n in names),
            }
        )
        by = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
        table = seen.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=60)
        text += ["```", table, "```"]
    return {"tables": [rows], "text": text}


# Clocks


@contextlib.contextmanager
def timed(device: torch.device) -> Iterator[list[float]]:
    """Seconds, when the device has done its work."""
    seconds: list[float] = []
    began = time.perf_counter()
    yield seconds
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - began)


def best(work: Callable[[], object], device: torch.device, quick: bool) -> float:
    """The shortest of several times, in seconds, after two that are not counted."""
    found = []
    for _ in range(4 if quick else 22):
        with timed(device) as seconds:
            work()
        found += seconds
    return min(found[2:])


PARTS = {
    "contract": contract,
    "meta_step": meta_step,
    "evaluate": evaluate,
    "images": images,
    "learned_optimizer": learned_optimizer,
    "determinism": determinism,
    "profile": profile,
}
