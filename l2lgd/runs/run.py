"""One run of a verb: its folder, its task on its device, and what it says about itself."""

import dataclasses
import logging
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from l2lgd.config.building import build
from l2lgd.config.old_names import upgraded
from l2lgd.config.options import AUGMENT
from l2lgd.config.overrides import option
from l2lgd.config.packages import packages_of
from l2lgd.config.schemas import validated
from l2lgd.config.titles import title_of
from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import LearnedRule, Optimizer
from l2lgd.results.summary import versions
from l2lgd.runs.evaluation_options import options_of_evaluation
from l2lgd.storage import locks
from l2lgd.storage.paths import where_typed
from l2lgd.system import launch, runtime, signals
from l2lgd.system.ranks import local_device
from l2lgd.tasks.augmentation import Augmentation, Augmented
from l2lgd.tasks.base import Task
from l2lgd.tasks.description import checked
from l2lgd.tracking.loggers import About, Logger
from l2lgd.tracking.tracker import RunTracker

LICENCE = "Apache-2.0"  # of trained weights


log = logging.getLogger(__name__)


@dataclasses.dataclass
class Run:
    """What every verb needs."""

    verb: str
    folder: Path
    config: dict[str, Any]  # as composed, interpolations resolved
    options: Any  # the same, typed by the verb's schema
    task: Task
    task_name: str
    opt_name: str
    device: torch.device
    threads: int
    began: float = dataclasses.field(default_factory=time.monotonic)

    @classmethod
    def prepare(cls, config: DictConfig, verb: str, dtype: torch.dtype = torch.float32) -> "Run":
        """Check the config, then set up device, threads and task.

        Raises:
            ConfigError: an option is unknown, of the wrong type or out of range.
            DataUnavailable: the task's data cannot be had.
        """
        hydra = HydraConfig.get().runtime
        choices = hydra.choices
        return cls.of(config, verb, Path(hydra.output_dir), choices["task"], choices["opt"], dtype)

    @classmethod
    def of(
        cls,
        config: DictConfig,
        verb: str,
        folder: Path,
        task_name: str,
        opt_name: str,
        dtype: torch.dtype = torch.float32,
    ) -> "Run":
        """The same of a config that need not be the command line's, in a folder of its own."""
        signals.check()
        options = validated(config, verb)
        plain = upgraded(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
        for name in ("num_functions", "num_steps"):
            if getattr(options, name) < 1:
                raise ConfigError(f"{name}={getattr(options, name)}: must be at least 1")
        runtime.keep_freed_memory()
        runtime.set_deterministic(options.deterministic)
        runtime.set_precision(options.matmul_precision)
        threads = runtime.set_threads(options.threads)
        device = runtime.pick_device(local_device(options.device))
        if device.type == "cuda":
            torch.cuda.set_device(device)  # Triton launches on the current one
        task = _task(plain["task"], options.allow_targets)
        task.setup(options.data_dir, device, dtype)
        try:
            checked(task.data_description())
        except ConfigError as error:
            raise ConfigError(f"task={task_name}: {error}") from error
        if launch.rank() == 0:
            locks.hold(folder)
        return cls(
            verb.replace("_", "-"),
            folder,
            plain,
            options,
            task,
            task_name,
            opt_name,
            device,
            threads,
        )

    def parts(self) -> dict[str, "Run"]:
        """By part of its task, the run as one of that part alone."""
        nodes, choices = self.config["task"].get("tasks", {}), HydraConfig.get().runtime.choices
        return {
            name: dataclasses.replace(
                self,
                config={
                    **self.config,
                    "task": nodes.get(name, self.config["task"]),
                    "num_steps": part.num_steps or self.options.num_steps,
                },
                options=dataclasses.replace(
                    self.options, num_steps=part.num_steps or self.options.num_steps
                ),
                task=part.task,
                task_name=choices.get(f"task@task.tasks.{name}", name),
            )
            for name, part in self.task.parts().items()
        }

    def refuse_mixture(self) -> None:
        """Raise ConfigError where the task has several parts, whose losses do not compare."""
        names = [own.task_name for own in self.parts().values()]
        if len(names) > 1:
            raise ConfigError(
                f"task={self.task_name} is a mixture, whose losses do not compare; run l2lgd "
                f"{self.verb} for its tasks one by one: {', '.join(f'task={n}' for n in names)}"
            )

    def build_optimizer(self, node: Mapping[str, Any], path: str = "opt") -> Optimizer:
        """The optimizer that a config node describes, on the run's device."""
        optimizer = build(node, path, self.options.allow_targets, Optimizer)
        if isinstance(optimizer, LearnedRule):
            optimizer.to(self.device, self.task.dtype)
        return optimizer

    def tracker(
        self,
        labels: tuple[str, str],
        resume_at: int | None = None,
        logger_id: str | None = None,
        folder: Path | None = None,
    ) -> RunTracker:
        """Metrics of this run; to be closed.

        Args:
            labels: of the outer and the inner progress bar.
            resume_at, logger_id: where a run goes on, and what its logger called it.
            folder: another one than the run's, of a part of it whose bars go when it has ended.
        """
        hydra = HydraConfig.get()
        swept = hydra.mode == RunMode.MULTIRUN
        about = About(
            folder or self.folder,
            f"{self.verb}-{self.task_name}-{self.opt_name}",
            self.config,
            Path(hydra.sweep.dir).name if swept else None,
            logger_id,
            resume_at,
        )
        logger = build(self.config["logger"], "logger", self.options.allow_targets, Logger)
        return RunTracker(about, labels, logger, quiet=swept, stay=folder is None)

    def say_what_runs(self, optimizer: LearnedRule) -> None:
        """Tell the log in what language and where ``opt`` runs."""
        log.info(
            "opt=%s in %s on %s, threads=%d",
            self.opt_name,
            optimizer.implementation(),
            self.device,
            self.threads,
        )

    def command(self) -> str:
        """The command line that gives this run, with or without a break."""
        given = [o for o in HydraConfig.get().overrides.task if not o.startswith("resume=")]
        return shlex.join([*launch.program(), self.verb, *own_configs(where_typed()), *given])

    def typed_in(self) -> str:
        """The folder that its relative paths are of, as seen from the run folder."""
        return os.path.relpath(where_typed(), self.folder)

    def evaluation_of(self, weights: Path) -> str:
        """The command line that evaluates trained weights on this task."""
        choices = [f"task={self.task_name}", f"opt={self.opt_name}"]
        allowed = ",".join(self.options.allow_targets)
        words = [option("checkpoint", weights)]
        words += [f"allow_targets=[{allowed}]"] if allowed else []
        words += options_of_evaluation(self.config, choices)
        here = Path(HydraConfig.get().runtime.cwd)
        return shlex.join(["l2lgd", "evaluate", *own_configs(here), *choices, *words])

    def provenance(self) -> dict[str, Any]:
        """What a checkpoint says about where it comes from."""
        return {
            "opt": self.config["opt"],
            "opt_name": self.opt_name,
            "task": self.config["task"],
            "task_name": self.task_name,
            "data": self.task.data_description(),
            "command": self.command(),
            "seed": self.options.seed,
            "threads": self.threads,
            "device": str(self.device),
            "processor": runtime.processor(self.device),
            "versions": versions(),
            "packages": packages_of(self.config["opt"]),
            "licence": LICENCE,
        }

    def summary(self, split: str, seconds: float | None = None, **found: Any) -> dict[str, Any]:
        """``summary.json``: what was run, then what was found, then where and how long."""
        return {
            "verb": self.verb,
            "task": self.task_name,
            "split": split,
            "num_functions": self.options.num_functions,
            "num_steps": self.options.num_steps,
            "seed": self.options.seed,
            "data": _of_split(self.task.data_description(), split),
            **found,
            "command": self.command(),
            "versions": versions(),
            "device": str(self.device),
            "threads": self.threads,
            "seconds": time.monotonic() - self.began if seconds is None else seconds,
        }

    def title(self) -> str:
        """Of pictures: the task in words."""
        hydra = HydraConfig.get()
        sources = hydra.runtime.config_sources
        folders = [Path(s.path) for s in sources if s.schema == "file"]
        return title_of(self.task_name, hydra.overrides.task, folders)


def _task(node: Mapping[str, Any], allow_targets: Sequence[str]) -> Task:
    """The task of a config, augmented where that says so."""

    def built(own: Mapping[str, Any]) -> Task:
        return build(own, "task", allow_targets, Task)  # type: ignore[type-abstract]

    told, task = node.get(AUGMENT) or {}, built(node)
    if len(task.parts()) > 1:
        for name, part in node.get("tasks", {}).items():
            if part.get(AUGMENT):
                raise ConfigError(
                    f"task.tasks.{name}.{AUGMENT}: tasks of a mixture are augmented alike; give "
                    f"task.{AUGMENT} in its place"
                )
        if told.get("variants"):
            raise ConfigError(
                f"task.{AUGMENT}.variants: a mixture has none; name each in its tasks, by a name "
                "of its own"
            )
    if not told:
        return task
    target = f"{Augmentation.__module__}.{Augmentation.__qualname__}"
    augmentation: Augmentation = build(
        {**told, "_target_": target}, f"task.{AUGMENT}", kind=Augmentation
    )
    variants = [built({**node, **variant}) for variant in augmentation.variants]
    return Augmented(task, augmentation, variants)


def _of_split(data: Mapping[str, Any] | None, split: str) -> dict[str, Any] | None:
    """What a task says of its data, with the number of examples in one split alone."""
    if not data:
        return None
    found = {**data, "num_examples": data["num_examples"][split]}
    if "parts" in data:  # of a mixture
        found["parts"] = {name: _of_split(part, split) for name, part in data["parts"].items()}
    return found


def own_configs(here: Path) -> list[str]:
    """The words of a command line, typed in that folder, that say where else configs are."""
    hydra = HydraConfig.get()
    sources = hydra.runtime.config_sources
    folders = [os.path.relpath(s.path, here) for s in sources if s.provider == "command-line"]
    found = [word for folder in folders for word in ("--config-dir", folder)]
    return found + [o for o in hydra.overrides.hydra if o.startswith("hydra.searchpath=")]
