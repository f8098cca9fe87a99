"""Perceptrons and LeNets: classifiers of images with PyTorch's own initial weights."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from l2lgd.data.sources import DataConfig
from l2lgd.errors import ConfigError
from l2lgd.tasks.layers import Activation, at_least_one, known_activation, perceptron
from l2lgd.tasks.module import ModuleTask


class LeNet(nn.Module):
    """Convolutions, each with 2 × 2 max pooling and an activation; then two linear layers.

    So are those of LeCun et al. 1998, section 2.B, but for what is drawn there by hand: which maps
    see which, trained pooling, and outputs by distance.

    Args:
        image: channels, height and width.
        channels: of each convolution, which has no padding.
        kernel_size: height and width of the convolutions.
        hidden_units: of the first linear layer.
        activation: one of ``ACTIVATIONS``.

    Raises:
        ConfigError: nothing is left of an image of that size.
    """

    def __init__(
        self,
        image: torch.Size,
        num_classes: int,
        channels: list[int],
        kernel_size: int,
        hidden_units: int,
        activation: str,
    ) -> None:
        super().__init__()
        maps, height, width = image
        layers = []
        for inputs, outputs in itertools.pairwise([maps, *channels]):
            layers.append(nn.Conv2d(inputs, outputs, kernel_size))
            height, width = ((size - kernel_size + 1) // 2 for size in (height, width))
            if height < 1 or width < 1:
                raise ConfigError(
                    f"kernel_size={kernel_size}: nothing is left of images {image[1]} × {image[2]} "
                    f"after {len(channels)} convolutions; take a smaller one, or larger images"
                )
        self.convolutions = nn.ModuleList(layers)
        self.activation = Activation(activation)
        self.hidden = nn.Linear(channels[-1] * height * width, hidden_units)
        self.logits = nn.Linear(hidden_units, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) → (batch, classes)."""
        for convolution in self.convolutions:
            images = self.activation(functional.max_pool2d(convolution(images), 2))
        hidden = self.activation(self.hidden(images.flatten(1)))
        found: Tensor = self.logits(hidden)
        return found


class PerceptronTask(ModuleTask):
    """Perceptrons that classify images, of any depth.

    The paper's are those of :class:`l2lgd.tasks.classification.ClassificationTask`, whose initial
    weights are all of one size; these are as ``nn.Linear`` draws them, by the layer's width.

    Args:
        data: which images, and where they come from.
        hidden_layers: units of each hidden layer; none for logistic regression.
        activation: ``sigmoid``, ``relu``, ``tanh`` or ``gelu``.
        layer_norm: normalise hidden layers before their activation.
        batch_size: images in a minibatch; None for all images at every step.
    """

    def __init__(
        self,
        name: str,
        data: DataConfig,
        hidden_layers: list[int],
        activation: str = "relu",
        layer_norm: bool = False,
        batch_size: int | None = 64,
    ) -> None:
        at_least_one(hidden_layers=hidden_layers)
        super().__init__(name, self.build, data=data, batch_size=batch_size)
        self.hidden_layers, self.layer_norm = list(hidden_layers), layer_norm
        self.activation = known_activation(activation)

    def build(self) -> nn.Sequential:
        """A module with weights of PyTorch's own generator, once the data are loaded."""
        widths = [self.image_shape.numel(), *self.hidden_layers, self.num_classes]
        layers = perceptron(widths, self.activation, self.layer_norm)
        return nn.Sequential(nn.Flatten(), *layers)


class LeNetTask(ModuleTask):
    """LeNets that classify images.

    Args:
        data: which images, and where they come from.
        channels: of each convolution.
        kernel_size: height and width of the convolutions.
        hidden_units: of the first linear layer.
        activation: ``sigmoid``, ``relu``, ``tanh`` or ``gelu``.
        batch_size: images in a minibatch; None for all images at every step.
    """

    def __init__(
        self,
        name: str,
        data: DataConfig,
        channels: list[int],
        kernel_size: int = 5,
        hidden_units: int = 32,
        activation: str = "relu",
        batch_size: int | None = 32,
    ) -> None:
        at_least_one(channels=channels, kernel_size=kernel_size, hidden_units=hidden_units)
        if not channels:
            raise ConfigError("channels=[]: needs at least one convolution")
        super().__init__(name, self.build, data=data, batch_size=batch_size)
        self.channels, self.kernel_size = list(channels), kernel_size
        self.hidden_units, self.activation = hidden_units, known_activation(activation)

    def build(self) -> LeNet:
        """A module with weights of PyTorch's own generator, once the data are loaded."""
        options = (self.channels, self.kernel_size, self.hidden_units, self.activation)
        return LeNet(self.image_shape, self.num_classes, *options)
