"""Small ResNets and vision transformers, classifiers of images of any size."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from l2lgd.data.sources import DataConfig
from l2lgd.errors import ConfigError
from l2lgd.tasks.layers import TransformerBlock, at_least_one, divided_by_heads
from l2lgd.tasks.module import ModuleTask

GROUPS = 4  # of channels, in group normalisation
NORMS = ("batch", "group", "none")


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions beside an identity or, between sizes, a 1 × 1 convolution.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the first convolution.
        norm: after each convolution, one of ``NORMS``.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, stride, norm)
        self.second = _convolution(outputs, outputs, 1, norm)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            if stride > 1 or inputs != outputs
            else nn.Identity()
        )

    def forward(self, images: Tensor) -> Tensor:
        """(batch, inputs, height, width) → (batch, outputs, height / stride, width / stride)."""
        found: Tensor = self.shortcut(images) + self.second(self.first(images).relu())
        return found.relu()


class ResNet(nn.Module):
    """Residual blocks (He et al. 2016, section 4.2), each stage at half the size of the one before.

    Args:
        image: channels, height and width.
        channels: of each stage; the first begins with a convolution of stride 2.
        depth: blocks in a stage.
    """

    def __init__(
        self, image: torch.Size, num_classes: int, channels: list[int], depth: int, norm: str
    ) -> None:
        super().__init__()
        self.stem = _convolution(image[0], channels[0], 2, norm)
        blocks, inputs = [], channels[0]
        for stage, outputs in enumerate(channels):
            for block in range(depth):
                stride = 2 if stage and not block else 1
                blocks.append(ResidualBlock(inputs, outputs, stride, norm))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.logits = nn.Linear(inputs, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) → (batch, classes)."""
        features = self.blocks(self.stem(images).relu())
        found: Tensor = self.logits(features.mean((2, 3)))
        return found


class VisionTransformer(nn.Module):
    """Transformer blocks on square patches (Dosovitskiy et al. 2021), averaged at the end.

    Images that patches do not divide have zeros at their lower and right edges.

    Args:
        image: channels, height and width.
        patch_size: height and width of a patch.
    """

    def __init__(
        self,
        image: torch.Size,
        num_classes: int,
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        channels, height, breadth = image
        self.patch_size = patch_size
        self.missing = (-breadth % patch_size, -height % patch_size)
        count = -(-height // patch_size) * -(-breadth // patch_size)
        self.embedding = nn.Linear(channels * patch_size**2, width)
        self.positions = nn.Parameter(0.02 * torch.randn(count, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) → (batch, classes)."""
        tokens = self.embedding(self.patches(images)) + self.positions
        found: Tensor = self.logits(self.norm(self.blocks(tokens)).mean(1))
        return found

    def patches(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) → (batch, patches, numbers of a patch)."""
        right, below = self.missing
        size = (-1, self.patch_size)
        padded = functional.pad(images, (0, right, 0, below))
        cut: Tensor = padded.unflatten(3, size).unflatten(2, size)  # (batch, channels, y, ·, x, ·)
        return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


class ResNetTask(ModuleTask):
    """ResNets that classify images.

    Args:
        data: which images, and where they come from.
        channels: of each stage; the next has images of half the size.
        depth: residual blocks in a stage.
        norm: ``batch``, with the statistics of each minibatch, ``group`` or ``none``.
        batch_size: images in a minibatch; None for all images at every step.
    """

    def __init__(
        self,
        name: str,
        data: DataConfig,
        channels: list[int],
        depth: int = 1,
        norm: str = "batch",
        batch_size: int | None = 32,
    ) -> None:
        at_least_one(channels=channels, depth=depth)
        if not channels:
            raise ConfigError("channels=[]: needs at least one stage")
        if norm not in NORMS:
            raise ConfigError(f"norm={norm}: choose one of {', '.join(NORMS)}")
        if norm == "group" and any(count % GROUPS for count in channels):
            raise ConfigError(f"channels={channels}: norm=group needs multiples of {GROUPS}")
        super().__init__(name, self.build, data=data, batch_size=batch_size)
        self.channels, self.depth, self.norm = list(channels), depth, norm

    def build(self) -> ResNet:
        """A module with weights of PyTorch's own generator, once the data are loaded."""
        return ResNet(self.image_shape, self.num_classes, self.channels, self.depth, self.norm)


class VisionTransformerTask(ModuleTask):
    """Vision transformers that classify images.

    Args:
        data: which images, and where they come from.
        patch_size: height and width of a patch, in pixels.
        width: numbers that a patch becomes.
        depth: blocks.
        heads: of the attention.
        batch_size: images in a minibatch; None for all images at every step.
    """

    def __init__(
        self,
        name: str,
        data: DataConfig,
        patch_size: int = 7,
        width: int = 32,
        depth: int = 2,
        heads: int = 2,
        batch_size: int | None = 32,
    ) -> None:
        at_least_one(patch_size=patch_size, depth=depth)
        divided_by_heads(width, heads)
        super().__init__(name, self.build, data=data, batch_size=batch_size)
        self.patch_size, self.width, self.depth, self.heads = patch_size, width, depth, heads

    def build(self) -> VisionTransformer:
        """A module with weights of PyTorch's own generator, once the data are loaded."""
        options = (self.patch_size, self.width, self.depth, self.heads)
        return VisionTransformer(self.image_shape, self.num_classes, *options)


def _convolution(inputs: int, outputs: int, stride: int, norm: str) -> nn.Sequential:
    normalised = {
        "batch": lambda: nn.BatchNorm2d(outputs, track_running_stats=False),
        "group": lambda: nn.GroupNorm(GROUPS, outputs),
        "none": nn.Identity,
    }
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=norm == "none")
    return nn.Sequential(convolution, normalised[norm]())
