"""What is measured of an optimizer on a task, or was measured before."""

import logging
import statistics
import time
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from l2lgd.benchmark.contestants import Contestant
from l2lgd.benchmark.store import Measurement, Measurements
from l2lgd.benchmark.suite import BenchmarkTask, in_place
from l2lgd.config.overrides import option
from l2lgd.config.packages import sources_of
from l2lgd.config.schemas import Benchmark
from l2lgd.evaluation.baselines import needs_tuning
from l2lgd.evaluation.keys import problem_of
from l2lgd.evaluation.learned import composed_with
from l2lgd.evaluation.space_tuning import SpaceTuning
from l2lgd.meta.evaluator import Evaluator
from l2lgd.meta.held_out import held_out_losses
from l2lgd.meta.rollout import Position, reported_parameters
from l2lgd.optimizers.base import Optimizer, given_part
from l2lgd.runs.run import Run
from l2lgd.seeding import derive_seed, generator
from l2lgd.storage.paths import as_typed
from l2lgd.tasks.base import Optimizee, Task
from l2lgd.tasks.module import ModuleTask
from l2lgd.tracking.tracker import NullTracker

log = logging.getLogger(__name__)

OURS = Path(__file__).parent / "reference"  # tuned Adam on the suites
AT_ONCE = 5  # functions that are drawn together, whatever number of them is measured
LARGE = 200_000  # coordinates, from which on functions are measured one by one, to save memory
COMMON = (object, ABC, Task, ModuleTask)  # classes that say nothing about a task
TIMED = 5  # steps, whose median is the time of the optimizer


@dataclass(frozen=True)
class OfTask:
    """What was measured on a task.

    Args:
        family: the classes that the task is of.
        measured: by optimizer, one measurement of every five functions; None of what is missing.
        searches: by optimizer, the settings that were found and all trials.
    """

    entry: BenchmarkTask
    data: dict[str, object] | None
    coordinates: int
    family: list[str]
    measured: dict[str, list[Measurement] | None]
    searches: dict[str, dict[str, Any]]

    @property
    def missing(self) -> bool:
        """Is there an optimizer that was not measured?"""
        return None in self.measured.values()


