"""Neural art (section 3.4 of the paper): painting a photograph in the style of another picture.

The optimizee is the image itself, θ its pixels in [0, 255]. With the features F_l of a pretrained
network at layer l, (C, M) for C channels at M places, and its Gram matrix G_l = F_l F_lᵀ / M,

    f(θ) = scale · P (α · content + β · style + γ · smoothness),
    content = ‖F_l(θ) − F_l(content)‖² / ‖F_l(content)‖², averaged over layers,
    style = ‖G_l(θ) − G_l(style)‖² / ‖G_l(style)‖², averaged over layers,
    smoothness = mean square of the difference of neighbouring pixels, in units of 100,

which is the loss of Gatys et al. (2015) with weights of the layers that make each count alike,
whatever the network. P is the number of pixels, so the gradient of a pixel has the same size
whatever the image's; a scale of 1000 makes it about 30 at the start, the size of the paper's.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from l2lgd.data.photographs import find_painting, find_photographs, read_picture
from l2lgd.errors import ConfigError
from l2lgd.storage.paths import as_typed
from l2lgd.tasks.base import Optimizee, Split, Task
from l2lgd.tasks.vgg import TORCHVISION, VGG, VGGConfig, load_vgg

INITIAL = ("noise", "content")
MEAN_PIXEL = (123.7, 116.3, 103.5)  # of natural photographs, RGB
CHUNK_PIXELS = {"cpu": 128 * 128, "cuda": 64 * 128 * 128}  # of images through the network at once


class StyleLoss:
    """f for any image: the network, the weights of the terms, the Gram matrices of the style.

    Args:
        painting: the style, (3, height, width) in [0, 255].
        content_weight, style_weight, smoothness_weight: α, β and γ.
        scale: of the whole loss.
    """

    def __init__(
        self,
        vgg: VGG,
        content_layers: Sequence[str],
        style_layers: Sequence[str],
        painting: Tensor,
        content_weight: float,
        style_weight: float,
        smoothness_weight: float,
        scale: float,
    ) -> None:
        self.vgg, self.content_layers, self.style_layers = vgg, content_layers, style_layers
        self.content_weight, self.style_weight = content_weight, style_weight
        self.smoothness_weight, self.scale = smoothness_weight, scale
        with torch.no_grad():
            features = vgg.features(painting.unsqueeze(0))
            self.grams = {name: _gram(features[name]) for name in style_layers}

    def content_of(self, photographs: Tensor) -> dict[str, Tensor]:
        """What the content term compares with, for photographs (B, 3, height, width)."""
        with torch.no_grad():
            features = self.vgg.features(photographs)
        return {name: features[name] for name in self.content_layers}

    def __call__(self, pixels: Tensor, content: Mapping[str, Tensor]) -> Tensor:
        """Losses (B,) of images (B, 3, height, width)."""
        features = self.vgg.features(pixels)
        wanted = [_relative(features[name], content[name]) for name in self.content_layers]
        style = [_relative(_gram(features[name]), self.grams[name]) for name in self.style_layers]
        across, down = pixels.diff(dim=-1), pixels.diff(dim=-2)
        roughness = (across.square().mean((1, 2, 3)) + down.square().mean((1, 2, 3))) / 100**2
        loss = self.content_weight * torch.stack(wanted).mean(0)
        loss = loss + self.style_weight * torch.stack(style).mean(0)
        loss = loss + self.smoothness_weight * roughness
        return loss * (self.scale * pixels.shape[-1] * pixels.shape[-2])


def _relative(found: Tensor, target: Tensor) -> Tensor:
    """Squared errors (B,) of (B, …) in units of the squared norm of the target (B or 1, …)."""
    error = (found - target).square().flatten(1).sum(1)
    return error / target.square().flatten(1).sum(1)


def _gram(features: Tensor) -> Tensor:
    """(B, C, height, width) → (B, C, C), averaged over places."""
    flat = features.flatten(2)
    return torch.bmm(flat, flat.transpose(1, 2)) / flat.shape[2]


class Paintings(Optimizee):
    """B images to be painted in one style.

    Args:
        style: f, apart from the content.
        photographs: the contents, (B, 3, height, width) in [0, 255].
        content: their features, each (B, …).
        initial_parameters: (B, 3 · height · width).
    """

    stochastic = False

    def __init__(
        self,
        style: StyleLoss,
        photographs: Tensor,
        content: Mapping[str, Tensor],
        initial_parameters: Tensor,
    ) -> None:
        self.style, self.photographs, self.content = style, photographs, content
        self.initial_parameters = initial_parameters
        self.shapes = {"image": tuple(photographs.shape[1:])}

    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return self.style(self.unpack(parameters)["image"], self.content)

    def select(self, rows: slice) -> Self:
        content = {name: features[rows] for name, features in self.content.items()}
        return type(self)(
            self.style, self.photographs[rows], content, self.initial_parameters[rows]
        )

    def loss_and_gradient(self, parameters: Tensor, step: int) -> tuple[Tensor, Tensor]:
        found = [
            Optimizee.loss_and_gradient(self.select(rows), parameters[rows], step)
            for rows in self._chunks()
        ]
        losses, gradients = zip(*found, strict=True)
        return torch.cat(losses), torch.cat(gradients)

    def hessian_product(self, parameters: Tensor, step: int, vector: Tensor) -> Tensor:
        found = [
            Optimizee.hessian_product(self.select(rows), parameters[rows], step, vector[rows])
            for rows in self._chunks()
        ]
        return torch.cat(found)

    def _chunks(self) -> Iterator[slice]:
        """Images that go through the network together: few on a CPU, for its caches."""
        return chunks(self.photographs)


def chunks(images: Tensor) -> Iterator[slice]:
    """Slices of images (B, 3, height, width) that fit into caches or memory."""
    budget = CHUNK_PIXELS["cpu" if images.device.type == "cpu" else "cuda"]
    each = max(1, budget // (images.shape[-1] * images.shape[-2]))
    return (slice(first, first + each) for first in range(0, len(images), each))


class NeuralArtTask(Task):
    """Photographs to be painted in one style.

    Args:
        content: a folder of photographs, see :func:`l2lgd.photographs.find_photographs`; None for
            ``data_dir/neural_art/content``.
        style: a picture, or the name of one in ``data_dir/neural_art/style``.
        size: height and width of the images.
        zoom: the shorter side of a photograph, in units of ``size``, before it is cropped.
        crop: to squares; otherwise photographs of one shape are painted whole.
        style_size: the shorter side of the style; None for ``size``.
        vgg: the network whose features count.
        content_layers, style_layers: whose features the two terms compare.
        content_weight, style_weight, smoothness_weight: α, β and γ.
        scale: of the whole loss.
        initial: ``noise`` around the mean of natural images, or the ``content``.
        initial_std: of the noise, in units of pixels.
    """

    not_in_keys = ("content", "style", "vgg")  # data_description says what they are

    def __init__(
        self,
        name: str,
        vgg: VGGConfig,
        content_layers: list[str],
        style_layers: list[str],
        content: str | None = None,
        style: str = "starry_night",
        size: int = 64,
        zoom: float = 1.25,
        crop: bool = True,
        style_size: int | None = None,
        content_weight: float = 1.0,
        style_weight: float = 1.0,
        smoothness_weight: float = 1.0,
        scale: float = 1000.0,
        initial: str = "noise",
        initial_std: float = 25.0,
    ) -> None:
        if size < 16:
            raise ConfigError(f"size={size}: must be at least 16, the network halves it four times")
        if style_size is not None and style_size < 16:
            raise ConfigError(f"style_size={style_size}: must be at least 16")
        if zoom < 1:
            raise ConfigError(f"zoom={zoom}: must be at least 1")
        if initial not in INITIAL:
            raise ConfigError(f"initial={initial}: choose one of {', '.join(INITIAL)}")
        if initial_std < 0:
            raise ConfigError(f"initial_std={initial_std}: must not be negative")
        if not content_layers or not style_layers:
            raise ConfigError("content_layers and style_layers: at least one layer each")
        self.name, self.content, self.style, self.vgg_config = name, content, style, vgg
        self.content_layers, self.style_layers = list(content_layers), list(style_layers)
        self.size, self.zoom, self.crop = size, zoom if crop else 1.0, crop
        self.style_size = style_size or size
        self.weights = (content_weight, style_weight, smoothness_weight, scale)
        self.initial, self.initial_std = initial, initial_std
        self._photographs: dict[Path, Tensor] = {}

    def setup(
        self, data_dir: str, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        super().setup(data_dir, device, dtype)
        place = as_typed(data_dir) / "neural_art"
        folder = place / "content" if self.content is None else as_typed(self.content)
        self.files = find_photographs(folder)
        painting = find_painting(self.style, place / "style")
        layers = [*self.content_layers, *self.style_layers]
        try:
            vgg, about = load_vgg(self.vgg_config, layers, device, dtype)
        except ConfigError as error:
            raise ConfigError(f"task.{error}") from error
        self.painting = read_picture(painting, self.style_size)
        pixels = self.painting.to(device, dtype)
        self.style_loss = StyleLoss(
            vgg, self.content_layers, self.style_layers, pixels, *self.weights
        )
        self._description = {
            "name": f"{folder.name} in the style of {painting.stem}",
            "source": "folder",
            "num_examples": {split: len(files) for split, files in self.files.items()},
            "digest": _digest([*(f for files in self.files.values() for f in files), painting]),
            "network": f"{about}, {self.vgg_config.pooling} pooling",
        }
        if self.vgg_config.weights != TORCHVISION:
            self._description["note"] = f"features: {about}"

    def sample(self, split: Split, num_functions: int, generator: torch.Generator) -> Paintings:
        """Photographs in the order of their names, to meta-train on random ones; cropped."""
        files = self.files[split]
        if split == "train":
            chosen = torch.randint(len(files), (num_functions,), generator=generator).tolist()
        else:
            chosen = [index % len(files) for index in range(num_functions)]
        read = [self._read(files[index]) for index in chosen]
        if self.crop:
            read = [_crop(photograph, self.size, generator) for photograph in read]
        elif len({photograph.shape for photograph in read}) > 1:
            raise ConfigError(
                "task.crop=false: photographs must be of one shape to be painted whole"
            )
        photographs = torch.stack(read).to(self.device, self.dtype)
        parts = [self.style_loss.content_of(photographs[rows]) for rows in chunks(photographs)]
        content = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        if self.initial == "content":
            initial = photographs.flatten(1)
        else:
            noise = torch.randn(photographs.shape, generator=generator)
            mean = photographs.new_tensor(MEAN_PIXEL).view(3, 1, 1)
            initial = (mean + self.initial_std * noise.to(self.device, self.dtype)).flatten(1)
        return Paintings(self.style_loss, photographs, content, initial)

    def _read(self, path: Path) -> Tensor:
        if path not in self._photographs:
            self._photographs[path] = read_picture(path, round(self.zoom * self.size))
        return self._photographs[path]

    def data_description(self) -> dict[str, object]:
        return dict(self._description)


def _crop(photograph: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A square of (3, height, width), anywhere in it."""
    top, left = (
        int(torch.randint(side - size + 1, (), generator=generator))
        for side in photograph.shape[1:]
    )
    return photograph[:, top : top + size, left : left + size]


def _digest(files: Sequence[Path]) -> str:
    """Tells apart collections of pictures."""
    found = hashlib.sha256()
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()[:12]
