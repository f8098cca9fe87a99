"""Checks of the contracts of tasks and of optimizers, for their authors and for our own tests."""

from l2lgd.testing.base import Failed, Finding, findings
from l2lgd.testing.optimizers import OPTIMIZER_CHECKS, OptimizerCase
from l2lgd.testing.tasks import TASK_CHECKS

__all__ = ["OPTIMIZER_CHECKS", "TASK_CHECKS", "Failed", "Finding", "OptimizerCase", "findings"]
