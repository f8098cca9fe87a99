"""A mixture of any tasks, for one optimizer that is meta-trained on all of them."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from l2lgd.data.splits import SPLITS
from l2lgd.errors import ConfigError
from l2lgd.tasks.base import Optimizee, Split, Task, TaskPart

NAME = r"[A-Za-z0-9_-]+"  # it is part of the names of numbers and tensors


class MixtureTask(Task):
    """Several tasks. Each meta-step is on functions of one of them, drawn by weight.

    Args:
        tasks: by name; best that of their YAML file.
        weights: how often each is drawn, in proportion to the others; 1 for those not named.
        horizons: T of trajectories of each; null, and those not named, for that of the run.

    Raises:
        ConfigError: there are fewer than two tasks, or an option is out of range.
    """

    def __init__(
        self,
        name: str,
        tasks: dict[str, Task],
        weights: dict[str, float | None] | None = None,
        horizons: dict[str, int | None] | None = None,
    ) -> None:
        if len(tasks) < 2:
            raise ConfigError("tasks: needs two at least; one alone is a task= of its own")
        weights, horizons = weights or {}, horizons or {}
        for option, given in (("weights", weights), ("horizons", horizons)):
            if unknown := [key for key in given if key not in tasks]:
                raise ConfigError(f"{option}.{unknown[0]}: tasks are {', '.join(tasks)}")
        for key, task in tasks.items():
            if not re.fullmatch(NAME, key):
                raise ConfigError(f"tasks.{key}: a name has letters, digits, _ and - only")
            if len(task.parts()) > 1:
                raise ConfigError(f"tasks.{key} is a mixture itself; name its tasks here")
        for key, weight in weights.items():
            if weight is not None and not 0 < weight < math.inf:
                raise ConfigError(f"weights.{key}={weight}: must be positive")
        for key, steps in horizons.items():
            if steps is not None and steps < 1:
                raise ConfigError(f"horizons.{key}={steps}: must be at least 1, or null")
        self.name = name
        self._parts = {
            key: TaskPart(task, weights.get(key) or 1.0, horizons.get(key))
            for key, task in tasks.items()
        }

    def setup(
        self, data_dir: str, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        super().setup(data_dir, device, dtype)
        for part in self._parts.values():
            part.task.setup(data_dir, device, dtype)

    def parts(self) -> Mapping[str, TaskPart]:
        return self._parts

    def sample(self, split: Split, num_functions: int, generator: torch.Generator) -> Optimizee:
        raise ConfigError(
            f"task={self.name} is a mixture, whose functions are in no one stack; take its tasks "
            f"one by one: {', '.join(f'task={key}' for key in self._parts)}"
        )

    def data_description(self) -> dict[str, object] | None:
        """What its tasks say, under their names in ``parts``, and put together."""
        told = {key: part.task.data_description() for key, part in self._parts.items()}
        known: dict[str, dict[str, Any]] = {key: data for key, data in told.items() if data}
        if not known:
            return None
        counts = [data["num_examples"] for data in known.values()]
        found: dict[str, object] = {
            "name": self.name,
            "source": ", ".join(dict.fromkeys(data["source"] for data in known.values())),
            "num_examples": {
                split: sum(count.get(split, 0) for count in counts) for split in SPLITS
            },
            "parts": known,
        }
        notes = [f"{key}: {data['note']}" for key, data in known.items() if data.get("note")]
        return found | ({"note": "; ".join(notes)} if notes else {})
