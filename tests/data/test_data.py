"""Data sets: from files, folders and packages; and what is said when they cannot be had."""

import hashlib
import itertools
import logging
import os
import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from helpers import NO_NETWORK
from PIL import Image

from l2lgd.data import cache
from l2lgd.data.images import load_images
from l2lgd.data.sources import DataConfig
from l2lgd.errors import ConfigError, DataUnavailable

CPU = torch.device("cpu")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)


def write_pictures(folder: Path, count: int, shade: int = 0) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        pixels = np.full((28, 28), shade, dtype=np.uint8)
        pixels[index] = 255
        Image.fromarray(pixels).save(folder / f"{index}.png")


def test_a_folder_of_pictures_comes_back_as_it_was_written(
    picture_folder: Path, tmp_path: Path
) -> None:
    picture_folder = Path(shutil.copytree(picture_folder, tmp_path / "own"))
    images = load_images(DataConfig(source="folder", root=str(picture_folder)), "", CPU)
    written = {
        part: Counter(
            (np.asarray(Image.open(file)).tobytes(), "abc".index(file.parent.name))
            for file in (picture_folder / part).glob("*/*.png")
        )
        for part in ("train", "test")
    }
    read = {
        split: Counter(
            (pixels.numpy().tobytes(), int(label))
            for pixels, label in zip(part.pixels, part.labels, strict=True)
        )
        for split, part in images.parts.items()
    }
    assert read["test"] == written["test"]
    assert read["train"] + read["validation"] == written["train"]
    assert images["train"].num_classes == 3
    assert images["train"].pixels.dtype == torch.uint8
    digest = images.description["digest"]
    assert images.description == {
        "name": "mnist",
        "source": "folder",
        "num_examples": {"train": 54, "validation": 6, "test": 12},
        "digest": digest,
    }
    picture = next((picture_folder / "train").glob("*/*.png"))
    Image.new("L", (28, 28), 255).save(picture)
    other = load_images(DataConfig(source="folder", root=str(picture_folder)), "", CPU)
    assert other.description["digest"] != digest, "learning rates tuned on other images are reused"


def test_a_folder_is_shuffled_so_that_validation_is_not_the_last_class(
    picture_folder: Path,
) -> None:
    images = load_images(DataConfig(source="folder", root=str(picture_folder)), "", CPU)
    assert len(set(images["validation"].labels.tolist())) > 1


