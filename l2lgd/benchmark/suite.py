"""The tasks of a benchmark: from its suite, or any choice of the group ``task``."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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
    factor: float | None = None


def entries(suite: Mapping[str, SuiteTask], names: Sequence[str] | None) -> list[BenchmarkTask]:
    """Those of the suite, or of these names, in their order.

    Raises:
        ConfigError: there is no such task, or what the suite says of one cannot be.
    """
    wanted = dict.fromkeys(suite if names is None else names)
    if not wanted:
        raise ConfigError("tasks=[]: name at least one, or leave it out")
    return [_of_suite(name, suite[name]) if name in suite else _own(name, suite) for name in wanted]


@contextlib.contextmanager
def in_place(name: str) -> Iterator[None]:
    """Have mistakes in a task's options say whose they are."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{name}, a task of the benchmark: {error}") from error


def _of_suite(name: str, own: SuiteTask) -> BenchmarkTask:
    where = f"suite.tasks.{name}"
    if own.num_steps < 1:
        raise ConfigError(f"{where}.num_steps={own.num_steps}: must be at least 1")
    if (own.axis is None) != (own.factor is None):
        raise ConfigError(f"{where}: axis and factor come together; give both, or none")
    if own.factor is not None and not own.factor > 0:
        raise ConfigError(f"{where}.factor={own.factor}: must be positive")
    title = own.title or name
    return BenchmarkTask(name, tuple(own.options), own.num_steps, title, own.axis, own.factor)


def _own(name: str, suite: Mapping[str, SuiteTask]) -> BenchmarkTask:
    known = choices_of("task")
    if name not in known:
        raise ConfigError(f"tasks=[{name}]: there is none{nearest(name, [*suite, *known])}")
    config = composed_with(f"task={name}", verb="evaluate")
    steps = about_task(config).recommended.num_steps or STEPS
    return BenchmarkTask(name, (f"task={name}",), steps, name)
