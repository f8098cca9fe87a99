"""Training a small classifier on minibatches of a data set (section 3.2 of the paper)."""

import itertools
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from l2lgd.data import DataConfig, Images, load_images
from l2lgd.errors import ConfigError
from l2lgd.seeding import derive_seed, generator
from l2lgd.tasks.base import Optimizee, Split, Task

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "tanh": torch.tanh,
}


class Classifiers(Optimizee):
    """B multilayer perceptrons, each trained on its own stream of minibatches.

    Args:
        images: the data they are trained on.
        shapes: names and shapes of weights (inputs, outputs) and biases (outputs,), layer by layer.
        initial_parameters: (B, n).
        seed: of the streams of minibatches.
        rows: which of the ``stacked`` functions of that seed these B are.
    """

    stochastic = True

    def __init__(
        self,
        images: Images,
        shapes: dict[str, tuple[int, ...]],
        activation: Callable[[Tensor], Tensor],
        batch_size: int,
        initial_parameters: Tensor,
        seed: int,
        stacked: int,
        rows: slice = slice(None),
    ) -> None:
        self.images, self.shapes, self.activation = images, shapes, activation
        self.batch_size, self.initial_parameters = batch_size, initial_parameters
        self.seed, self.stacked, self.rows = seed, stacked, rows

    def minibatch(self, step: int) -> tuple[Tensor, Tensor]:
        """Pixels (B, batch, pixels) in [0, 1] and labels (B, batch), drawn with replacement."""
        draw = generator(self.seed, "minibatch", step)
        shape = (self.stacked, self.batch_size)
        index = torch.randint(len(self.images.labels), shape, generator=draw)[self.rows]
        index = index.to(self.images.labels.device)
        pixels = self.images.pixels[index].flatten(2).to(self.initial_parameters.dtype) / 255
        return pixels, self.images.labels[index]

    def loss(self, parameters: Tensor, step: int) -> Tensor:
        hidden, labels = self.minibatch(step)
        tensors = list(self.unpack(parameters).values())
        for depth, (weight, bias) in enumerate(zip(tensors[::2], tensors[1::2], strict=True)):
            if depth:
                hidden = self.activation(hidden)
            hidden = torch.baddbmm(bias.unsqueeze(1), hidden, weight)
        losses = functional.cross_entropy(hidden.flatten(0, 1), labels.flatten(), reduction="none")
        return losses.view(labels.shape).mean(1)

    def select(self, rows: slice) -> Self:
        chosen = range(self.stacked)[self.rows][rows]
        return type(self)(
            self.images,
            self.shapes,
            self.activation,
            self.batch_size,
            self.initial_parameters[rows],
            self.seed,
            self.stacked,
            slice(chosen.start, chosen.stop, chosen.step),
        )


class ClassificationTask(Task):
    """MLP classifiers on a data set of images.

    Args:
        data: which data set, and where it comes from.
        hidden_layers: units of each hidden layer.
        activation: ``sigmoid``, ``relu`` or ``tanh``.
        batch_size: images in a minibatch.
        initial_std: standard deviation of all initial weights and biases.
    """

    def __init__(
        self,
        name: str,
        data: DataConfig,
        hidden_layers: list[int],
        activation: str = "sigmoid",
        batch_size: int = 128,
        initial_std: float = 0.01,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ConfigError(f"activation={activation}: choose one of {', '.join(ACTIVATIONS)}")
        if any(units < 1 for units in hidden_layers):
            raise ConfigError(f"hidden_layers={hidden_layers}: every layer needs at least 1 unit")
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: must be at least 1")
        if initial_std < 0:
            raise ConfigError(f"initial_std={initial_std}: must not be negative")
        self.name, self.data = name, data
        self.hidden_layers, self.activation = list(hidden_layers), activation
        self.batch_size, self.initial_std = batch_size, initial_std

    def setup(
        self, data_dir: str, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        super().setup(data_dir, device, dtype)
        self.images = load_images(self.data, data_dir, device)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters of one classifier."""
        train = self.images["train"]
        widths = [train.pixels[0].numel(), *self.hidden_layers, train.num_classes]
        shapes: dict[str, tuple[int, ...]] = {}
        for depth, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            shapes[f"layer{depth}.weight"] = (inputs, outputs)
            shapes[f"layer{depth}.bias"] = (outputs,)
        return shapes

    def sample(self, split: Split, num_functions: int, generator: torch.Generator) -> Classifiers:
        shapes = self.shapes()
        n = sum(torch.Size(shape).numel() for shape in shapes.values())
        initial = self.initial_std * torch.randn(num_functions, n, generator=generator)
        seed = int(torch.randint(2**62, (), generator=generator))
        return Classifiers(
            self.images[split],
            shapes,
            ACTIVATIONS[self.activation],
            self.batch_size,
            initial.to(self.device, self.dtype),
            derive_seed(seed, split),
            num_functions,
        )

    def data_description(self) -> dict[str, object]:
        return self.images.description
