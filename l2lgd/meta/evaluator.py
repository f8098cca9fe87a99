"""Evaluation: the losses of any optimizer on functions that a task draws."""

import torch
from torch import Tensor

from l2lgd.meta.graphed import step_of
from l2lgd.meta.rollout import Position, reported_loss, start
from l2lgd.optimizers.base import Optimizer
from l2lgd.results.curves import Curves
from l2lgd.seeding import generator
from l2lgd.system import signals
from l2lgd.system.ranks import Ranks
from l2lgd.tasks.base import Optimizee, Split, Task
from l2lgd.tracking.tracker import Tracker

AHEAD = 100  # steps whose minibatches are drawn at once


class Evaluator:
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
        losses, _ = self.path(optimizer, own, num_steps)
        everyones = self.ranks.columns(losses, num_functions)
        return Curves(everyones, optimizee.stochastic)

    def path(self, optimizer: Optimizer, own: Optimizee, num_steps: int) -> tuple[Tensor, Position]:
        """Losses f(θ_0) … f(θ_T) (T + 1, F) of F functions, and where they end."""
        at = start(optimizer, own, horizon=num_steps)
        following = step_of(at)
        # In one piece: many small tensors between large ones keep freed memory from being used.
        losses = at.loss.new_empty(num_steps + 1, len(at.loss))
        losses[0] = reported_loss(at)
        for step in range(1, num_steps + 1):
            signals.check()
            if step % AHEAD == 1:
                if not at.parameters.isfinite().all(1).any():  # nor will a loss be again
                    losses[step:] = torch.nan
                    break
                own.prefetch(range(step, min(step + AHEAD, num_steps + 1)))
            at = following(at)
            losses[step] = reported_loss(at)
            self.tracker.steps(step, num_steps)
        return losses, at

    def final_losses(
        self, optimizer: Optimizer, num_functions: int, num_steps: int
    ) -> dict[str, float]:
        """By part of the task, the mean loss at the end of its validation trajectories.

        Args:
            num_functions: of each part.
            num_steps: T of parts that have none of their own.
        """
        found = {}
        for name, part in self.task.parts().items():
            own = self
            if part.task is not self.task:
                own = Evaluator(part.task, self.seed, self.tracker, self.ranks)
            steps = part.num_steps or num_steps
            found[name] = own.evaluate(optimizer, "validation", num_functions, steps).final_loss()
        return found