def test_a_folder_may_lie_in_the_data_dir(picture_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mnist").symlink_to(picture_folder)
    images = load_images(DataConfig(source="auto"), str(tmp_path), CPU)
    assert images.description["source"] == "folder"


def test_colour_pictures_of_another_size_become_grey_28_by_28(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in range(2):
            (tmp_path / part / str(label)).mkdir(parents=True)
            for index in range(5 * label, 5 * label + 5):
                picture = Image.new("RGB", (40, 31), (index, index, index))
                picture.save(tmp_path / part / str(label) / f"{index}.png")
    images = load_images(DataConfig(source="folder", root=str(tmp_path)), "", CPU)
    assert images["test"].pixels.shape == (10, 28, 28)
    assert sorted(images["test"].pixels[:, 0, 0].tolist()) == list(range(10))


def test_a_class_means_the_same_in_training_and_test(tmp_path: Path) -> None:
    for label, shade in (("a", 10), ("b", 20), ("c", 30)):
        write_pictures(tmp_path / "train" / label, 10, shade)
    write_pictures(tmp_path / "test" / "a", 3, 10)
    write_pictures(tmp_path / "test" / "c", 3, 30)  # and none of class b
    try:
        images = load_images(DataConfig(source="folder", root=str(tmp_path)), "", CPU)
    except DataUnavailable:
        return  # refusing such a folder is right too
    for split in ("train", "validation", "test"):
        shades = images[split].pixels[:, -1, -1]
        assert (10 + 10 * images[split].labels).equal(shades.long()), split


def test_a_folder_too_small_to_split_is_refused(tmp_path: Path) -> None:
    for part, label in itertools.product(("train", "test"), "01"):
        write_pictures(tmp_path / part / label, 2)
    try:
        images = load_images(DataConfig(source="folder", root=str(tmp_path)), "", CPU)
    except DataUnavailable:
        return
    assert all(len(part.labels) for part in images.parts.values()), "a split is empty"


@pytest.mark.parametrize("content", [b"", b"this is no picture"])
def test_a_damaged_picture_is_unavailable_data(tmp_path: Path, content: bytes) -> None:
    two_classes(tmp_path)
    (tmp_path / "train" / "0" / "3.png").write_bytes(content)
    with pytest.raises(DataUnavailable, match="mnist is not available"):
        load_images(DataConfig(source="folder", root=str(tmp_path)), "", CPU)


def two_classes(root: Path) -> None:
    for part, label in itertools.product(("train", "test"), "01"):
        write_pictures(root / part / label, 10, shade=100)


def test_litter_in_a_folder_is_neither_a_class_nor_a_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    two_classes(tmp_path / "clean")
    two_classes(tmp_path / "used")
    folder = tmp_path / "used" / "train"
    write_pictures(folder / ".ipynb_checkpoints", 2)
    write_pictures(folder / "0" / ".thumbnails", 2)
    write_pictures(folder / "0" / "a_folder.png", 0)
    (folder / "0" / "._3.png").write_bytes(b"of another system")
    (folder / "0" / "notes.txt").write_text("no picture")
    (folder / "readme.md").write_text("no class")
    (folder / "1" / "upwards").symlink_to(folder / "1")
    os.mkfifo(folder / "0" / "pipe.png")
    clean, used = (
        load_images(DataConfig(source="folder", root=str(tmp_path / name)), "", CPU)
        for name in ("clean", "used")
    )
    assert used.description == clean.description
    assert "pipe.png is left out" in caplog.text


@pytest.mark.parametrize("link", ["train/2", "train/0/lost.png", "test/1/lost.png"])
def test_a_broken_link_is_named(tmp_path: Path, link: str) -> None:
    two_classes(tmp_path)
    (tmp_path / link).symlink_to(tmp_path / "nothing")
    with pytest.raises(DataUnavailable, match=rf"{link} is a broken link") as caught:
        load_images(DataConfig(source="folder", root=str(tmp_path)), "", CPU)
    assert "\n" not in str(caught.value)


WRONG_CLASSES = {
    "one class only, 0": ["train/1", "test/1"],
    "classes that train lacks: 1": ["train/1"],
    "no folder of a class in": ["test/0", "test/1"],
    "test": ["test"],
}


@pytest.mark.parametrize("said", WRONG_CLASSES)
def test_classes_that_make_no_sense_are_refused(tmp_path: Path, said: str) -> None:
    two_classes(tmp_path)
    for folder in WRONG_CLASSES[said]:
        shutil.rmtree(tmp_path / folder)
    with pytest.raises(DataUnavailable, match=said):
        load_images(DataConfig(source="folder", root=str(tmp_path)), "", CPU)


@pytest.mark.parametrize(("lacking", "said"), [((), ""), (("1",), "2 of the 3"), (("0", "2"), "1")])
@pytest.mark.parametrize("fewest", [1, 1000])
def test_a_test_that_lacks_classes_of_train_is_told_of(
    lacking: tuple[str, ...],
    said: str,
    fewest: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache, "FEWEST", fewest)  # kept decoded, or not
    two_classes(tmp_path)
    for part in ("train", "test"):
        write_pictures(tmp_path / part / "2", 10, shade=100)
    for name in lacking:
        shutil.rmtree(tmp_path / "test" / name)
    for _ in range(2):
        caplog.clear()
        load_images(DataConfig(source="folder", root=str(tmp_path)), str(tmp_path / "data"), CPU)
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == bool(lacking)
        assert all(f"{tmp_path / 'test'} has pictures of {said}" in line for line in told)


def test_a_class_without_a_picture_is_refused(tmp_path: Path) -> None:
    two_classes(tmp_path)
    write_pictures(tmp_path / "train" / "2", 0)
    with pytest.raises(DataUnavailable, match=r"there is no picture in .*2"):
        load_images(DataConfig(source="folder", root=str(tmp_path)), "", CPU)


def test_classes_look_as_a_viewer_shows_them(tmp_path: Path) -> None:
    """The same picture, 16-bit, floating, transparent and turned by the camera."""
    half = np.zeros((28, 28))
    half[:14] = 0.5  # grey above, black below
    kinds = {
        "a.png": Image.fromarray((half * 255).astype(np.uint8)),
        "b.png": Image.fromarray((half * 65535).astype(np.uint16)),
        "c.tif": Image.fromarray(half.astype(np.float32)),
        "d.png": Image.merge("LA", [Image.new("L", (28, 28))] * 2),
        "e.png": Image.fromarray(np.rot90((half * 255).astype(np.uint8))),
    }
    kinds["d.png"].putalpha(Image.fromarray((255 - half * 255).astype(np.uint8)))
    turned = Image.Exif()
    turned[0x0112] = 6
    for part, label in itertools.product(("train", "test"), "01"):
        folder = tmp_path / part / label
        folder.mkdir(parents=True)
        for name, picture in kinds.items():
            picture.save(folder / name, **({"exif": turned} if name == "e.png" else {}))
    images = load_images(DataConfig(source="folder", root=str(tmp_path)), "", CPU)
    expected = torch.from_numpy(half * 255).expand(10, 28, 28)
    assert (images["test"].pixels.double() - expected).abs().max() <= 1


def test_the_embedded_digits_are_ten_classes_and_say_that_they_are_a_subset() -> None:
    images = load_images(DataConfig(source="embedded"), "", CPU)
    sizes = {"train": 1667, "validation": 1667, "test": 1666}  # equally hard to learn by heart
    assert images.description["num_examples"] == sizes
    assert images.description["source"] == "embedded"
    assert "subset" in str(images.description["note"])
    for split, size in sizes.items():
        part = images[split]
        assert part.pixels.shape == (size, 28, 28)
        counts = torch.bincount(part.labels, minlength=10)
        assert len(counts) == 10
        assert counts.min() >= 166, "a split has fewer images of a class to draw from"
        assert part.pixels.float().mean() == pytest.approx(33, abs=1)
        first = torch.bincount(part.labels[:500], minlength=10)
        assert first.min() > 20, "the digits come sorted by class and must be shuffled"


def test_the_same_data_is_read_in_the_same_order_every_time(picture_folder: Path) -> None:
    config = DataConfig(source="folder", root=str(picture_folder))
    first, second = (load_images(config, "", CPU) for _ in range(2))
    for split in ("train", "validation", "test"):
        assert first[split].pixels.equal(second[split].pixels)


def test_mnist_is_read_from_the_original_files(mnist_dir: str) -> None:
    images = load_images(DataConfig(source="auto"), mnist_dir, CPU)
    assert images.description["source"] == "torchvision"
    # How often each digit occurs in the original; its order differs between copies.
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    both = torch.cat([images[split].labels for split in ("train", "validation")])
    assert torch.bincount(both).tolist() == counts
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert torch.bincount(images["test"].labels).tolist() == counts


def test_a_missing_folder_names_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable) as caught:
        load_images(DataConfig(source="folder"), str(tmp_path), CPU)
    message = str(caught.value)
    for part in (
        "mnist",
        str(tmp_path / "mnist"),
        "data_dir=",
        "L2LGD_DATA",
        "task.data.source=folder",
        "task.data.root=",
        "task.data.source=embedded",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_a_download_without_network_names_the_ways_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataUnavailable) as caught:
        load_images(DataConfig(name, "torchvision"), str(tmp_path), CPU)
    message = str(caught.value)
    for part in (name, str(tmp_path), "data_dir=", "task.data.source=folder"):
        assert part in message
    assert ("embedded" in message) == (name == "mnist")
    assert "\n" not in message


@pytest.mark.usefixtures("offline")
def test_auto_falls_back_on_the_embedded_digits_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        images = load_images(DataConfig(), str(tmp_path), CPU)
    assert images.description["source"] == "embedded"
    (said,) = [record.getMessage() for record in caplog.records]
    assert "5,000 embedded digits" in said
    assert said.endswith(f"For the full set put its files into {tmp_path}/MNIST/raw.")
    assert len(said) < 120 + len(str(tmp_path))


@pytest.mark.usefixtures("offline")
def test_auto_never_replaces_another_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="fashion_mnist"):
        load_images(DataConfig("fashion_mnist"), str(tmp_path), CPU)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("source", ["auto", "torchvision"])
