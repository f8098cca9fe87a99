"""Training a convolutional network with batch normalisation (section 3.3 of the paper)."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from l2lgd.data.sources import DataConfig
from l2lgd.errors import ConfigError
from l2lgd.kernels.normalised_pool import normalised_pool
from l2lgd.tasks.images import ImageTask, Network


class ConvNet(Network):
    """Convolutions, each with batch normalisation, ReLU and 2 × 2 max pooling; two linear layers.

    Batch normalisation has an offset and no scale, and always uses the statistics of its
    minibatch. So nothing depends on the biases before it; they are there because the network of
    the authors' code has them, and their gradients are zero.

    Args:
        image: (height, width, channels), or (height, width) of grey ones. Windows of pooling that
            stick out are cut, so no image is too small.
        channels: feature maps of each convolution.
        kernel_size: odd; the image keeps its size until it is pooled.
        hidden_units: of the first linear layer, which is normalised like the convolutions.
        epsilon: added to the variances of batch normalisation.
    """

    def __init__(
        self,
        image: tuple[int, ...],
        num_classes: int,
        channels: list[int],
        kernel_size: int,
        hidden_units: int,
        epsilon: float,
    ) -> None:
        self.depth, self.epsilon = len(channels), epsilon
        self.shapes: dict[str, tuple[int, ...]] = {}
        height, width, inputs = image if len(image) == 3 else (*image, 1)
        for index, outputs in enumerate(channels):
            self.shapes[f"conv{index}.weight"] = (outputs, inputs, kernel_size, kernel_size)
            self.shapes[f"conv{index}.bias"] = (outputs,)
            self.shapes[f"conv{index}.offset"] = (outputs,)
            height, width, inputs = (height + 1) // 2, (width + 1) // 2, outputs
        self.shapes["hidden.weight"] = (height * width * inputs, hidden_units)
        self.shapes["hidden.bias"] = (hidden_units,)
        self.shapes["hidden.offset"] = (hidden_units,)
        self.shapes["output.weight"] = (hidden_units, num_classes)
        self.shapes["output.bias"] = (num_classes,)

    def logits(self, tensors: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
        if pixels.dim() == 4:  # grey
            pixels = pixels.unsqueeze(-1)
        images = pixels.movedim(-1, 2)  # channels last in memory, which is the fast order
        if pixels.device.type == "cpu" or len(pixels) == 1:
            features = torch.stack([self._alone(tensors, b, x) for b, x in enumerate(images)])
        else:
            features = self._together(tensors, images)
        hidden = torch.bmm(features, tensors["hidden.weight"])
        hidden = _normalised(hidden, self.epsilon) + tensors["hidden.offset"].unsqueeze(1)
        bias = tensors["output.bias"].unsqueeze(1)
        return torch.baddbmm(bias, torch.relu(hidden), tensors["output.weight"])

    def _alone(self, tensors: Mapping[str, Tensor], function: int, images: Tensor) -> Tensor:
        """Features (batch, F) of one network for images (batch, channels, height, width)."""
        for index in range(self.depth):
            weight = tensors[f"conv{index}.weight"][function]
            offset = tensors[f"conv{index}.offset"][function]
            images = self._layer(images, weight, offset, 1)
        return images.flatten(1)

    def _together(self, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Features (B, batch, F) of all networks at once, by convolutions in groups.

        Faster where a launch costs more than its arithmetic; on a CPU, twice as slow.
        """
        functions, batch = images.shape[:2]
        images = images.transpose(0, 1).flatten(1, 2)
        images = images.contiguous(memory_format=torch.channels_last)
        for index in range(self.depth):
            weight = tensors[f"conv{index}.weight"].flatten(0, 1)
            offset = tensors[f"conv{index}.offset"].flatten(0, 1)
            images = self._layer(images, weight, offset, functions)
        return images.contiguous().view(batch, functions, -1).transpose(0, 1)

    def _layer(self, images: Tensor, weight: Tensor, offset: Tensor, groups: int) -> Tensor:
        padding = weight.shape[-1] // 2
        images = functional.conv2d(images, weight, padding=padding, groups=groups)
        return normalised_pool(images, offset, self.epsilon)


def _normalised(hidden: Tensor, epsilon: float) -> Tensor:
    """(B, batch, units), each unit with mean 0 and variance 1 over its batch."""
    centred = hidden - hidden.mean(1, keepdim=True)
    variance = centred.square().mean(1, keepdim=True)
    return centred * torch.rsqrt(variance + epsilon)


class ConvNetTask(ImageTask):
    """Convolutional classifiers on a data set of images, with colours or grey.

    Args:
        data: which data set, and where it comes from.
        channels: feature maps of each convolution.
        kernel_size: height and width of the convolutions, odd.
        hidden_units: of the fully connected layer.
        batch_size: images in a minibatch.
        initial_std: standard deviation of all initial parameters.
        epsilon: added to the variances of batch normalisation.
        labels: the classes in use, counted from 0; None for all.
        examples: images that each function is trained on, drawn at random; None for all.
        label_counts: how many labels functions to meta-train on have, one of these; None for all.
    """

    def __init__(
        self,
        name: str,
        data: DataConfig,
        channels: list[int],
        kernel_size: int = 5,
        hidden_units: int = 32,
        batch_size: int = 128,
        initial_std: float = 0.01,
        epsilon: float = 1e-3,
        labels: list[int] | None = None,
        examples: int | None = None,
        label_counts: list[int] | None = None,
    ) -> None:
        if not channels or min(channels) < 1:
            raise ConfigError(f"channels={list(channels)}: needs one or more numbers of at least 1")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size={kernel_size}: must be odd")
        if hidden_units < 1:
            raise ConfigError(f"hidden_units={hidden_units}: must be at least 1")
        if epsilon <= 0:
            raise ConfigError(f"epsilon={epsilon}: must be positive")
        super().__init__(name, data, batch_size, initial_std, labels, examples, label_counts)
        if batch_size < 2:
            raise ConfigError("batch_size=1: batch normalisation needs at least 2 images")
        self.channels, self.kernel_size = list(channels), kernel_size
        self.hidden_units, self.epsilon = hidden_units, epsilon

    def network(
        self, image: tuple[int, ...], num_classes: int, generator: torch.Generator
    ) -> ConvNet:
        options = (self.channels, self.kernel_size, self.hidden_units, self.epsilon)
        return ConvNet(image, num_classes, *options)
