"""``l2lgd check``."""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping

import torch
from omegaconf import DictConfig

from l2lgd.data.splits import SPLITS
from l2lgd.errors import ConfigError, UserError, one_line
from l2lgd.meta.rollout import advance, start
from l2lgd.meta.schedules import Unroll
from l2lgd.optimizers.base import LearnedRule
from l2lgd.optimizers.hand_designed import HandDesigned
from l2lgd.runs.run import Run
from l2lgd.system.terminal import show_line
from l2lgd.tasks.base import Task
from l2lgd.testing.base import Failed, Finding, default_type, findings, raised_at
from l2lgd.testing.optimizers import OPTIMIZER_CHECKS, OptimizerCase
from l2lgd.testing.tasks import TASK_CHECKS, functions_of, second_derivatives_exist
from l2lgd.verbs.plan import build_unroll

log = logging.getLogger(__name__)

STEPS, RATE = 20, 0.01  # of Adam, after which losses are looked at again


def check(config: DictConfig) -> float:
    """Check the contracts of ``task`` and ``opt``; returns how many checks failed.

    Raises:
        UserError: some did, and what has to be changed was printed.
    """
    # Modules and rules may make tensors of the default type, which is that of their parameters
    # in a meta-training.
    with default_type(torch.float64):
        return _check(config)


def _check(config: DictConfig) -> float:
    try:
        run = Run.prepare(config, "check", torch.float64)
    except UserError:
        raise
    except Exception as error:  # it is somebody's own code
        name = f"the set-up of task={config.task.get('name')}"
        raise ConfigError(f"{name} fails: {_said(error)}") from error
    run.refuse_mixture()
    task_checks = _task_checks(run)
    found = [*_of_task(run, task_checks), *_of_optimizer(run)]
    left = len(task_checks) + len(OPTIMIZER_CHECKS) - len(found)
    failed = [finding for finding in found if finding.problem]
    if failed:
        rest = f", and {left} were not made, as they rely on one of these" if left else ""
        raise UserError(f"{len(failed)} of {len(found)} checks failed{rest}; see the lines above")
    log.info("task=%s and opt=%s: all %d checks hold", run.task_name, run.opt_name, len(found))
    return 0.0


def _task_checks(run: Run) -> list[Callable[[Task], None]]:
    unroll = build_unroll(run.config["unroll"])
    suits = functools.partial(losses_suit_the_meta_loss, unroll=unroll)
    suits.__name__ = losses_suit_the_meta_loss.__name__  # type: ignore[attr-defined]
    twice = wants_second_derivatives(run.config["estimator"])
    return [c for c in TASK_CHECKS if twice or c is not second_derivatives_exist] + [suits]


def wants_second_derivatives(estimator: object) -> bool:
    """Does an estimator, or a part of it, ask for those of the losses?"""
    if not isinstance(estimator, Mapping):
        return False
    if estimator.get("second_derivatives") and not estimator.get("difference"):
        return True
    return any(wants_second_derivatives(part) for part in estimator.values())


def _of_task(run: Run, checks: list[Callable[[Task], None]]) -> Iterator[Finding]:
    for finding in findings(checks, run.task):
        _say(f"task={run.task_name}", finding)
        yield finding


def _of_optimizer(run: Run) -> Iterator[Finding]:
    try:
        optimizer = run.build_optimizer(run.config["opt"])
    except UserError:
        raise
    except Exception as error:  # it is somebody's own code
        where = f"opt={run.opt_name} cannot be built"
        raise ConfigError(f"{where}: {_said(error)}") from error
    if isinstance(optimizer, LearnedRule):
        optimizer.double()
    case = OptimizerCase(optimizer, run.config["opt"], run.options.allow_targets)
    for finding in findings(OPTIMIZER_CHECKS, case):
        _say(f"opt={run.opt_name}", finding)
        yield finding


def losses_suit_the_meta_loss(task: Task, unroll: Unroll) -> None:
    """Positive where ``unroll.meta_loss=log``, in every split."""
    if unroll.meta_loss != "log":
        return
    for split in SPLITS:
        at = start(HandDesigned("Adam", RATE), functions_of(task, split))
        for _ in range(STEPS):
            if not (at.loss > 0).all():
                raise Failed(
                    f"the loss of {split} is {at.loss.min().item():.4g} at step {at.step}, and "
                    "unroll.meta_loss=log needs positive ones; take unroll.meta_loss=loss",
                    at.optimizee.loss,
                )
            at = advance(at)


def _said(error: Exception) -> str:
    """What an error says, and where it came from."""
    place = raised_at(error)
    return f"{type(error).__name__}: {one_line(error)}" + (f" ({place})" if place else "")


def _say(what: str, finding: Finding) -> None:
    if finding.problem is None:
        show_line(f"ok    {what}: {finding.name}")
        return
    place = f" ({finding.place})" if finding.place else ""
    show_line(f"WRONG {what}: {finding.name}: {finding.problem}{place}")
