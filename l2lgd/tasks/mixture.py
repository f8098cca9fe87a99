"""Training multilayer perceptrons of many architectures, in coordinates of many scales.

The paper's optimizer, meta-trained on one network with sigmoids, does badly on networks with ReLUs.
One that has seen many networks does not. Its gradients can also be spread over more magnitudes than
the networks themselves have: with random scaling, f is minimised as a function of θ/c, with a
random c for every coordinate (Lv, Jiang & Li, 2017, section 4.1). This is not in the paper.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from l2lgd.data.sources import DataConfig
from l2lgd.errors import ConfigError
from l2lgd.seeding import log_uniform
from l2lgd.tasks.augmentation import Rescaled
from l2lgd.tasks.base import Optimizee, Split
from l2lgd.tasks.classification import ACTIVATIONS, Perceptron
from l2lgd.tasks.images import ImageTask


class Padded(Optimizee):
    """Functions of different numbers of coordinates, stacked.

    The loss does not depend on the coordinates that a function has too many, so an optimizer that
    averages over coordinates sees gradients of zero there.

    Args:
        functions: B of them, each stacked alone.
        n: at least as many coordinates as the largest has.
    """

    def __init__(self, functions: Sequence[Optimizee], n: int) -> None:
        self.functions, self.stochastic = list(functions), functions[0].stochastic
        self.shapes = {"parameters": (n,)}
        own = [function.initial_parameters for function in functions]
        self.initial_parameters = torch.cat([pad(part, (0, n - part.shape[1])) for part in own])

    def prefetch(self, steps: range) -> None:
        for function in self.functions:
            function.prefetch(steps)

    def inputs(self, step: int) -> tuple[Tensor, ...] | None:
        each = [function.inputs(step) for function in self.functions]
        known = [own for own in each if own is not None]
        return tuple(itertools.chain(*known)) if len(known) == len(each) else None

    def on(self, inputs: tuple[Tensor, ...]) -> "Padded":
        count = len(inputs) // len(self.functions)  # they are of one kind
        each = [
            function.on(inputs[k * count : (k + 1) * count])
            for k, function in enumerate(self.functions)
        ]
        return Padded(each, self.initial_parameters.shape[1])

    def loss(self, parameters: Tensor, step: int) -> Tensor:
        rows = zip(self.functions, parameters.split(1), strict=True)
        return torch.cat([f.loss(row[:, : f.initial_parameters.shape[1]], step) for f, row in rows])

    def select(self, rows: slice) -> Self:
        return type(self)(self.functions[rows], self.initial_parameters.shape[1])


class PerceptronMixture(ImageTask):
    """MLP classifiers of random architecture on a data set of images.

    Args:
        data: which data set, and where it comes from.
        activations: each network has one of these, ``sigmoid``, ``relu``, ``tanh`` or ``gelu``.
        depths: and one of these numbers of hidden layers.
        widths: and in all of them as many units, from the first to the second, log-uniform.
        rescaling: functions to meta-train on have their coordinates divided by c, log c uniform in
            ± this number; 0 for none.
        batch_size: images in a minibatch.
        initial_std: standard deviation of all initial weights and biases.
        labels: the classes in use, counted from 0; None for all.
        examples: images that each function is trained on, drawn at random; None for all.
    """

    def __init__(
        self,
        name: str,
        data: DataConfig,
        activations: list[str],
        depths: list[int],
        widths: list[int],
        rescaling: float = 0.0,
        batch_size: int = 128,
        initial_std: float = 0.01,
        labels: list[int] | None = None,
        examples: int | None = None,
    ) -> None:
        unknown = [activation for activation in activations if activation not in ACTIVATIONS]
        if unknown or not activations:
            raise ConfigError(f"activations={activations}: choose from {', '.join(ACTIVATIONS)}")
        if not depths or min(depths) < 1:
            raise ConfigError(f"depths={depths}: needs one or more numbers of at least 1")
        if len(widths) != 2 or not 1 <= widths[0] <= widths[1]:
            raise ConfigError(f"widths={widths}: needs the least and the most units")
        if not 0 <= rescaling < math.inf:
            raise ConfigError(f"rescaling={rescaling}: must not be negative")
        super().__init__(name, data, batch_size, initial_std, labels, examples)
        self.activations, self.depths = list(activations), list(depths)
        self.widths, self.rescaling = list(widths), rescaling

    def network(
        self, image: tuple[int, ...], num_classes: int, generator: torch.Generator
    ) -> Perceptron:
        low, high = self.widths
        width = log_uniform(low, high, generator)
        depth = self.depths[int(torch.randint(len(self.depths), (), generator=generator))]
        which = int(torch.randint(len(self.activations), (), generator=generator))
        widths = [torch.Size(image).numel(), *[width] * depth, num_classes]
        return Perceptron(widths, ACTIVATIONS[self.activations[which]])

    def sample(self, split: Split, num_functions: int, generator: torch.Generator) -> Optimizee:
        functions = [
            super(PerceptronMixture, self).sample(split, 1, generator) for _ in range(num_functions)
        ]
        if split == "train" and self.rescaling:
            functions = [self._rescaled(function, generator) for function in functions]
        return Padded(functions, max(f.initial_parameters.shape[1] for f in functions))

    def held_out(
        self, functions: Optimizee, split: Split, generator: torch.Generator
    ) -> Optimizee | None:
        if isinstance(functions, Rescaled):
            return functions.of(self.held_out(functions.function, split, generator))
        if not isinstance(functions, Padded):
            return super().held_out(functions, split, generator)
        each = [self.held_out(function, split, generator) for function in functions.functions]
        known = [function for function in each if function is not None]
        n = functions.initial_parameters.shape[1]
        return Padded(known, n) if len(known) == len(each) else None

    def _rescaled(self, function: Optimizee, generator: torch.Generator) -> Rescaled:
        share = torch.rand(function.initial_parameters.shape, generator=generator)
        scale = (self.rescaling * (2 * share - 1)).exp()
        return Rescaled(function, scale.to(self.device, self.dtype))