class Bench:
    """A task that is set up for measurements.

    Args:
        folder: of the run.

    Raises:
        ConfigError: the task's options cannot be right.
        DataUnavailable: it lacks its data.
    """

    def __init__(self, entry: BenchmarkTask, options: Benchmark, folder: Path) -> None:
        self.entry, self.options = entry, options
        words = [
            *entry.options,
            "opt=adam",
            "logger=none",
            "threads=1",
            f"num_steps={entry.num_steps}",
            f"num_functions={AT_ONCE}",
            f"seed={options.seed}",
            f"tune_functions={options.tune_functions}",
            option("device", options.device),
            option("data_dir", options.data_dir),
            option("tuned_dir", options.tuned_dir),
            f"allow_targets=[{','.join(options.allow_targets)}]",
        ]
        with in_place(entry.name):
            config = OmegaConf.create(composed_with(*words, verb="evaluate"))
            run = Run.of(config, "evaluate", folder, entry.name, "adam")
        self.run = replace(run, verb="benchmark")  # for the commands that files keep
        self.run.refuse_mixture()
        self.store = Measurements([OURS, as_typed(options.results_dir)])

    def measure(self, contestants: list[Contestant], make: bool) -> OfTask:
        """All of these optimizers.

        Args:
            make: what is missing; otherwise it stays so.
        """
        measured: dict[str, list[Measurement] | None] = {}
        searches: dict[str, dict[str, Any]] = {}
        for one in contestants:
            ready = self._ready(one, make)
            if ready is None:
                measured[one.name] = None
                continue
            node, search = ready
            if search is not None:
                searches[one.name] = search
            found = [self._block(one, node, block, make) for block in self._blocks()]
            whole = [part for part in found if part is not None]
            measured[one.name] = whole if len(whole) == len(found) else None
        data, functions = self.run.task.data_description(), self._functions(0)
        coordinates = functions.initial_parameters.shape[1]
        family = [kind.__name__ for kind in type(self.run.task).__mro__ if kind not in COMMON]
        return OfTask(self.entry, data, coordinates, family, measured, searches)

    def _ready(
        self, one: Contestant, make: bool
    ) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
        """Its config, at its best settings where it is tuned, and their search."""
        node = one.node(self.entry.options)
        if one.learned or not needs_tuning(node):
            return node, None
        trials, told = self.options.trials, self.run.options
        functions, seed = told.tune_functions, told.tune_seed
        tuning = SpaceTuning(self.run, one.name, node, trials, functions, seed, "train", OURS)
        search = tuning.search(must_converge=False) if make else tuning.known()
        if search is None:
            return None
        return {**node, **search.best.settings}, {**search.told(), "at_an_end": search.at_an_end}

    def _blocks(self) -> range:
        return range(-(-self.options.seeds // AT_ONCE))

    def _functions(self, block: int) -> Optimizee:
        draw = generator(self.options.seed, "benchmark", block)
        return self.run.task.sample("train", AT_ONCE, draw)

    def _block(
        self, one: Contestant, node: Mapping[str, Any], block: int, make: bool
    ) -> Measurement | None:
        """Measured now or before, on up to five functions."""
        count = min(AT_ONCE, self.options.seeds - block * AT_ONCE)
        optimizer = one.built(self.run, node)
        key = {
            **problem_of(self.run),
            "optimizer_name": one.weights.path.stem if one.weights else one.name,
            "task_sources": sources_of(self.run.config["task"]),
            **one.identity(node, optimizer),
            "num_steps": self.entry.num_steps,
            "seed": self.options.seed,
            "block": block,
            "device": self.run.device.type,
        }
        if self.run.options.matmul_precision != "highest":
            key["matmul_precision"] = self.run.options.matmul_precision
        found = self.store.find(key | {"functions": count})
        if found is not None:
            return found
        found = self.store.find(key | {"functions": AT_ONCE})
        if found is not None:  # of which the first are as good, but for their last digits
            return _first(found, count)
        if not make:
            return None
        key["functions"] = count
        log.info("%s: %s is being measured", self.entry.name, one.name)
        functions = self._functions(block)
        together = count if functions.initial_parameters.shape[1] < LARGE else 1
        parts = [
            self._measured(optimizer, functions, slice(row, min(row + together, count)), block)
            for row in range(0, count, together)
        ]
        measurement = joined(parts)
        self.store.keep(key, measurement, self.run.command())
        return measurement

    def _measured(
        self, optimizer: Optimizer, functions: Optimizee, rows: slice, block: int
    ) -> Measurement:
        """Of some of the functions of a block, at once."""
        task, seed, steps = self.run.task, self.options.seed, self.entry.num_steps
        chosen, count = functions.select(rows), rows.stop - rows.start
        began = time.perf_counter()
        losses, at = Evaluator(task, seed, NullTracker()).path(optimizer, chosen, steps)
        _wait(at.parameters)
        seconds = time.perf_counter() - began
        own = derive_seed(seed, "held out", block)
        held_out = held_out_losses(task, functions, reported_parameters(at), "test", own, rows=rows)
        about = {
            "seconds": seconds / steps / count,
            "optimizer_seconds": _optimizer_seconds(at) / count,
            "stochastic": functions.stochastic,
            "coordinates": functions.initial_parameters.shape[1],
        }
        return Measurement(losses.cpu(), held_out, about)


def joined(parts: Sequence[Measurement]) -> Measurement:
    """Of all functions; what is said about them is that of the first."""
    held_out = [part.held_out for part in parts if part.held_out is not None]
    return Measurement(
        torch.cat([part.losses for part in parts], dim=1),
        torch.cat(held_out) if held_out else None,
        parts[0].about,
    )


def _first(found: Measurement, count: int) -> Measurement:
    held_out = None if found.held_out is None else found.held_out[:count]
    return Measurement(found.losses[:, :count], held_out, found.about)


@torch.no_grad()
def _optimizer_seconds(at: Position) -> float:
    """Of a step of the optimizer alone, from where a trajectory has ended."""
    seen, times = at.seen(), []
    states = list(at.states)
    for _ in range(TIMED):
        began = time.perf_counter()
        for index, block in enumerate(at.blocks):
            _, states[index] = at.optimizer.step(
                at.gradient[block], states[index], **given_part(seen, block)
            )
        _wait(at.parameters)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _wait(parameters: Tensor) -> None:
    if parameters.device.type == "cuda":
        torch.cuda.synchronize(parameters.device)
