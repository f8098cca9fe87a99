"""``l2lgd meta-train``."""

import contextlib
import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from l2lgd.evaluation.mixtures import evaluations
from l2lgd.meta.progress import MetaProgress
from l2lgd.meta.state import described
from l2lgd.results.captions import note, of_training
from l2lgd.results.pictures import drawn
from l2lgd.results.plots import plot_training
from l2lgd.results.summary import write_summary
from l2lgd.runs.run import Run
from l2lgd.system.ranks import Ranks, joined
from l2lgd.tracking.metrics import series
from l2lgd.tracking.tracker import NullTracker
from l2lgd.verbs.ending import say_where
from l2lgd.verbs.plan import MetaTrainingPlan
from l2lgd.verbs.resuming import stored_run, way_on

log = logging.getLogger(__name__)


def meta_train(config: DictConfig) -> float:
    """Meta-train; returns the best validation loss, for sweeps to minimise."""
    run = Run.prepare(config, "meta_train")
    plan = MetaTrainingPlan.of(run)
    stored = stored_run(run, run.folder)
    resume_at = None if stored is None else stored["progress"]["meta_step"]
    if resume_at == run.options.meta_steps:
        log.info("all %d meta-steps have been done", resume_at)
    with joined(run.device, run.options.num_functions) as ranks, way_on(run, ranks):
        logger_id = stored.get("mirror_id", stored.get("wandb_id")) if stored else None
        labels = ("meta-steps", "trajectory")
        tracker = run.tracker(labels, resume_at, logger_id) if ranks.leads else NullTracker()
        best = run.folder / "checkpoints" / "best.safetensors"
        with contextlib.closing(tracker):
            progress = plan.run(run, tracker, run.folder, stored, ranks)
            if best.exists():
                tracker.weights(f"{run.task_name}-{run.opt_name}", best, run.provenance())
            if not ranks.leads:
                return progress.best_validation_loss
            summary = run.folder / "summary.json"
            write_summary(summary, _summary(run, progress, ranks, best))
            picture = drawn(run.folder / "training.png", lambda path: _draw(path, run))
            if picture is not None:
                tracker.picture("training", picture)
    if progress.skipped:
        log.warning(
            "%d of %d meta-steps had no finite meta-gradient and left the weights as they were",
            progress.skipped,
            progress.meta_step,
        )
    several = len(run.task.parts()) > 1
    log.info(
        "best validation %s %.4g at meta-step %d; to compare it with tuned optimizers:",
        "score" if several else "loss",
        progress.best_validation_loss,
        progress.best_meta_step,
    )
    for command in evaluations(run, best):
        log.info("%s", command)
    say_where(("training curve", picture), ("summary", summary), ("run folder", run.folder))
    return progress.best_validation_loss


def _summary(run: Run, progress: MetaProgress, ranks: Ranks, best: Path) -> dict[str, Any]:
    told = described(best) if len(run.task.parts()) > 1 else {}
    by_part = ("validation_losses", "reference_losses")
    return run.summary(
        "validation",
        seconds=progress.total_seconds,
        training_seconds=progress.seconds,
        opt=run.opt_name,
        best_validation_loss=progress.best_validation_loss,
        best_meta_step=progress.best_meta_step,
        **{name: told[name] for name in by_part if name in told},
        meta_steps=progress.meta_step,
        skipped=progress.skipped,
        processes=ranks.size,
        coordinate_steps_per_second=progress.coordinate_steps / max(progress.seconds, 1e-9),
        checkpoint=str(best),
    )


def _draw(path: Path, run: Run) -> None:
    """The training curve, of all of ``metrics.jsonl``: a run that went on is drawn whole."""
    found = series(run.folder / "metrics.jsonl", "meta_loss", "validation_loss")
    meta_losses, validations = found.values()
    counts = run.options.num_functions, run.options.validation_functions
    parts = len(run.task.parts())
    caption = of_training(*counts, note({"data": run.task.data_description()}), parts)
    plot_training(path, meta_losses, validations, run.title(), caption, parts > 1)
