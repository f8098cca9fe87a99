"""The trainer: meta-trains and evaluates any optimizer on any task."""

import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l2lgd import checkpoint
from l2lgd.errors import CheckpointError, ConfigError, UserError
from l2lgd.optimizers.base import LearnedOptimizer, Optimizer
from l2lgd.results import Curves
from l2lgd.schedules import Unroll, decay_factor
from l2lgd.seeding import generator
from l2lgd.tasks.base import Split, Task
from l2lgd.tracking import Tracker
from l2lgd.unroll import Record, advance, replay, rollout, start, textbook

log = logging.getLogger(__name__)

FLAT_TRAJECTORIES = 40  # without progress before the user is warned
FLAT_RATIO = 0.95  # of the loss at the end of a trajectory to the loss at its start
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

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, int | float) and not value > 0:
                raise ConfigError(f"{name}={value}: must be positive")
        decay_factor(self.meta_decay, 0.0)


@dataclass
class MetaProgress:
    """How far a meta-training is; saved with every checkpoint."""

    meta_step: int = 0
    trajectory: int = 0
    best_validation_loss: float = math.inf
    best_meta_step: int = 0
    seconds: float = 0.0
    coordinate_steps: int = 0
    skipped: int = 0


class Trainer:
    """Runs optimizers on a task. All randomness follows from ``seed``."""

    def __init__(self, task: Task, seed: int, tracker: Tracker) -> None:
        self.task, self.seed, self.tracker = task, seed, tracker

    def evaluate(
        self, optimizer: Optimizer, split: Split, num_functions: int, num_steps: int
    ) -> Curves:
        """Losses of ``num_functions`` optimizees of ``split`` over T = ``num_steps`` steps.

        The functions, their initial parameters and their minibatches are the same for every
        optimizer; they depend on the trainer's seed and on the split.
        """
        optimizee = self.task.sample(split, num_functions, generator(self.seed, "evaluate", split))
        at = start(optimizer, optimizee)
        losses = [at.loss]
        for _ in range(num_steps):
            at = advance(optimizer, at)
            losses.append(at.loss)
        return Curves(torch.stack(losses), optimizee.stochastic)

    def meta_train(
        self,
        optimizer: LearnedOptimizer,
        unroll: Unroll,
        settings: MetaSettings,
        folder: Path,
        provenance: dict[str, Any],
        resume: bool = False,
    ) -> MetaProgress:
        """Meta-train ``optimizer``, leave its best weights in it and in ``folder``.

        Args:
            folder: gets ``best.safetensors`` and ``last.safetensors``.
            provenance: stored with every checkpoint.
            resume: go on from ``last.safetensors``; the numbers are those of a run without a break.

        Raises:
            UserError: one trajectory after another diverged, or a file could not be written.
        """
        meta_optimizer = torch.optim.Adam(optimizer.parameters(), lr=settings.meta_learning_rate)
        progress = MetaProgress()
        if resume:
            progress = load_last(folder / "last.safetensors", optimizer, meta_optimizer)
        else:
            optimizer.reset_parameters(generator(self.seed, "phi"))
        flat, diverged = _FlatnessWatch(), 0
        while progress.meta_step < settings.meta_steps:
            before, began = progress.meta_step, time.monotonic()
            ratio = self._trajectory(optimizer, meta_optimizer, unroll, settings, progress)
            progress.seconds += time.monotonic() - began
            flat.watch(ratio)
            diverged = 0 if math.isfinite(ratio) else diverged + 1
            if diverged >= MAX_DIVERGED:
                raise UserError(
                    f"{diverged} trajectories in a row diverged at meta-step {progress.meta_step}; "
                    "try a smaller meta_learning_rate or opt.output_scale"
                )
            done = progress.meta_step >= settings.meta_steps
            if done or _passed(before, progress.meta_step, settings.validate_every):
                self._validate(optimizer, settings, folder, provenance, progress)
            if done or _passed(before, progress.meta_step, settings.checkpoint_every):
                save_last(
                    folder / "last.safetensors", optimizer, meta_optimizer, progress, provenance
                )
        if not math.isfinite(progress.best_validation_loss):
            raise UserError(
                "every validation diverged, so there is no best optimizer; try a smaller "
                "meta_learning_rate or opt.output_scale"
            )
        load_weights(folder / "best.safetensors", optimizer)
        return progress

    def _trajectory(
        self,
        optimizer: LearnedOptimizer,
        meta_optimizer: torch.optim.Optimizer,
        unroll: Unroll,
        settings: MetaSettings,
        progress: MetaProgress,
    ) -> float:
        """Optimize B fresh functions for T steps, with a meta-step after every unroll.

        Returns:
            The ratio of their mean loss at the end to that at the start.
        """
        draw = generator(self.seed, "train", progress.trajectory)
        optimizee = self.task.sample("train", settings.num_functions, draw)
        objective = unroll.objective(settings.num_steps)
        at = start(optimizer, optimizee)
        initial = at.loss.mean().item()
        while at.step < settings.num_steps and progress.meta_step < settings.meta_steps:
            fraction = progress.meta_step / settings.meta_steps
            length = min(unroll.length(fraction), settings.num_steps - at.step)
            meta_optimizer.zero_grad(set_to_none=True)
            if unroll.second_derivatives:
                meta_loss, record, at = textbook(optimizer, at, length, objective, True)
            else:
                record, at = rollout(optimizer, at, length)
                meta_loss = replay(optimizer, record, objective)
            norm = torch.nn.utils.clip_grad_norm_(
                optimizer.parameters(), settings.meta_clip or math.inf
            ).item()
            rate = settings.meta_learning_rate * decay_factor(settings.meta_decay, fraction)
            if math.isfinite(norm):
                for group in meta_optimizer.param_groups:
                    group["lr"] = rate
                meta_optimizer.step()
            else:
                progress.skipped += 1
            progress.meta_step += 1
            progress.coordinate_steps += record.gradients[1:].numel()
            self.tracker.log(
                progress.meta_step,
                {
                    "meta_loss": meta_loss.item(),
                    "mean_loss": record.losses.mean().item(),
                    "meta_gradient_norm": norm,
                    "meta_learning_rate": rate,
                    "unroll_length": length,
                    "trajectory": progress.trajectory,
                    "skipped": progress.skipped,
                    **_sizes(optimizer, record),
                },
            )
            self.tracker.progress(
                progress.meta_step, settings.meta_steps, at.step, settings.num_steps
            )
            if not math.isfinite(norm):
                break  # the trajectory has diverged, the next one starts afresh
        progress.trajectory += 1
        return at.loss.mean().item() / initial

    def _validate(
        self,
        optimizer: LearnedOptimizer,
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
            tensors = optimizer.state_dict()
            checkpoint.save(folder / "best.safetensors", tensors, provenance | found)
        self.tracker.log(
            progress.meta_step,
            {"validation_loss": loss, "best_validation_loss": progress.best_validation_loss},
        )
        note = f"validation {loss:.4g}, best {progress.best_validation_loss:.4g}"
        self.tracker.progress(
            progress.meta_step, settings.meta_steps, settings.num_steps, settings.num_steps, note
        )
        log.info("meta-step %d of %d: %s", progress.meta_step, settings.meta_steps, note)


class _FlatnessWatch:
    """Warns when trajectory after trajectory ends where it began."""

    def __init__(self) -> None:
        self._ratios: list[float] = []

    def watch(self, ratio: float) -> None:
        self._ratios.append(ratio)
        if len(self._ratios) == FLAT_TRAJECTORIES:
            if not sorted(self._ratios)[FLAT_TRAJECTORIES // 2] < FLAT_RATIO:
                log.warning(
                    "the meta-loss is flat: half of the last %d trajectories ended above %g of "
                    "their initial loss. Try a smaller opt.initial_output or opt.output_scale, "
                    "another meta_learning_rate (l2lgd tune search=meta_learning_rate), or "
                    "unroll.meta_loss=log; update_size, gradient_size and clipped_inputs in "
                    "metrics.jsonl tell whether updates are too small or drowned in noise",
                    FLAT_TRAJECTORIES,
                    FLAT_RATIO,
                )
            self._ratios.clear()


def _passed(before: int, after: int, every: int) -> bool:
    return after // every > before // every


def _sizes(optimizer: LearnedOptimizer, record: Record) -> dict[str, float]:
    """Root mean squares of updates and gradients, and what the optimizer says of its inputs."""
    return {
        "update_size": record.update_size.item(),
        "gradient_size": record.gradients.square().mean().sqrt().item(),
        **optimizer.input_statistics(record.gradients),
    }


def save_last(
    path: Path,
    optimizer: LearnedOptimizer,
    meta_optimizer: torch.optim.Optimizer,
    progress: MetaProgress,
    provenance: dict[str, Any],
) -> None:
    """Everything needed to go on, at the end of a trajectory."""
    tensors = {f"phi.{name}": value for name, value in optimizer.state_dict().items()}
    for index, state in meta_optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": value for name, value in state.items()}
    checkpoint.save(path, tensors, provenance | {"progress": asdict(progress)})


def load_last(
    path: Path, optimizer: LearnedOptimizer, meta_optimizer: torch.optim.Optimizer
) -> MetaProgress:
    """Undo :func:`save_last`.

    Raises:
        CheckpointError: unreadable, or of another optimizer.
    """
    tensors, metadata = checkpoint.load(path)
    phi = {name[4:]: value for name, value in tensors.items() if name.startswith("phi.")}
    _fill(optimizer, phi, path)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, index, field = name.split(".")
            moments.setdefault(int(index), {})[field] = value
    meta_optimizer.load_state_dict(meta_optimizer.state_dict() | {"state": moments})
    if "progress" not in metadata:
        raise CheckpointError(f"{path} holds no meta-training to go on with")
    return MetaProgress(**metadata["progress"])


def load_weights(path: Path, optimizer: LearnedOptimizer) -> dict[str, Any]:
    """Load trained weights φ, from ``best`` or ``last``; returns their provenance.

    Raises:
        CheckpointError: unreadable, or of another optimizer.
    """
    tensors, metadata = checkpoint.load(path)
    phi = {name[4:]: value for name, value in tensors.items() if name.startswith("phi.")}
    _fill(optimizer, phi or tensors, path)
    return metadata


def _fill(optimizer: LearnedOptimizer, tensors: dict[str, Tensor], path: Path) -> None:
    try:
        optimizer.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} does not fit this optimizer: {reason}") from error
