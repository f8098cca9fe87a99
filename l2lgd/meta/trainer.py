"""The trainer: meta-trains any rule on any task."""

import copy
import functools
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from l2lgd.errors import CheckpointError, ConfigError
from l2lgd.meta.estimators.base import Course, Estimator, MetaProblem
from l2lgd.meta.estimators.mixed import begin
from l2lgd.meta.evaluator import Evaluator
from l2lgd.meta.progress import MetaProgress, given_up, watch
from l2lgd.meta.schedules import Unroll, decay_factor
from l2lgd.meta.scores import score
from l2lgd.meta.state import load_last, load_weights, save_last
from l2lgd.optimizers.base import LearnedRule
from l2lgd.seeding import generator
from l2lgd.storage import checkpoint
from l2lgd.system import signals

log = logging.getLogger(__name__)


BEST = "best.safetensors"


@dataclass(frozen=True)
class MetaSettings:
    """How a meta-training is done; a meta-step is one unroll and one update of φ."""

    meta_steps: int
    meta_learning_rate: float  # of Adam, at the start
    meta_decay: str  # key of schedules.DECAYS
    meta_clip: float | None  # largest norm of the meta-gradient
    num_functions: int  # B
    num_steps: int  # T
    validate_every: int  # meta-steps
    validation_functions: int
    checkpoint_every: int  # meta-steps
    meta_average: float = 0.0  # decay a meta-step of the running mean of φ that is kept; 0 for φ

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "meta_average" and isinstance(value, int | float) and not value > 0:
                raise ConfigError(f"{name}={value}: must be positive")
        if not 0 <= self.meta_average < 1:
            raise ConfigError(f"meta_average={self.meta_average}: must be from 0 to below 1")
        decay_factor(self.meta_decay, 0.0)