@pytest.mark.parametrize(
    "damaged", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"]
)
def test_a_truncated_file_is_unavailable_data(
    mnist_dir: str, tmp_path: Path, damaged: str, source: str
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (Path(mnist_dir) / "MNIST" / "raw").glob("*-ubyte"):
        if file.name == damaged:
            (raw / file.name).write_bytes(file.read_bytes()[:1000])
        else:
            (raw / file.name).symlink_to(file)
    with pytest.raises(DataUnavailable, match="mnist is not available"):
        load_images(DataConfig(source=source), str(tmp_path), CPU)


@pytest.mark.usefixtures("offline")
def test_a_half_finished_download_counts_as_no_data(
    mnist_dir: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    name = "train-images-idx3-ubyte"
    (raw / name).symlink_to(Path(mnist_dir) / "MNIST" / "raw" / name)
    with pytest.raises(DataUnavailable, match="mnist is not available"):
        load_images(DataConfig(source="torchvision"), str(tmp_path), CPU)
    images = load_images(DataConfig(source="auto"), str(tmp_path), CPU)
    assert images.description["source"] == "embedded"
    assert "MNIST cannot be had" in caplog.text


@pytest.mark.parametrize("options", [{"name": "mnits"}, {"source": "internet"}])
def test_an_unknown_data_set_or_source_is_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options.values()))):
        DataConfig(**options)


def test_there_is_no_embedded_copy_of_another_data_set() -> None:
    with pytest.raises(ConfigError, match="fashion_mnist"):
        load_images(DataConfig("fashion_mnist", "embedded"), "", CPU)


