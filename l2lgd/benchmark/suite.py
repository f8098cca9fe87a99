"""The tasks of a benchmark: from its suite, or any choice of the group ``task``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from l2lgd.config.schemas import SuiteTask, about_task
from l2lgd.errors import ConfigError, nearest
from l2lgd.evaluation.learned import choices_of, composed_with

STEPS = 500  # of a task outside the suite that recommends no number


@dataclass(frozen=True)
class BenchmarkTask:
    """A task of a benchmark, under its name there.

    Args:
        options: of ``evaluate``, which tell the task.
        num_steps: T.
        title: in tables and pictures.
        axis, factor: what is varied, and how far; None where nothing is.
    """

    name: str
    options: tuple[str, ...]
    num_steps: int
    title: str
    axis: str | None = None
    factor: float | None = field(default=None)


def entries(suite: Mapping[str, SuiteTask], names: Sequence[str] | None) -> list[BenchmarkTask]:
    """Those of the suite, or of these names, in their order.

    Raises:
        ConfigError: there is no such task, or a number of steps is out of range.
    """
    found = []
    for name in dict.fromkeys(suite if names is None else names):
        if name in suite:
            own = suite[name]
            if own.num_steps < 1:
                raise ConfigError(f"suite.tasks.{name}.num_steps={own.num_steps}: at least 1")
            found.append(
                BenchmarkTask(
                    name, tuple(own.options), own.num_steps, own.title, own.axis, own.factor
                )
            )
        else:
            found.append(_own(name, suite))
    if not found:
        raise ConfigError("tasks=[]: name at least one, or leave it out")
    return found


def _own(name: str, suite: Mapping[str, SuiteTask]) -> BenchmarkTask:
    known = choices_of("task")
    if name not in known:
        raise ConfigError(f"tasks=[{name}]: there is none{nearest(name, [*suite, *known])}")
    config = composed_with(f"task={name}", verb="evaluate")
    steps = about_task(config).recommended.num_steps or STEPS
    return BenchmarkTask(name, (f"task={name}",), steps, name)