class Trainer(Evaluator):
    """Meta-trains rules on a task, and evaluates them on the way."""

    def meta_train(
        self,
        optimizer: LearnedRule,
        unroll: Unroll,
        estimator: Estimator,
        settings: MetaSettings,
        folder: Path,
        provenance: dict[str, Any],
        resume: bool = False,
        from_scratch: bool = True,
        references: Mapping[str, float] | None = None,
    ) -> MetaProgress:
        """Meta-train ``optimizer``, leave its best weights in it and in ``folder`` (on rank 0).

        Args:
            folder: gets ``best.safetensors`` and ``last.safetensors``.
            provenance: stored with every checkpoint.
            resume: go on from ``last.safetensors``; the numbers are those of a run without a break.
            from_scratch: draw the initial weights; otherwise begin with those of ``optimizer``.
            references: final losses that those of each part of a task are compared with, see
                :func:`l2lgd.meta.scores.score`; no matter for a task that is its only part.

        Raises:
            Diverged: one trajectory after another, or every validation.
            UserError: a file could not be written.
        """
        meta_optimizer = torch.optim.Adam(optimizer.phi(), lr=settings.meta_learning_rate)
        problem = MetaProblem(
            optimizer,
            self.task,
            unroll,
            settings.num_functions,
            settings.num_steps,
            self.seed,
            self.ranks,
        )
        last, best = folder / "last.safetensors", folder / BEST
        decay = get_ema_multi_avg_fn(settings.meta_average)
        if resume:
            averaged = AveragedModel(optimizer, multi_avg_fn=decay)
            saved = load_last(last, optimizer, averaged, meta_optimizer, self.ranks.rank)
            progress = saved.progress
            course = begin(estimator, problem, progress.trajectory)
            course.restore(saved.step, saved.marks, saved.tensors)
            keep = saved.whole
            if math.isfinite(progress.best_validation_loss):
                _agree_with(best, optimizer, progress)
        else:
            if from_scratch:
                optimizer.reset_parameters(generator(self.seed, "phi"))
            averaged = AveragedModel(optimizer, multi_avg_fn=decay)
            progress, keep = MetaProgress(), True
            course = begin(estimator, problem)
        provenance = provenance | {"processes": self.ranks.size}
        validation = functools.partial(
            self._validate,
            settings=settings,
            folder=folder,
            provenance=provenance,
            progress=progress,
            references=references,
        )
        while progress.meta_step < settings.meta_steps:
            signals.check()
            began = time.monotonic()
            self._meta_step(optimizer, meta_optimizer, settings, progress, course, best)
            averaged.update_parameters(optimizer)
            progress.seconds += time.monotonic() - began
            done = progress.meta_step == settings.meta_steps
            if done or progress.meta_step % settings.validate_every == 0:
                validation(_rule_in(averaged))
            progress.total_seconds += time.monotonic() - began
            if done or progress.meta_step % settings.checkpoint_every == 0:
                everyones = self.ranks.collect(course.tensors())
                if self.ranks.leads:
                    with signals.held():
                        self.tracker.flush()
                        save_last(
                            last,
                            optimizer,
                            averaged,
                            meta_optimizer,
                            progress,
                            course,
                            everyones,
                            provenance,
                            keep,
                        )
                keep = True
        if resume and not math.isfinite(progress.best_validation_loss):  # its file was damaged
            validation(_rule_in(averaged))
        if not math.isfinite(progress.best_validation_loss):
            raise given_up("every validation diverged", progress, best)
        if self.ranks.leads:
            load_weights(best, optimizer)
        return progress

    def _meta_step(
        self,
        optimizer: LearnedRule,
        meta_optimizer: torch.optim.Optimizer,
        settings: MetaSettings,
        progress: MetaProgress,
        course: Course,
        best: Path,
    ) -> None:
        """One unroll, one update of φ."""
        fraction = progress.meta_step / settings.meta_steps
        unrolled = course.unroll(fraction)
        if unrolled.ended is not None:
            watch(progress, unrolled.ended.ratio, unrolled.ended.diverged, best)
        norm = torch.nn.utils.clip_grad_norm_(
            optimizer.phi(), settings.meta_clip or math.inf
        ).item()
        rate = settings.meta_learning_rate * decay_factor(settings.meta_decay, fraction)
        used = unrolled.count > 0 and math.isfinite(norm)
        if used:
            for group in meta_optimizer.param_groups:
                group["lr"] = rate
            meta_optimizer.step()
        else:
            progress.skipped += 1
        course.settle(used)
        progress.trajectory = course.trajectory
        progress.meta_step += 1
        progress.coordinate_steps += unrolled.coordinate_steps
        self.tracker.log(
            progress.meta_step,
            {
                **unrolled.numbers,
                "meta_gradient_norm": norm,
                "meta_learning_rate": rate,
                "unroll_length": unrolled.length,
                "trajectory": progress.trajectory,
                "diverged": unrolled.diverged,
                "skipped": progress.skipped,
            },
        )
        self.tracker.progress(
            progress.meta_step, settings.meta_steps, unrolled.step, unrolled.horizon
        )

    def _validate(
        self,
        optimizer: LearnedRule,
        settings: MetaSettings,
        folder: Path,
        provenance: dict[str, Any],
        progress: MetaProgress,
        references: Mapping[str, float] | None,
    ) -> None:
        """Measure the final loss on the fixed validation problems and keep the best weights."""
        losses = self.final_losses(optimizer, settings.validation_functions, settings.num_steps)
        loss, several = score(losses, references), len(losses) > 1
        if loss < progress.best_validation_loss:
            progress.best_validation_loss, progress.best_meta_step = loss, progress.meta_step
            found: dict[str, Any] = {"validation_loss": loss, "meta_step": progress.meta_step}
            found |= {"validation_losses": losses} if several else {}
            if self.ranks.leads:
                tensors = optimizer.state_dict()
                with signals.held():
                    checkpoint.save(folder / BEST, tensors, provenance | found)
        self.tracker.log(
            progress.meta_step,
            {
                "validation_loss": loss,
                **({f"validation_loss/{name}": f for name, f in losses.items()} if several else {}),
                "best_validation_loss": progress.best_validation_loss,
            },
        )
        note = f"validation {loss:.4g}, best {progress.best_validation_loss:.4g}"
        if several:
            note += f" ({', '.join(f'{name} {own:.4g}' for name, own in losses.items())})"
        self.tracker.progress(
            progress.meta_step, settings.meta_steps, settings.num_steps, settings.num_steps, note
        )
        log.info("meta-step %d of %d: %s", progress.meta_step, settings.meta_steps, note)


def _agree_with(best: Path, optimizer: LearnedRule, progress: MetaProgress) -> None:
    """Believe the file of the best weights, which may be gone, or of a later attempt."""
    try:
        found = load_weights(best, copy.deepcopy(optimizer))
    except CheckpointError:
        log.warning("%s is missing or damaged: the next validation writes it anew", best)
        progress.best_validation_loss = math.inf
        return
    loss = found.get("validation_loss", math.inf)
    if loss > progress.best_validation_loss:  # it was written anew, after the best had been lost
        progress.best_validation_loss = loss
        progress.best_meta_step = found.get("meta_step", 0)


def _rule_in(averaged: AveragedModel) -> LearnedRule:
    rule = averaged.module
    assert isinstance(rule, LearnedRule)
    return rule
