"""The data sets that there are: what torchvision calls them, how they look and are split."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class DataSet:
    """How a data set is called, looks, and is split."""

    torchvision_class: str
    files: tuple[str, ...]  # the original ones, below data_dir; where there are others, too
    size: tuple[int, int]
    mode: str  # of PIL
    validation_examples: int = 5000  # the last ones of the training images
    validation_share: float = 0.1  # of the training images, at most
    embedded: bool = False
    # Arguments of torchvision's class for the training images and for the test images.
    parts: tuple[Mapping[str, object], Mapping[str, object]] = ({"train": True}, {"train": False})
    labels: str = "targets"  # what torchvision's class calls them
    axes: tuple[int, ...] | None = None  # of its array, as (N, height, width[, 3]); None: as it is

    def held_out(self, source: str, count: int) -> int:
        """How many of ``count`` training images are for validation: the last ones."""
        if source == "embedded":
            return count // 2
        return max(1, min(self.validation_examples, int(self.validation_share * count)))


def _idx_files(folder: str, train: str = "train", test: str = "t10k") -> tuple[str, ...]:
    parts = ("images-idx3", "labels-idx1")
    return tuple(f"{folder}/raw/{s}-{part}-ubyte" for s in (train, test) for part in parts)


def _grey(name: str) -> DataSet:
    """A data set in the form of MNIST."""
    return DataSet(name, _idx_files(name), (28, 28), "L", embedded=name == "MNIST")


def _cifar(name: str, folder: str, files: tuple[str, ...]) -> DataSet:
    paths = tuple(f"{folder}/{file}" for file in files)
    # As many for validation as there are test images, see ImageTask.
    return DataSet(name, paths, (32, 32), "RGB", validation_examples=10000, validation_share=0.2)


_CIFAR_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")

DATA_SETS = {
    "mnist": _grey("MNIST"),
    "fashion_mnist": _grey("FashionMNIST"),
    "kmnist": _grey("KMNIST"),
    # 47 letters and digits, as many of each. The last training images, as many as there are test
    # images, are for validation (Cohen et al., 2017). Its files have columns before rows.
    "emnist": DataSet(
        "EMNIST",
        _idx_files("EMNIST", "emnist-balanced-train", "emnist-balanced-test"),
        (28, 28),
        "L",
        validation_examples=18800,
        validation_share=0.2,
        parts=({"split": "balanced", "train": True}, {"split": "balanced", "train": False}),
        axes=(0, 2, 1),
    ),
    "svhn": DataSet(
        "SVHN",
        ("train_32x32.mat", "test_32x32.mat"),
        (32, 32),
        "RGB",
        validation_examples=10000,
        validation_share=0.2,
        parts=({"split": "train"}, {"split": "test"}),
        labels="labels",
        axes=(0, 2, 3, 1),
    ),
    "cifar10": _cifar("CIFAR10", "cifar-10-batches-py", _CIFAR_BATCHES),
    "cifar100": _cifar("CIFAR100", "cifar-100-python", ("train", "test", "meta")),
}
