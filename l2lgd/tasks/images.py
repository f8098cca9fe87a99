"""Training classifiers on minibatches of images: what every such task shares."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from l2lgd.data.images import Images, load_images
from l2lgd.data.sources import DataConfig
from l2lgd.errors import ConfigError
from l2lgd.seeding import derive_seed
from l2lgd.tasks.base import Optimizee, Split, Task
from l2lgd.tasks.minibatches import JoinedMinibatches, Minibatches, OneMinibatch, Streams


class Network(ABC):
    """The architecture of a classifier, for B stacked ones. Its attributes say all about it."""

    shapes: Mapping[str, tuple[int, ...]]  # names and shapes of the parameters of one

    def is_same(self, other: "Network") -> bool:
        """Have both the same logits?"""
        return type(self) is type(other) and vars(self) == vars(other)

    @abstractmethod
    def logits(self, tensors: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
        """Unnormalised log-probabilities (B, batch, classes).

        Args:
            tensors: parameters under the names of ``shapes``, each (B, *shape).
            pixels: (B, batch, height, width), with colours (B, batch, height, width, 3), in [0, 1].
        """


class Classifiers(Optimizee):
    """B classifiers of one architecture, each trained on its own stream of minibatches.

    Args:
        images: the data they are trained on.
        minibatches: B streams of these images.
        initial_parameters: (B, n).
    """

    stochastic = True

    def __init__(
        self,
        images: Images,
        network: Network,
        minibatches: Streams,
        initial_parameters: Tensor,
    ) -> None:
        self.images, self.network, self.shapes = images, network, network.shapes
        self.minibatches, self.initial_parameters = minibatches, initial_parameters

    def prefetch(self, steps: range) -> None:
        self.minibatches.prefetch(steps)

    def inputs(self, step: int) -> tuple[Tensor]:
        return (self.minibatches.index(step),)

    def on(self, inputs: tuple[Tensor, ...]) -> "Classifiers":
        return Classifiers(
            self.images, self.network, OneMinibatch(*inputs), self.initial_parameters
        )

    def minibatch(self, step: int) -> tuple[Tensor, Tensor]:
        """Pixels (B, batch, …) in [0, 1] and labels (B, batch)."""
        index = self.minibatches.index(step)
        pixels = self.images.pixels[index].to(self.initial_parameters.dtype) / 255
        return pixels, self.images.labels[index]

    def loss(self, parameters: Tensor, step: int) -> Tensor:
        pixels, labels = self.minibatch(step)
        logits = self.network.logits(self.unpack(parameters), pixels)
        losses = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return losses.view(labels.shape).mean(1)

    def select(self, rows: slice) -> Self:
        own = self.minibatches.select(rows)
        return type(self)(self.images, self.network, own, self.initial_parameters[rows])

    def joined(self, parts: Sequence[Self], begun: Sequence[int]) -> Self | None:
        alike = (p.images is self.images and self.network.is_same(p.network) for p in parts)
        if not all(alike):
            return None
        minibatches = JoinedMinibatches([p.minibatches for p in parts], begun)
        initial = torch.cat([p.initial_parameters for p in parts])
        return type(self)(self.images, self.network, minibatches, initial)


class ImageTask(Task):
    """Classifiers of one architecture on a data set of images.

    Args:
        data: which data set, and where it comes from.
        batch_size: images in a minibatch.
        initial_std: standard deviation of all initial parameters.
        labels: the classes in use, counted from 0; None for all.
        examples: images that each function is trained on, drawn at random from its split; None for
            all of them. The number of images decides how soon a function has learned them by heart.
        label_counts: functions to meta-train on have one of these numbers of labels, drawn together
            with the labels for all B functions of a trajectory; None for all labels.
    """

    not_in_keys = ("data", "label_counts")

    def __init__(
        self,
        name: str,
        data: DataConfig,
        batch_size: int = 128,
        initial_std: float = 0.01,
        labels: list[int] | None = None,
        examples: int | None = None,
        label_counts: list[int] | None = None,
    ) -> None:
        if examples is not None and examples < 1:
            raise ConfigError(f"examples={examples}: must be at least 1")
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: must be at least 1")
        if initial_std < 0:
            raise ConfigError(f"initial_std={initial_std}: must not be negative")
        self.name, self.data, self.labels = name, data, labels
        self.batch_size, self.initial_std, self.examples = batch_size, initial_std, examples
        self.label_counts = label_counts

    def setup(
        self, data_dir: str, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        super().setup(data_dir, device, dtype)
        images = load_images(self.data, data_dir, device)
        try:
            self.images = images if self.labels is None else images.only(self.labels)
        except ConfigError as error:
            raise ConfigError(f"task.{error}") from error
        most = self.images["train"].num_classes
        for count in self.label_counts or []:
            if not 2 <= count <= most:
                raise ConfigError(f"task.label_counts={self.label_counts}: from 2 to {most} each")

    @abstractmethod
    def network(
        self, image: tuple[int, ...], num_classes: int, generator: torch.Generator
    ) -> Network:
        """The architecture for images of that shape; it may be a random one."""

    def sample(self, split: Split, num_functions: int, generator: torch.Generator) -> Optimizee:
        images = self.images[split]
        if split == "train" and self.label_counts:
            images = images.only(_draw_labels(images.num_classes, self.label_counts, generator))
        network = self.network(tuple(images.pixels.shape[1:]), images.num_classes, generator)
        n = sum(torch.Size(shape).numel() for shape in network.shapes.values())
        initial = self.initial_std * torch.randn(num_functions, n, generator=generator)
        minibatches = self._minibatches(images, split, num_functions, self.examples, generator)
        return Classifiers(images, network, minibatches, initial.to(self.device, self.dtype))

    def held_out(
        self, functions: Optimizee, split: Split, generator: torch.Generator
    ) -> Optimizee | None:
        if not isinstance(functions, Classifiers):
            return None
        if all(functions.images is not part for part in self.images.parts.values()):
            return None  # they have labels of their own
        images, initial = self.images[split], functions.initial_parameters
        minibatches = self._minibatches(images, split, len(initial), None, generator)
        return Classifiers(images, functions.network, minibatches, initial)

    def data_description(self) -> dict[str, object]:
        return self.images.description

    def _minibatches(
        self,
        images: Images,
        split: Split,
        num_functions: int,
        examples: int | None,
        generator: torch.Generator,
    ) -> Minibatches:
        """Streams of these images, of which each function has so many."""
        return Minibatches(
            len(images.labels),
            self.batch_size,
            derive_seed(int(torch.randint(2**62, (), generator=generator)), split),
            num_functions,
            examples=examples,
            device=images.labels.device,
        )


def _draw_labels(num_classes: int, counts: list[int], generator: torch.Generator) -> list[int]:
    """Different labels, as many as one of ``counts`` says."""
    which = int(torch.randint(len(counts), (), generator=generator))
    return torch.randperm(num_classes, generator=generator)[: counts[which]].tolist()
