"""The contract between an estimator of the meta-gradient and the trainer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from l2lgd.meta.schedules import Unroll
from l2lgd.optimizers.base import LearnedRule
from l2lgd.system.ranks import Ranks
from l2lgd.tasks.base import Task


@dataclass(frozen=True)
class Setting:
    """What is meta-trained on what; the same from the first to the last meta-step."""

    rule: LearnedRule
    task: Task
    unroll: Unroll
    num_functions: int  # B, over all processes
    num_steps: int  # T
    seed: int
    ranks: Ranks


@dataclass(frozen=True)
class Ended:
    """Trajectories that have ended."""

    ratio: float  # of the last to the first loss, a mean
    diverged: bool


@dataclass(frozen=True)
class Unrolled:
    """What came of a meta-step."""

    numbers: Mapping[str, float]  # for the log
    count: int  # functions that the meta-gradient is a mean over
    diverged: int  # functions that diverged
    length: int  # U
    coordinate_steps: int  # coordinates times steps, over all processes
    step: int  # t at the end, of one trajectory that is shown
    horizon: int  # its T
    ended: Ended | None = None


class Course(ABC):
    """Trajectories under way in a meta-training, on the functions of this process."""

    trajectory: int  # number of the one under way, from 0
    step: int  # that a checkpoint tells

    @abstractmethod
    def unroll(self, fraction: float) -> Unrolled:
        """Go on by one unroll, and make ``.grad`` of φ the meta-gradient over all processes.

        Args:
            fraction: of the meta-training that is done.
        """

    @abstractmethod
    def settle(self, used: bool) -> None:
        """Be told whether the meta-gradient could be used, which it cannot if it is not finite."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What has to last until the next unroll, of this process."""

    def marks(self) -> dict[str, Any]:
        """The same, as plain numbers that all processes agree on."""
        return {}

    @abstractmethod
    def restore(self, step: int, marks: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go to where a course of this setting was, of whose tensors and marks these are.

        Args:
            step: which it had.
        """


class Estimator(ABC):
    """How the meta-gradient is had. The constructor takes options only."""

    @abstractmethod
    def begin(self, setting: Setting, trajectory: int = 0) -> Course:
        """The first trajectories of a meta-training.

        Args:
            trajectory: the number that the first has, where others were before.

        Raises:
            ConfigError: this estimator has no way with the rule or the task.
        """
