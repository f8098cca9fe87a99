"""Every data set from its original files, as small ones made by hand; from folders; resized."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from helpers import NO_NETWORK
from PIL import Image

from l2lgd.data import cache
from l2lgd.data.data_sets import DATA_SETS
from l2lgd.data.images import load_images
from l2lgd.data.pixels import coloured, resized
from l2lgd.data.sources import DataConfig
from l2lgd.errors import ConfigError, DataUnavailable

CPU = torch.device("cpu")
COUNTS = {"train": 20, "test": 6}
DRAW = np.random.default_rng(0)
GREY = {part: DRAW.integers(0, 256, (n, 28, 28), dtype=np.uint8) for part, n in COUNTS.items()}
COLOUR = {part: DRAW.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for part, n in COUNTS.items()}
LABELS = {part: np.arange(n) % 5 for part, n in COUNTS.items()}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)


def write_idx(folder: Path, names: dict[str, str], turned: bool = False) -> None:
    """Files in the format of MNIST: a magic number, the sizes, the bytes."""
    folder.mkdir(parents=True)
    for part, name in names.items():
        images = GREY[part].transpose(0, 2, 1) if turned else GREY[part]
        for kind, array in (("images-idx3", images), ("labels-idx1", LABELS[part])):
            head = np.array([0x800 + array.ndim, *array.shape], dtype=">i4").tobytes()
            content = head + array.astype(np.uint8).tobytes()
            (folder / f"{name}-{kind}-ubyte").write_bytes(content)


def check(name: str, data_dir: Path, expected: dict[str, np.ndarray]) -> None:
    images = load_images(DataConfig(name), str(data_dir), CPU)
    assert images.description["source"] == "torchvision"
    held = images.description["num_examples"]["validation"]
    assert 1 <= held < 10
    for split, part, rows in (
        *(("train", "train", slice(0, 20 - held)), ("validation", "train", slice(20 - held, 20))),
        ("test", "test", slice(0, 6)),
    ):
        assert images[split].pixels.equal(torch.from_numpy(expected[part][rows])), split
        assert images[split].labels.tolist() == LABELS[part][rows].tolist()


@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")],
)
def test_original_files_like_those_of_mnist_are_read(
    name: str, folder: str, tmp_path: Path
) -> None:
    write_idx(tmp_path / folder / "raw", {"train": "train", "test": "t10k"})
    check(name, tmp_path, GREY)


def test_images_of_emnist_are_upright(tmp_path: Path) -> None:
    names = {part: f"emnist-balanced-{part}" for part in COUNTS}
    write_idx(tmp_path / "EMNIST" / "raw", names, turned=True)
    check("emnist", tmp_path, GREY)


def test_the_original_files_of_svhn_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checksums are those of the real files, so they are replaced. A 0 is labelled 10."""
    io = pytest.importorskip("scipy.io")
    lists = {}
    for part in COUNTS:
        path = tmp_path / f"{part}_32x32.mat"
        labels = np.where(LABELS[part] == 0, 10, LABELS[part])[:, None]
        io.savemat(path, {"X": COLOUR[part].transpose(1, 2, 3, 0), "y": labels})
        lists[part] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", lists)
    check("svhn", tmp_path, COLOUR)


