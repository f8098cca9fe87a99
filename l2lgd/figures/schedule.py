"""How far the evaluations of figures are: which are under way, and how much time is left."""

import time
from collections.abc import Callable, Mapping

from l2lgd.figures.base import Evaluation

START = 5.0  # seconds until an evaluation has imported what it needs
# Seconds of one function under one optimizer on one idle core, by size. They need not be right:
# once evaluations have ended, what is left is reckoned in proportion to how long these took.
SECONDS = {
    "quadratic": 0.01,
    "mnist": 0.1,
    "mnist_long": 1.2,
    "grid": 0.15,
    "cifar": 20.0,
    "neural_art": 12.0,
    "sharing": 0.02,
    "sharing_mnist": 0.3,
}


def expected_seconds(evaluation: Evaluation, num_functions: int) -> float:
    """Of an evaluation, where one optimizer costs as much as another."""
    optimizers = 1 + len(evaluation.shown())
    return START + SECONDS.get(evaluation.size, 1.0) * num_functions * optimizers


class Schedule:
    """What is waiting, under way and done.

    Args:
        expected: seconds by name.
        workers: how many are made at once.
        now: seconds on a clock that never goes back.
    """

    def __init__(
        self,
        expected: Mapping[str, float],
        workers: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expected, self._workers, self._now = dict(expected), workers, now
        self._began: dict[str, float] = {}  # of those under way
        self._took: dict[str, float] = {}

    def begin(self, name: str) -> None:
        self._began[name] = self._now()

    def end(self, name: str, failed: bool = False) -> None:
        """One has ended; how long a failure took says nothing about the others."""
        began = self._began.pop(name)
        self._took[name] = self._expected[name] if failed else self._now() - began

    def under_way(self) -> list[str]:
        return list(self._began)

    def done(self) -> int:
        return len(self._took)

    def seconds_left(self) -> float:
        """An estimate: no less than the longest takes, nor than all of them on the workers."""
        now, began, took = self._now(), dict(self._began), dict(self._took)
        hoped = sum(self._expected[name] for name in took)
        pace = sum(took.values()) / hoped if hoped else 1.0
        left = [
            max(pace * seconds - (now - began.get(name, now)), 0.0)
            for name, seconds in self._expected.items()
            if name not in took
        ]
        return max(sum(left) / self._workers, max(left, default=0.0))


def about(seconds: float) -> str:
    """A time for people."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 90:
        return f"about {minutes} minute{'s' if minutes > 1 else ''}"
    return f"about {round(minutes / 60)} hours"
