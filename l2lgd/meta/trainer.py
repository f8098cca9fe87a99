"""The trainer: meta-trains any rule on any task."""

import copy
import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from l2lgd.errors import CheckpointError, ConfigError
from l2lgd.meta.diverged import finite_functions, without
from l2lgd.meta.estimators.replay import replay
from l2lgd.meta.evaluator import Evaluator
from l2lgd.meta.progress import MetaProgress, given_up, watch
from l2lgd.meta.rollout import Record, rollout
from l2lgd.meta.schedules import Unroll, decay_factor
from l2lgd.meta.state import load_last, load_weights, save_last
from l2lgd.meta.trajectories import Trajectory
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
        settings: MetaSettings,
        folder: Path,
        provenance: dict[str, Any],
        resume: bool = False,
        from_scratch: bool = True,
    ) -> MetaProgress:
        """Meta-train ``optimizer``, leave its best weights in it and in ``folder`` (on rank 0).

        Args:
            folder: gets ``best.safetensors`` and ``last.safetensors``.
            provenance: stored with every checkpoint.
            resume: go on from ``last.safetensors``; the numbers are those of a run without a break.
            from_scratch: draw the initial weights; otherwise begin with those of ``optimizer``.

        Raises:
            Diverged: one trajectory after another, or every validation.
            UserError: a file could not be written.
        """
        if unroll.second_derivatives and unroll.smoothing and not optimizer.smooths:
            name = type(optimizer).__name__
            log.warning("unroll.smoothing: %s has exact second derivatives only", name)
        meta_optimizer = torch.optim.Adam(optimizer.phi(), lr=settings.meta_learning_rate)
        last, best = folder / "last.safetensors", folder / BEST
        decay = get_ema_multi_avg_fn(settings.meta_average)
        if resume:
            averaged = AveragedModel(optimizer, multi_avg_fn=decay)
            saved = load_last(last, optimizer, averaged, meta_optimizer, self.ranks.rank)
            progress = saved.progress
            trajectory = self._begun(optimizer, settings, progress)
            trajectory.restore(saved.step, saved.marks, saved.tensors)
            keep = saved.whole
            if math.isfinite(progress.best_validation_loss):
                _agree_with(best, optimizer, progress)
        else:
            if from_scratch:
                optimizer.reset_parameters(generator(self.seed, "phi"))
            averaged = AveragedModel(optimizer, multi_avg_fn=decay)
            progress, keep = MetaProgress(), True
            trajectory = self._begun(optimizer, settings, progress)
        provenance = provenance | {"processes": self.ranks.size}
        while progress.meta_step < settings.meta_steps:
            signals.check()
            began = time.monotonic()
            horizon = unroll.horizon(progress.meta_step / settings.meta_steps, settings.num_steps)
            if trajectory.hopeless or trajectory.position.step >= horizon:
                ratio = self._mean_loss(trajectory) / trajectory.initial_loss
                watch(progress, ratio, trajectory.diverged, best)
                progress.trajectory += 1
                trajectory = self._begun(optimizer, settings, progress)
            self._meta_step(optimizer, meta_optimizer, unroll, settings, progress, trajectory)
            averaged.update_parameters(optimizer)
            progress.seconds += time.monotonic() - began
            done = progress.meta_step == settings.meta_steps
            if done or progress.meta_step % settings.validate_every == 0:
                self._validate(_rule_in(averaged), settings, folder, provenance, progress)
            progress.total_seconds += time.monotonic() - began
            if done or progress.meta_step % settings.checkpoint_every == 0:
                everyones = self.ranks.collect(trajectory.tensors())
                if self.ranks.leads:
                    with signals.held():
                        self.tracker.flush()
                        save_last(
                            last,
                            optimizer,
                            averaged,
                            meta_optimizer,
                            progress,
                            trajectory,
                            everyones,
                            provenance,
                            keep,
                        )
                keep = True
        if resume and not math.isfinite(progress.best_validation_loss):  # its file was damaged
            self._validate(_rule_in(averaged), settings, folder, provenance, progress)
        if not math.isfinite(progress.best_validation_loss):
            raise given_up("every validation diverged", progress, best)
        if self.ranks.leads:
            load_weights(best, optimizer)
        return progress

    def _begun(
        self, optimizer: LearnedRule, settings: MetaSettings, progress: MetaProgress
    ) -> Trajectory:
        """Fresh functions; which ones depends on the trajectory's number alone."""
        draw = generator(self.seed, "train", progress.trajectory)
        optimizee = self.task.sample("train", settings.num_functions, draw)
        own = optimizee.select(self.ranks.share(settings.num_functions))
        trajectory = Trajectory.begin(optimizer, own)
        trajectory.initial_loss = self._mean_loss(trajectory)
        return trajectory

    def _mean_loss(self, trajectory: Trajectory) -> float:
        """Where the trajectory stands, over all functions that have not diverged."""
        losses = trajectory.position.loss
        finite = losses[losses.isfinite()]
        (mean,), count = self.ranks.mean([finite.mean()], len(finite))
        return mean.item() if count else math.nan

    def _meta_step(
        self,
        optimizer: LearnedRule,
        meta_optimizer: torch.optim.Optimizer,
        unroll: Unroll,
        settings: MetaSettings,
        progress: MetaProgress,
        trajectory: Trajectory,
    ) -> None:
        """One unroll of the trajectory, one update of φ."""
        fraction = progress.meta_step / settings.meta_steps
        horizon = unroll.horizon(fraction, settings.num_steps)
        objective = unroll.objective(horizon)
        at = replace(trajectory.position, horizon=horizon)
        length = min(unroll.length(fraction), horizon - at.step)
        meta_optimizer.zero_grad(set_to_none=True)
        second = unroll.keeps_second_derivatives(fraction)
        record, at = rollout(at, length, keep_path=second, step=trajectory.step)
        alive = finite_functions(record)
        if alive is not None:
            record = without(record, alive)
        meta_loss = replay(record, objective, unroll.smoothing, unroll.difference)
        trajectory.position = at
        numbers, count = self._mean_over_ranks(optimizer, record, meta_loss)
        norm = torch.nn.utils.clip_grad_norm_(
            optimizer.phi(), settings.meta_clip or math.inf
        ).item()
        rate = settings.meta_learning_rate * decay_factor(settings.meta_decay, fraction)
        if count and math.isfinite(norm):
            for group in meta_optimizer.param_groups:
                group["lr"] = rate
            meta_optimizer.step()
        else:
            progress.skipped += 1
            trajectory.diverged = True
        trajectory.went_on(numbers["mean_loss"], unroll.restart_above)
        progress.meta_step += 1
        progress.coordinate_steps += length * settings.num_functions * at.parameters.shape[1]
        self.tracker.log(
            progress.meta_step,
            {
                **numbers,
                "meta_gradient_norm": norm,
                "meta_learning_rate": rate,
                "unroll_length": length,
                "trajectory": progress.trajectory,
                "diverged": settings.num_functions - count,
                "skipped": progress.skipped,
            },
        )
        self.tracker.progress(progress.meta_step, settings.meta_steps, at.step, horizon)

    def _mean_over_ranks(
        self, optimizer: LearnedRule, record: Record, meta_loss: Tensor
    ) -> tuple[dict[str, float], int]:
        """Make ``.grad`` the meta-gradient over all functions that have not diverged.

        Returns:
            Numbers for the log, and how many functions these are means over.
        """
        gradients, losses = record.of_alive(record.gradients, 1), record.of_alive(record.losses, 1)
        squares = {
            "update_size": record.update_size.square(),
            "gradient_size": gradients.square().mean(),
        }
        numbers = {"meta_loss": meta_loss, "mean_loss": losses.mean(), **squares}
        for name, value in record.optimizer.input_statistics(gradients).items():
            numbers[name] = meta_loss.new_tensor(value)
        weights = optimizer.phi()
        parts = [*(weight.grad for weight in weights), *numbers.values()]
        means, count = self.ranks.mean(parts, losses.shape[1])  # type: ignore[arg-type]
        found = iter(means)
        for weight in weights:
            weight.grad = next(found)
        said = {name: value.item() for name, value in zip(numbers, found, strict=True)}
        return said | {name: math.sqrt(said[name]) for name in squares}, count

    def _validate(
        self,
        optimizer: LearnedRule,
        settings: MetaSettings,
        folder: Path,
        provenance: dict[str, Any],
        progress: MetaProgress,
    ) -> None:
        """Measure the final loss on the fixed validation problems and keep the best weights."""
        curves = self.evaluate(
            optimizer, "validation", settings.validation_functions, settings.num_steps
        )
        loss = curves.final_loss()
        if loss < progress.best_validation_loss:
            progress.best_validation_loss, progress.best_meta_step = loss, progress.meta_step
            found = {"validation_loss": loss, "meta_step": progress.meta_step}
            if self.ranks.leads:
                tensors = optimizer.state_dict()
                with signals.held():
                    checkpoint.save(folder / BEST, tensors, provenance | found)
        self.tracker.log(
            progress.meta_step,
            {"validation_loss": loss, "best_validation_loss": progress.best_validation_loss},
        )
        note = f"validation {loss:.4g}, best {progress.best_validation_loss:.4g}"
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
