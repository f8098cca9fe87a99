"""Pictures of any kind and size."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from l2lgd.data.decoding import LONGEST, decoded
from l2lgd.data.photographs import find_painting, find_photographs, read_picture, write_picture
from l2lgd.errors import ConfigError, DataUnavailable, UserError

GREEN = (20, 200, 40)


MODES = [
    *((mode, ".png") for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    *((mode, ".jpg") for mode in ("RGB", "L", "CMYK")),
    *((mode, ".tif") for mode in ("RGB", "L", "I;16", "YCbCr")),
]


@pytest.mark.parametrize(("mode", "suffix"), MODES)
def test_every_mode_becomes_rgb(mode: str, suffix: str, tmp_path: Path) -> None:
    if mode == "I;16":
        picture = Image.fromarray(np.full((20, 30), 0x8000, dtype=np.uint16))
    else:
        picture = Image.new("RGB", (30, 20), GREEN).convert(mode)
    picture.save(tmp_path / f"picture{suffix}")
    pixels = read_picture(tmp_path / f"picture{suffix}", 10)
    assert (pixels.shape, pixels.dtype) == ((3, 10, 15), torch.uint8)
    colour = pixels.float().mean((1, 2))
    grey = {"L": 128, "LA": 128, "1": 127, "I;16": 128}
    expected = (grey[mode],) * 3 if mode in grey else GREEN
    assert colour.tolist() == pytest.approx(expected, abs=12)


RANGES = {  # what is white, and half of it grey
    "of 16 bits": (np.uint16, 65535, ".png"),
    "of 16 bits in TIFF": (np.uint16, 65535, ".tif"),
    "of 32 bits": (np.int32, 2**31 - 1, ".tif"),
    "of 16 bits, kept as 32": (np.int32, 65535, ".tif"),
    "of 8 bits, kept as 32": (np.int32, 255, ".tif"),
    "floating, to 1": (np.float32, 1.0, ".tif"),
    "floating, to 255": (np.float32, 255.0, ".tif"),
    "floating, to 1000": (np.float32, 1000.0, ".tif"),
    "floating, to 65535": (np.float32, 65535.0, ".tif"),
    "floating, to 1e30": (np.float32, 1e30, ".tif"),
}


@pytest.mark.parametrize("kind", RANGES)
def test_numbers_of_any_range_are_as_bright_as_they_were_meant(kind: str, tmp_path: Path) -> None:
    dtype, white, suffix = RANGES[kind]
    shades = np.repeat(np.array([0.0, 0.5, 1.0]), 9).reshape(3, 9) * white
    Image.fromarray(shades.astype(dtype)).save(tmp_path / f"grey{suffix}")
    found = read_picture(tmp_path / f"grey{suffix}", 3)[0, :, 4].tolist()
    assert found == pytest.approx([0, 128, 255], abs=1)


@pytest.mark.parametrize("white", [1.0, 255.0])
@pytest.mark.parametrize("over", [0.4 / 255, 0.02, 0.2, np.inf])
def test_what_is_whiter_than_white_makes_nothing_darker(
    white: float, over: float, tmp_path: Path
) -> None:
    shades = np.linspace(0, white, 4096, dtype=np.float32).reshape(64, 64)
    plain = read(shades, tmp_path)
    shades[0, 0] = white * (1 + over)
    found = read(shades, tmp_path)
    assert found[0, 0] == 255
    assert found.ravel()[1:].tolist() == plain.ravel()[1:].tolist()


@pytest.mark.parametrize("resample", [Image.Resampling.LANCZOS, Image.Resampling.BICUBIC])
def test_a_picture_of_floats_that_was_resized_keeps_its_brightness(
    resample: Image.Resampling, tmp_path: Path
) -> None:
    board = np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((8, 8))).astype(np.float32)
    resized = np.asarray(Image.fromarray(board).resize((77, 77), resample))
    assert resized.max() > 1.05
    assert read(resized, tmp_path).mean() == pytest.approx(127.5, abs=3)


def read(numbers: np.ndarray, folder: Path) -> np.ndarray:
    """What a picture of these numbers looks like, in grey."""
    Image.fromarray(numbers).save(folder / "x.tif")
    return np.asarray(decoded(folder / "x.tif"))[..., 0]


def test_numbers_that_are_none_are_black(tmp_path: Path) -> None:
    for white in (1.0, 255.0, 1000.0):
        numbers = np.array([[np.nan, -3.0 * white, -np.inf, np.inf, white]], dtype=np.float32)
        assert read(numbers, tmp_path).tolist() == [[0, 0, 0, 255, 255]]
    nothing = np.array([[np.nan, -1.0]], dtype=np.float32)
    assert read(nothing, tmp_path).tolist() == [[0, 0]]


@pytest.mark.parametrize(("width", "height"), [(2, 20_000), (20_000, 2), (1, 50), (30, 200)])
def test_no_shape_makes_a_picture_of_any_size(width: int, height: int, tmp_path: Path) -> None:
    Image.new("RGB", (width, height), GREEN).save(tmp_path / "strip.png")
    shape = read_picture(tmp_path / "strip.png", 256).shape[1:]
    assert min(shape) == 256
    assert max(shape) == round(256 * min(LONGEST, max(width, height) / min(width, height)))
    assert (shape[0] > shape[1]) == (height > width)


def test_what_is_cut_off_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    strip = np.zeros((100, 4), dtype=np.uint8)
    strip[34:66] = 255  # the middle
    Image.fromarray(strip).save(tmp_path / "strip.png")
    assert read_picture(tmp_path / "strip.png", 4).eq(255).all()
    assert "strip.png: only the middle is taken, as it is 4 × 100 pixels" in caplog.text


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (*GREEN, 0)).save(tmp_path / "glass.png")
    assert read_picture(tmp_path / "glass.png", 8).eq(255).all()


def test_the_orientation_of_the_camera_is_heeded(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 20), GREEN)
    exif = picture.getexif()
    exif[0x0112] = 6  # taken with the camera on its side
    picture.save(tmp_path / "side.jpg", exif=exif)
    assert read_picture(tmp_path / "side.jpg", 20).shape == (3, 40, 20)


@pytest.mark.parametrize("content", [b"", b"not a picture", None])
def test_what_is_no_picture_is_one_line(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "x.jpg"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataUnavailable, match=r"x\.jpg"):
        read_picture(file, 10)


def test_a_picture_comes_back_as_it_was_written(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (3, 7, 9), generator=torch.Generator().manual_seed(0))
    write_picture(tmp_path / "new" / "out.png", pixels.double() + 0.3)
    assert read_picture(tmp_path / "new" / "out.png", 7).equal(pixels.to(torch.uint8))
    write_picture(tmp_path / "out.png", torch.tensor([-50.0, 300.0, 7.0]).view(3, 1, 1))
    assert read_picture(tmp_path / "out.png", 1).flatten().tolist() == [0, 255, 7]


def test_where_a_picture_cannot_be_written_it_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.png"):
        write_picture(tmp_path / "out.txt", torch.zeros(3, 4, 4))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="could not write"):
        write_picture(tmp_path / "file" / "out.png", torch.zeros(3, 4, 4))


def fill(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", (4, 4), (index, 0, 0)).save(folder / f"{index:02}.png")
    (folder / "notes.txt").write_text("no picture")


def test_a_flat_folder_is_split_once_and_for_all(tmp_path: Path) -> None:
    fill(tmp_path / "flat", 60)
    splits = find_photographs(tmp_path / "flat")
    assert {split: len(files) for split, files in splits.items()} == {
        "train": 47,
        "validation": 6,
        "test": 7,
    }
    assert len({file for files in splits.values() for file in files}) == 60
    assert splits == find_photographs(tmp_path / "flat")
    assert all(files == sorted(files) for files in splits.values())
    shutil.copy(tmp_path / "flat" / "00.png", tmp_path / "flat" / "another.png")
    after = find_photographs(tmp_path / "flat")
    assert all(set(files) <= set(after[split]) for split, files in splits.items())


def test_three_photographs_are_one_for_each_split(tmp_path: Path) -> None:
    fill(tmp_path / "flat", 3)
    splits = find_photographs(tmp_path / "flat")
    assert [len(files) for files in splits.values()] == [1, 1, 1]
    assert len({file for files in splits.values() for file in files}) == 3


def test_a_folder_with_some_of_the_splits_only_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, 9)
    fill(tmp_path / "train", 3)
    fill(tmp_path / "test", 3)
    with pytest.raises(DataUnavailable, match="lacks validation/"):
        find_photographs(tmp_path)


def test_litter_is_no_photograph(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, 3)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "a_folder.png").mkdir()
    shutil.copy(tmp_path / "00.png", tmp_path / "._00.png")
    found = [file for files in find_photographs(tmp_path).values() for file in files]
    assert sorted(file.name for file in found) == ["00.png", "01.png", "02.png"]
    assert "pipe.png is left out" in caplog.text


def test_a_broken_link_among_photographs_is_named(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataUnavailable, match=r"lost\.jpg is a broken link"):
        find_photographs(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataUnavailable, match="it is no file"):
        read_picture(tmp_path / "pipe.png", 16)
    with pytest.raises(DataUnavailable, match="there is no"):
        find_photographs(tmp_path / "pipe.png")
    with pytest.raises(DataUnavailable, match="there is no"):
        find_painting(str(tmp_path / "pipe.png"), tmp_path)


def test_folders_of_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("validation", 1), ("test", 2)):
        fill(tmp_path / split, count)
    splits = find_photographs(tmp_path)
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [5, 1, 2]
    assert {file.parent.name for file in splits["test"]} == {"test"}


@pytest.mark.parametrize("count", [None, 0, 2])
def test_too_few_photographs_are_one_line(count: int | None, tmp_path: Path) -> None:
    if count is not None:
        fill(tmp_path / "few", count)
    with pytest.raises(DataUnavailable, match=r"task\.content="):
        find_photographs(tmp_path / "few")


def test_a_painting_is_a_file_or_the_name_of_one(tmp_path: Path) -> None:
    fill(tmp_path / "style", 2)
    assert find_painting(str(tmp_path / "style" / "01.png"), Path()).name == "01.png"
    assert find_painting("00", tmp_path / "style").name == "00.png"
    with pytest.raises(DataUnavailable, match=r"task\.style=FILE.*00, 01"):
        find_painting("mona_lisa", tmp_path / "style")


def test_large_pictures_need_no_warning_and_larger_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # warnings are errors here
    for width in (15, 150, 250):
        Image.new("RGB", (width, 10), GREEN).save(tmp_path / f"{width}.png")
    for width in (15, 150):
        assert read_picture(tmp_path / f"{width}.png", 10).shape[1] == 10
    with pytest.raises(DataUnavailable, match=r"cannot be read as a picture .*2500 pixels"):
        decoded(tmp_path / "250.png")
