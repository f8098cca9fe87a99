"""How far a meta-training is, and whether going on is of use."""

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path

from l2lgd.config.overrides import typed
from l2lgd.errors import Diverged

log = logging.getLogger(__name__)

FLAT_TRAJECTORIES = 40  # without progress before the user is warned
FLAT_RATIO = 0.95  # of the loss at the end of a trajectory to the loss at its start
MAX_DIVERGED = 20  # trajectories in a row without a finite meta-gradient


@dataclass
class MetaProgress:
    """How far a meta-training is."""

    meta_step: int = 0
    trajectory: int = 0  # number of the one under way
    best_validation_loss: float = math.inf
    best_meta_step: int = 0
    seconds: float = 0.0  # spent on meta-steps
    total_seconds: float = 0.0  # with validations
    coordinate_steps: int = 0
    skipped: int = 0  # meta-steps without a finite meta-gradient
    diverged_in_a_row: int = 0  # trajectories, the last ones
    ratios: list[float] = field(default_factory=list)  # last to first loss of the last ones


def watch(progress: MetaProgress, ratio: float, diverged: bool, best: Path) -> None:
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
        raise given_up(what, progress, best)
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


def given_up(what: str, progress: MetaProgress, best: Path) -> Diverged:
    """The error of a meta-training that is not worth going on with."""
    way_out = "begin a new run with a smaller meta_learning_rate or opt.output_scale"
    if math.isfinite(progress.best_validation_loss):
        way_out += (
            f" and {typed('initial_weights', best)}, the best weights so far, of meta-step "
            f"{progress.best_meta_step}"
        )
    return Diverged(f"{what}; {way_out}")