def colour_folder(root: Path, count: int) -> None:
    """``count`` training and test pictures of each of four classes; their red says which."""
    for part in ("train", "test"):
        for label in range(4):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                picture = Image.new("RGB", (32, 32), (60 * label, index % 256, index // 256))
                picture.save(folder / f"{index}.png")


def test_colour_images_have_three_channels_last(tmp_path: Path) -> None:
    colour_folder(tmp_path, 10)
    images = load_images(DataConfig("cifar10", "folder", str(tmp_path)), "", CPU)
    assert images["test"].pixels.shape == (40, 32, 32, 3)
    for part in images.parts.values():
        assert part.pixels[:, 0, 0, 0].equal((60 * part.labels).to(torch.uint8))


@pytest.mark.parametrize("labels", [[0, 1], [3, 1], [2, 0, 3]])
def test_a_subset_of_labels_is_renumbered_in_its_order(tmp_path: Path, labels: list[int]) -> None:
    colour_folder(tmp_path, 20)
    whole = load_images(DataConfig("cifar10", "folder", str(tmp_path)), "", CPU)
    images = whole.only(labels)
    for split, part in images.parts.items():
        assert part.num_classes == len(labels)
        old = torch.tensor(labels)[part.labels]
        assert part.pixels[:, 0, 0, 0].equal((60 * old).to(torch.uint8))
        kept = sum(int((whole[split].labels == label).sum()) for label in labels)
        assert len(part.labels) == kept
        assert images.description["num_examples"][split] == kept
    assert images.description["labels"] == labels
    assert "labels" not in whole.description


@pytest.mark.parametrize("labels", [[0], [0, 0], [0, 4], [-1, 0], []])
def test_labels_that_make_no_sense_are_refused(tmp_path: Path, labels: list[int]) -> None:
    colour_folder(tmp_path, 5)
    images = load_images(DataConfig("cifar10", "folder", str(tmp_path)), "", CPU)
    with pytest.raises(ConfigError, match="labels="):
        images.only(labels)


def test_labels_without_a_validation_image_are_unavailable(tmp_path: Path) -> None:
    colour_folder(tmp_path, 2)  # 1 of 8 is for validation
    images = load_images(DataConfig("cifar10", "folder", str(tmp_path)), "", CPU)
    absent = sorted(set(range(4)) - set(images["validation"].labels.tolist()))[:2]
    with pytest.raises(DataUnavailable, match="validation"):
        images.only(absent)


def test_pictures_are_decoded_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root, data_dir = tmp_path / "pictures", tmp_path / "data"
    colour_folder(root, 250)
    config = DataConfig("cifar10", "folder", str(root))
    first = load_images(config, str(data_dir), CPU)
    (kept,) = (data_dir / "decoded").iterdir()
    written = kept.stat().st_mtime_ns
    second = load_images(config, str(data_dir), CPU)
    assert kept.stat().st_mtime_ns == written
    for split, part in first.parts.items():
        assert part.pixels.equal(second[split].pixels)
        assert part.labels.equal(second[split].labels)
    kept.write_bytes(b"not a tensor")
    with caplog.at_level(logging.WARNING):
        third = load_images(config, str(data_dir), CPU)
    assert "decoding again" in caplog.text
    assert third.description == first.description
    Image.new("RGB", (32, 32), (1, 2, 3)).save(next((root / "train").glob("*/*.png")))
    assert load_images(config, str(data_dir), CPU).description != first.description


def test_the_original_files_of_cifar10_are_read(tmp_path: Path, offline: None) -> None:
    """The format, not the images: torchvision compares checksums, so its own are replaced."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    draw, lists = np.random.default_rng(0), {}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        planes = draw.integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
        content = pickle.dumps({"data": planes.reshape(8, -1), "labels": [*range(8)]})
        lists[name] = (planes, hashlib.md5(content).hexdigest())
        (folder / name).write_bytes(content)
    meta = pickle.dumps({"label_names": [str(i) for i in range(10)]})
    (folder / "batches.meta").write_bytes(meta)
    reader = torchvision.datasets.CIFAR10
    changes = {
        "train_list": [[f"data_batch_{i}", lists[f"data_batch_{i}"][1]] for i in range(1, 6)],
        "test_list": [["test_batch", lists["test_batch"][1]]],
        "meta": {**reader.meta, "md5": hashlib.md5(meta).hexdigest()},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in changes.items():
            patch.setattr(reader, name, value)
        images = load_images(DataConfig("cifar10"), str(tmp_path), CPU)
    assert images.description["source"] == "torchvision"
    expected = torch.from_numpy(lists["test_batch"][0]).permute(0, 2, 3, 1)
    assert images["test"].pixels.equal(expected)
    assert images["test"].labels.tolist() == list(range(8))
    assert images.description["num_examples"] == {"train": 32, "validation": 8, "test": 8}
