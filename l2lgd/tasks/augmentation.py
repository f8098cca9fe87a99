"""Functions to meta-train on in coordinates of other scales, and of other architectures.

A rule that has seen one task's gradients takes their size for a law. With a random scale c, f is
minimised as a function of θ' with θ = c θ', and begins where it did (Lv, Jiang & Li 2017, section
4.1; Metz et al., VeLO, 2022; Moudgil et al., Celo, 2025).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.tasks.base import Optimizee, Split, Task, TaskPart
from l2lgd.tasks.joined import join

LEVELS = ("none", "global", "tensor", "coordinate")


class Augmentation:
    """What is done to functions to meta-train on; each draws one of the levels and of the ranges.

    Args:
        levels: what has a c of its own: a whole function (``global``), each ``tensor`` or each
            ``coordinate``; ``none`` leaves the function as it is.
        ranges: c is log-uniform from the first to the second number of one of these.
        variants: options of the task in place of its own; the functions of a trajectory have those
            of one variant. None are the task as it is.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self,
        levels: list[str] | None = None,
        ranges: list[list[Any]] | None = None,
        variants: list[dict[str, Any]] | None = None,
    ) -> None:
        self.levels = ["none"] if levels is None else list(levels)
        self.ranges = [[1e-3, 1e3]] if ranges is None else [list(one) for one in ranges]
        self.variants = [] if variants is None else list(variants)
        unknown = [level for level in self.levels if level not in LEVELS]
        if unknown or not self.levels:
            raise ConfigError(f"levels={self.levels}: choose from {', '.join(LEVELS)}")
        if not self.ranges or not all(map(_is_range, self.ranges)):
            raise ConfigError(
                f"ranges={self.ranges}: each needs a least and a largest scale, both positive"
            )

    @property
    def rescales(self) -> bool:
        """Has any function another scale?"""
        return set(self.levels) != {"none"}


class Rescaled(Optimizee):
    """f as a function of θ/c, where f begins where it did.

    Args:
        scale: c, positive (B, n).
    """

    def __init__(self, function: Optimizee, scale: Tensor) -> None:
        self.function, self.scale = function, scale
        self.shapes, self.stochastic = function.shapes, function.stochastic
        self.initial_parameters = function.initial_parameters / scale

    def prefetch(self, steps: range) -> None:
        self.function.prefetch(steps)

    def inputs(self, step: int) -> tuple[Tensor, ...] | None:
        return self.function.inputs(step)

    def on(self, inputs: tuple[Tensor, ...]) -> "Rescaled":
        return Rescaled(self.function.on(inputs), self.scale)

    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return self.function.loss(self.scale * parameters, step)

    def loss_and_gradient(self, parameters: Tensor, step: int) -> tuple[Tensor, Tensor]:
        loss, gradient = self.function.loss_and_gradient(self.scale * parameters, step)
        return loss, self.scale * gradient

    def hessian_product(self, parameters: Tensor, step: int, vector: Tensor) -> Tensor:
        scaled = self.scale * parameters, step, self.scale * vector
        return self.scale * self.function.hessian_product(*scaled)

    def select(self, rows: slice) -> Self:
        return type(self)(self.function.select(rows), self.scale[rows])

    def of(self, function: Optimizee | None) -> "Rescaled | None":
        """Another function with the same scale; None of none."""
        return None if function is None else Rescaled(function, self.scale)

    def joined(self, parts: Sequence[Self], begun: Sequence[int]) -> Self:
        together = join([part.function for part in parts], begun)
        return type(self)(together, torch.cat([part.scale for part in parts]))


class Augmented(Task):
    """A task whose functions to meta-train on are augmented; all others are as they were.

    Each task of a mixture is augmented.

    Args:
        task: which it is.
        augmentation: what is done.
        variants: the task with the options of each variant.
    """

    def __init__(
        self, task: Task, augmentation: Augmentation, variants: Sequence[Task] = ()
    ) -> None:
        self.task, self.augmentation, self.variants = task, augmentation, list(variants)
        self.name, self.not_in_keys = task.name, task.not_in_keys
        self._parts = {
            name: replace(part, task=Augmented(part.task, augmentation))
            for name, part in task.parts().items()
            if part.task is not task
        }

    def setup(
        self, data_dir: str, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        super().setup(data_dir, device, dtype)
        for task in (self.task, *self.variants):
            task.setup(data_dir, device, dtype)

    def sample(self, split: Split, num_functions: int, generator: torch.Generator) -> Optimizee:
        if split != "train":
            return self.task.sample(split, num_functions, generator)
        task = self.task
        if self.variants:
            task = self.variants[_one_of(len(self.variants), generator)]
        functions = task.sample(split, num_functions, generator)
        if not self.augmentation.rescales:
            return functions
        each = [self._scale(functions, generator) for _ in range(num_functions)]
        return Rescaled(functions, torch.stack(each).to(functions.initial_parameters))

    def held_out(
        self, functions: Optimizee, split: Split, generator: torch.Generator
    ) -> Optimizee | None:
        if isinstance(functions, Rescaled):
            return functions.of(self.held_out(functions.function, split, generator))
        for task in (self.task, *self.variants):
            found = task.held_out(functions, split, generator)
            if found is not None:
                return found
        return None

    def parts(self) -> Mapping[str, TaskPart]:
        return self._parts or super().parts()

    def data_description(self) -> dict[str, object] | None:
        return self.task.data_description()

    def _scale(self, functions: Optimizee, generator: torch.Generator) -> Tensor:
        """C of one function (n,), in float64."""
        levels, ranges = self.augmentation.levels, self.augmentation.ranges
        level = levels[_one_of(len(levels), generator)]
        low, high = map(math.log, ranges[_one_of(len(ranges), generator)])
        n, slices = functions.initial_parameters.shape[1], functions.parameter_slices()
        counts = {"none": 0, "global": 1, "tensor": len(slices), "coordinate": n}
        share = torch.rand(counts[level], generator=generator, dtype=torch.float64)
        scales = (low + (high - low) * share).exp()
        if level == "none":
            return torch.ones(n, dtype=torch.float64)
        if level == "tensor":
            sizes = torch.tensor([part.stop - part.start for part in slices.values()])
            return scales.repeat_interleave(sizes)
        return scales.expand(n)


def _is_range(one: Sequence[object]) -> bool:
    numbers = [float(part) for part in one if isinstance(part, int | float)]
    return len(one) == len(numbers) == 2 and 0 < numbers[0] <= numbers[1] < math.inf


def _one_of(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))
