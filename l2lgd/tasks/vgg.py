"""Features of images: the convolutions of VGG (Simonyan and Zisserman, 2014), as style losses use.

Layers are named as in the literature: ``conv3_2`` is the second convolution of the third block,
and its features are those after ReLU.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from l2lgd.data.sources import download_timeout
from l2lgd.errors import CheckpointError, ConfigError, DataUnavailable, one_line
from l2lgd.storage import checkpoint
from l2lgd.storage.paths import as_typed

WIDTHS = (64, 128, 256, 512, 512)  # feature maps of the convolutions of each block
DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # convolutions of each block
POOLING: dict[str, Callable[[Tensor, int], Tensor]] = {
    "average": functional.avg_pool2d,
    "max": functional.max_pool2d,
}
TORCHVISION = "torchvision"


@dataclass(frozen=True)
class Pretrained:
    """Weights that torchvision has, and the statistics of RGB pixels, 0 to 255, they expect."""

    enum: str
    member: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


PRETRAINED = {
    # of the original network, which the literature on style uses
    "vgg16": Pretrained(
        "VGG16_Weights", "IMAGENET1K_FEATURES", (123.0, 117.0, 104.0), (1.0, 1.0, 1.0)
    ),
    "vgg19": Pretrained(
        "VGG19_Weights", "IMAGENET1K_V1", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    ),
}


@dataclass
class VGGConfig:
    """Which network, with which weights.

    ``weights``: ``torchvision`` (downloaded when missing), or a safetensors file, which says itself
    which network it is of, as ``scripts/tools/hed_weights.py`` writes it. ``pooling``: ``average``,
    as Gatys et al. recommend, or ``max``, as the network was trained.
    """

    network: str = "vgg19"
    weights: str = TORCHVISION
    pooling: str = "average"

    def __post_init__(self) -> None:
        if self.network not in DEPTHS:
            raise ConfigError(f"network={self.network}: choose one of {', '.join(DEPTHS)}")
        if self.pooling not in POOLING:
            raise ConfigError(f"pooling={self.pooling}: choose one of {', '.join(POOLING)}")


def layer_names(network: str) -> list[str]:
    """All convolutions, in order."""
    depths = enumerate(DEPTHS[network], 1)
    return [f"conv{block}_{layer}" for block, depth in depths for layer in range(1, depth + 1)]


class VGG:
    """The convolutions up to the last layer that is asked for.

    Args:
        tensors: ``conv1_1.weight`` (64, 3, 3, 3), ``conv1_1.bias`` (64,), and so on.
        layers: those whose features are wanted.
        mean, std: per channel, of pixels in [0, 255], as the weights expect them.
    """

    def __init__(
        self,
        network: str,
        tensors: dict[str, Tensor],
        layers: Iterable[str],
        mean: Tensor,
        std: Tensor,
        pooling: str = "average",
    ) -> None:
        wanted, names = set(layers), layer_names(network)
        last = max(names.index(name) for name in wanted)
        self.wanted, self.names, self.pool = wanted, names[: last + 1], POOLING[pooling]
        self.tensors = {
            key: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
            for key, value in tensors.items()
            if key.partition(".")[0] in self.names
        }
        self.mean, self.std = mean.view(3, 1, 1), std.view(3, 1, 1)

    def features(self, pixels: Tensor) -> dict[str, Tensor]:
        """Of images (B, 3, height, width) in [0, 255]; each (B, channels, height', width')."""
        maps = (pixels - self.mean) / self.std
        maps = maps.contiguous(memory_format=torch.channels_last)
        found = {}
        for before, name in itertools.pairwise(["conv1_0", *self.names]):
            if before[4] != name[4]:
                maps = self.pool(maps, 2)
            weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
            maps = torch.relu(functional.conv2d(maps, weight, bias, padding=1))
            if name in self.wanted:
                found[name] = maps
        return found


def load_vgg(
    config: VGGConfig, layers: Iterable[str], device: torch.device, dtype: torch.dtype
) -> tuple[VGG, str]:
    """The network on the device, and one line that says what it is.

    Raises:
        DataUnavailable: its weights are not here and could not be downloaded.
        ConfigError: it has no such layer.
    """
    if config.weights == TORCHVISION:
        network, about = config.network, f"{config.network} of torchvision"
        tensors, mean, std = _of_torchvision(config)
    else:
        network, about, tensors, mean, std = _of_file(config)
    unknown = sorted(set(layers) - set(layer_names(network)))
    if unknown:
        known = ", ".join(layer_names(network))
        raise ConfigError(f"content_layers, style_layers: no {unknown[0]}; {network} has {known}")
    ready = {key: value.to(device, dtype) for key, value in tensors.items()}
    center, spread = (torch.tensor(v, device=device, dtype=dtype) for v in (mean, std))
    return VGG(network, ready, layers, center, spread, config.pooling), about


def _of_torchvision(
    config: VGGConfig,
) -> tuple[dict[str, Tensor], tuple[float, ...], tuple[float, ...]]:
    from torchvision import models

    pretrained = PRETRAINED[config.network]
    weights = getattr(getattr(models, pretrained.enum), pretrained.member)
    try:
        with download_timeout():
            state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    # URLError, RuntimeError (a bad hash), OSError and more
    except Exception as error:
        raise _unavailable(config, error) from error
    kernels = [key for key in state if key.startswith("features.") and key.endswith(".weight")]
    tensors = {}
    for name, key in zip(layer_names(config.network), kernels, strict=True):
        tensors[f"{name}.weight"] = state[key]
        tensors[f"{name}.bias"] = state[key.replace("weight", "bias")]
    return tensors, pretrained.mean, pretrained.std


def _of_file(
    config: VGGConfig,
) -> tuple[str, str, dict[str, Tensor], tuple[float, ...], tuple[float, ...]]:
    path = as_typed(config.weights)
    try:
        tensors, about = checkpoint.load(path)
        network = str(about["network"])
        mean, std = tuple(about["mean"]), tuple(about["std"])
        missing = {f"{n}.{part}" for n in layer_names(network) for part in ("weight", "bias")}
        if missing - set(tensors):
            raise KeyError(min(missing - set(tensors)))
        _check_shapes(network, tensors, mean, std)
        return network, f"{network}, {about['name']}", tensors, mean, std
    except (CheckpointError, LookupError, TypeError, ValueError) as error:
        reason = one_line(error).partition(";")[0]  # its way out is of another kind of file
        if isinstance(error, KeyError):
            reason = f"no {error.args[0]} in it"
        raise DataUnavailable(
            f"task.vgg.weights={config.weights} has no weights of VGG ({reason}); "
            "python scripts/tools/hed_weights.py makes such a file"
        ) from error


def _check_shapes(
    network: str, tensors: dict[str, Tensor], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """Raise ValueError where a layer does not fit the one before it, or the colours."""
    if not all(len(v) == 3 and all(isinstance(x, int | float) for x in v) for v in (mean, std)):
        raise ValueError("mean and std must be three numbers each")
    inputs = 3
    for name in layer_names(network):
        bias = tensors[f"{name}.bias"]
        if bias.dim() != 1 or tensors[f"{name}.weight"].shape != (len(bias), inputs, 3, 3):
            raise ValueError(f"{name} does not fit what is before it")
        inputs = len(bias)


def _unavailable(config: VGGConfig, cause: Exception) -> DataUnavailable:
    return DataUnavailable(
        f"the weights of {config.network} are not available ({one_line(cause)}). With "
        "task.vgg.weights=torchvision they are downloaded once; without internet, "
        "python scripts/tools/hed_weights.py makes a file for task.vgg.weights=FILE"
    )
