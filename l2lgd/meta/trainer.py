"""The trainer: meta-trains and evaluates any optimizer on any task."""

import copy
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from l2lgd.errors import CheckpointError, ConfigError, Diverged
from l2lgd.meta.diverged import finite_functions, without
from l2lgd.meta.estimators.replay import replay
from l2lgd.meta.rollout import Record, advance, rollout, start
from l2lgd.meta.schedules import Unroll, decay_factor
from l2lgd.meta.state import MetaProgress, load_last, load_weights, save_last
from l2lgd.meta.trajectories import Trajectory
from l2lgd.optimizers.base import LearnedRule, Optimizer
from l2lgd.results.curves import Curves
from l2lgd.seeding import generator
from l2lgd.storage import checkpoint
from l2lgd.system.ranks import Ranks
from l2lgd.tasks.base import Split, Task
from l2lgd.tracking.tracker import Tracker

log = logging.getLogger(__name__)

FLAT_TRAJECTORIES = 40  # without progress before the user is warned
FLAT_RATIO = 0.95  # of the loss at the end of a trajectory to the loss at its start
BEST = "best.safetensors"
MAX_DIVERGED = 20  # trajectories in a row without a finite meta-gradient


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


class Trainer:
    """Runs optimizers on a task. All randomness follows from ``seed``.

    Args:
        ranks: the processes that share the functions.
    """

    def __init__(self, task: Task, seed: int, tracker: Tracker, ranks: Ranks | None = None) -> None:
        self.task, self.seed, self.tracker = task, seed, tracker
        self.ranks = ranks or Ranks()

    def evaluate(
        self, optimizer: Optimizer, split: Split, num_functions: int, num_steps: int
    ) -> Curves:
        """Losses of ``num_functions`` optimizees of ``split`` over T = ``num_steps`` steps.

        The functions, their initial parameters and their minibatches are the same for every
        optimizer; they depend on the trainer's seed and on the split.
        """
        optimizee = self.task.sample(split, num_functions, generator(self.seed, "evaluate", split))
        own = optimizee.select(self.ranks.share(num_functions))
        at = start(optimizer, own)
        # In one piece: many small tensors between large ones keep freed memory from being used.
        losses = at.loss.new_empty(num_steps + 1, len(at.loss))
        losses[0] = at.loss
        for step in range(1, num_steps + 1):
            at = advance(at)
            losses[step] = at.loss
            self.tracker.steps(step, num_steps)
        everyones = self.ranks.columns(losses, num_functions)
        return Curves(everyones, optimizee.stochastic)

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
        meta_optimizer = torch.optim.Adam(optimizer.parameters(), lr=settings.meta_learning_rate)
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
            began = time.monotonic()
            horizon = unroll.horizon(progress.meta_step / settings.meta_steps, settings.num_steps)
            if trajectory.hopeless or trajectory.position.step >= horizon:
                ratio = self._mean_loss(trajectory) / trajectory.initial_loss
                _watch(progress, ratio, trajectory.diverged, best)
                progress.trajectory += 1
                trajectory = self._begun(optimizer, settings, progress)
            self._meta_step(optimizer, meta_optimizer, unroll, settings, progress, trajectory)
            averaged.update_parameters(optimizer)
            progress.seconds += time.monotonic() - began
            done = progress.meta_step == settings.meta_steps
            if done or progress.meta_step % settings.validate_every == 0:
                self._validate(averaged.module, settings, folder, provenance, progress)
            progress.total_seconds += time.monotonic() - began
            if done or progress.meta_step % settings.checkpoint_every == 0:
                everyones = self.ranks.collect(trajectory.tensors())
                if self.ranks.leads:
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
            self._validate(averaged.module, settings, folder, provenance, progress)
        if not math.isfinite(progress.best_validation_loss):
            raise _given_up("every validation diverged", progress, best)
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
        at = trajectory.position
        length = min(unroll.length(fraction), horizon - at.step)
        meta_optimizer.zero_grad(set_to_none=True)
        second = unroll.keeps_second_derivatives(fraction)
        record, at = rollout(at, length, keep_path=second)
        alive = finite_functions(record)
        if alive is not None:
            record = without(record, alive)
        meta_loss = replay(record, objective, unroll.smoothing, unroll.difference)
        trajectory.position = at
        numbers, count = self._mean_over_ranks(optimizer, record, meta_loss)
        norm = torch.nn.utils.clip_grad_norm_(
            optimizer.parameters(), settings.meta_clip or math.inf
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
        weights = list(optimizer.parameters())
        parts = [*(weight.grad for weight in weights), *numbers.values()]
        means, count = self.ranks.mean(parts, losses.shape[1])
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


def _watch(progress: MetaProgress, ratio: float, diverged: bool, best: Path) -> None:
    """Look at a trajectory that has reached its end: warn where many end as they began.

    Args:
        ratio: of its last to its first loss.
        diverged: a meta-gradient was not finite.
        best: where the best weights are, if any were.

    Raises:
        Diverged: so have many in a row.
    """
    diverged = diverged or not math.isfinite(ratio)
    progress.diverged_in_a_row = progress.diverged_in_a_row + 1 if diverged else 0
    if progress.diverged_in_a_row >= MAX_DIVERGED:
        what = f"{MAX_DIVERGED} trajectories in a row diverged by meta-step {progress.meta_step}"
        raise _given_up(what, progress, best)
    progress.ratios.append(ratio)
    if len(progress.ratios) == FLAT_TRAJECTORIES:
        if not sorted(progress.ratios)[FLAT_TRAJECTORIES // 2] < FLAT_RATIO:
            log.warning(
                "the meta-loss is flat: half of the last %d trajectories ended above %g of "
                "their initial loss. Try a smaller opt.output_scale or opt.initial_output, "
                "another meta_learning_rate (l2lgd tune search=meta_learning_rate) or more "
                "functions at once; update_size, gradient_size and clipped_inputs in "
                "metrics.jsonl tell whether updates are too small or drowned in noise",
                FLAT_TRAJECTORIES,
                FLAT_RATIO,
            )
        progress.ratios.clear()


def _given_up(what: str, progress: MetaProgress, best: Path) -> Diverged:
    """The error of a meta-training that is not worth going on with."""
    way_out = "begin a new run with a smaller meta_learning_rate or opt.output_scale"
    if math.isfinite(progress.best_validation_loss):
        way_out += (
            f"; the best weights so far, of meta-step {progress.best_meta_step}, are in {best} and "
            "can be its initial_weights"
        )
    return Diverged(f"{what}; {way_out}")


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