def test_the_original_files_of_cifar100_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fine labels; checksums are replaced."""
    folder, reader = tmp_path / "cifar-100-python", torchvision.datasets.CIFAR100
    folder.mkdir()
    content = {"meta": {"fine_label_names": [str(i) for i in range(100)]}}
    for part in COUNTS:
        planes = COLOUR[part].transpose(0, 3, 1, 2).reshape(COUNTS[part], -1)
        content[part] = {"data": planes, "fine_labels": LABELS[part].tolist()}
    sums = {}
    for name, what in content.items():
        (folder / name).write_bytes(pickle.dumps(what))
        sums[name] = hashlib.md5(pickle.dumps(what)).hexdigest()
    monkeypatch.setattr(reader, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(reader, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": sums["meta"]})
    check("cifar100", tmp_path, COLOUR)


@pytest.mark.parametrize("name", sorted(set(DATA_SETS) - {"mnist"}))
@pytest.mark.parametrize("source", ["auto", "torchvision"])
def test_without_files_and_network_the_ways_out_are_named(
    name: str, source: str, tmp_path: Path
) -> None:
    with pytest.raises(DataUnavailable) as caught:
        load_images(DataConfig(name, source), str(tmp_path), CPU)
    message = str(caught.value)
    for part in (name, str(tmp_path), "data_dir=", "task.data.source=folder"):
        assert part in message
    assert "\n" not in message


def test_files_of_something_else_are_unavailable_data(tmp_path: Path) -> None:
    for part in COUNTS:
        (tmp_path / f"{part}_32x32.mat").write_bytes(b"no matrix")
    with pytest.raises(DataUnavailable, match="svhn is not available"):
        load_images(DataConfig("svhn"), str(tmp_path), CPU)


@pytest.mark.parametrize(
    ("name", "count", "held_out"),
    [
        *(("mnist", 60000, 5000), ("kmnist", 60000, 5000), ("emnist", 112800, 18800)),
        *(("svhn", 73257, 10000), ("cifar10", 50000, 10000), ("cifar100", 50000, 10000)),
    ],
)
def test_as_many_images_are_held_out(name: str, count: int, held_out: int) -> None:
    assert DATA_SETS[name].held_out("torchvision", count) == held_out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colour pictures of 48 × 40 pixels, 15 training and two test ones of three classes."""
    root, draw = tmp_path_factory.mktemp("colours"), np.random.default_rng(1)
    for part, count in (("train", 15), ("test", 2)):
        for label in "abc":
            (root / part / label).mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / label / f"{index}.png")
    return root


@pytest.mark.parametrize("colours", [None, False, True])
@pytest.mark.parametrize("name", DATA_SETS)
def test_every_data_set_may_be_a_folder_and_small(
    name: str, colours: bool | None, folder: Path
) -> None:
    config = DataConfig(name, "folder", str(folder), 8, colours)
    images = load_images(config, "", CPU)
    with_colours = DATA_SETS[name].mode == "RGB" if colours is None else colours
    for part in images.only([2, 0]).parts.values():
        assert part.pixels.shape[1:] == ((8, 8, 3) if with_colours else (8, 8))
        assert part.pixels.dtype == torch.uint8
    assert images.description["size"] == 8
    assert images.description.get("colours") is colours


def test_pictures_of_a_folder_keep_colours_and_pixels_that_are_asked_for(folder: Path) -> None:
    """They do not pass through the small grey ones that MNIST has."""
    images = load_images(DataConfig("mnist", "folder", str(folder), 40, True), "", CPU)
    file = folder / "test" / "a" / "0.png"
    expected = resized(torch.from_numpy(np.array(Image.open(file))).unsqueeze(0), 40)
    assert (images["test"].pixels == expected).flatten(1).all(1).sum() == 1


def test_a_cache_of_decoded_pictures_belongs_to_one_look(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "FEWEST", 1)
    looks = [{}, {"size": 8}, {"size": 12}, {"colours": False}, {"size": 8, "colours": False}]
    configs = [DataConfig("svhn", "folder", str(folder), **look) for look in looks]
    first = [load_images(config, str(tmp_path), CPU) for config in configs]
    assert len(list((tmp_path / "decoded").iterdir())) == len(looks)
    for config, images in zip(configs, first, strict=True):
        again = load_images(config, str(tmp_path), CPU)
        assert again.description == images.description
        assert again["train"].pixels.equal(images["train"].pixels)
    assert len({images.description["digest"] for images in first}) == len(looks)


def test_embedded_digits_are_resized_before_they_are_split() -> None:
    whole = load_images(DataConfig(source="embedded"), "", CPU)
    small = load_images(DataConfig(source="embedded", size=8, colours=True), "", CPU)
    for split, part in whole.parts.items():
        assert small[split].pixels.equal(resized(coloured(part.pixels, True), 8))
        assert small[split].labels.equal(part.labels)
    assert small.description == {**whole.description, "size": 8, "colours": True}


def test_original_files_are_resized(mnist_dir: str) -> None:
    images = load_images(DataConfig(size=8), mnist_dir, CPU)
    assert images["test"].pixels.shape == (10000, 8, 8)
    assert images["train"].pixels.double().mean() == pytest.approx(33.3, abs=0.3)


@pytest.mark.parametrize("size", [0, -8])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"size={size}: must be at least 1"):
        DataConfig(size=size)
