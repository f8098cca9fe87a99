"""Training a multilayer perceptron on images (section 3.2 of the paper)."""

import itertools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from l2lgd.data.sources import DataConfig
from l2lgd.errors import ConfigError
from l2lgd.tasks.images import ImageTask, Network

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
}


class Perceptron(Network):
    """Fully connected layers, from ``widths[0]`` inputs to ``widths[-1]`` classes.

    Weights are (inputs, outputs).
    """

    def __init__(self, widths: list[int], activation: Callable[[Tensor], Tensor]) -> None:
        self.activation = activation
        self.shapes: dict[str, tuple[int, ...]] = {}
        for depth, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            self.shapes[f"layer{depth}.weight"] = (inputs, outputs)
            self.shapes[f"layer{depth}.bias"] = (outputs,)

    def logits(self, tensors: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
        hidden, layers = pixels.flatten(2), list(tensors.values())
        for depth, (weight, bias) in enumerate(zip(layers[::2], layers[1::2], strict=True)):
            if depth:
                hidden = self.activation(hidden)
            hidden = torch.baddbmm(bias.unsqueeze(1), hidden, weight)
        return hidden


class ClassificationTask(ImageTask):
    """MLP classifiers on a data set of images.

    Args:
        data: which data set, and where it comes from.
        hidden_layers: units of each hidden layer.
        activation: ``sigmoid``, ``relu``, ``tanh`` or ``gelu``.
        batch_size: images in a minibatch.
        initial_std: standard deviation of all initial weights and biases.
        labels: the classes in use, counted from 0; None for all.
        examples: images that each function is trained on, drawn at random; None for all.
        label_counts: how many labels functions to meta-train on have, one of these; None for all.
    """

    def __init__(
        self,
        name: str,
        data: DataConfig,
        hidden_layers: list[int],
        activation: str = "sigmoid",
        batch_size: int = 128,
        initial_std: float = 0.01,
        labels: list[int] | None = None,
        examples: int | None = None,
        label_counts: list[int] | None = None,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ConfigError(f"activation={activation}: choose one of {', '.join(ACTIVATIONS)}")
        if any(units < 1 for units in hidden_layers):
            raise ConfigError(f"hidden_layers={hidden_layers}: every layer needs at least 1 unit")
        super().__init__(name, data, batch_size, initial_std, labels, examples, label_counts)
        self.hidden_layers, self.activation = list(hidden_layers), activation

    def network(
        self, image: tuple[int, ...], num_classes: int, generator: torch.Generator
    ) -> Perceptron:
        widths = [torch.Size(image).numel(), *self.hidden_layers, num_classes]
        return Perceptron(widths, ACTIVATIONS[self.activation])
