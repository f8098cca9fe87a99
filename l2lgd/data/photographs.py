"""Photographs and paintings of any size, in a folder or alone, as tensors."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from l2lgd.data.decoding import bounded, decoded, pictures_in
from l2lgd.data.splits import SPLITS
from l2lgd.errors import DataUnavailable
from l2lgd.storage.paths import as_typed

HELD_OUT = 0.1  # share of the pictures that is for validation, and for the test


def find_photographs(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each split, in the order of their names.

    They are those of the folders ``train``, ``validation`` and ``test`` where there are such, else
    of ``folder`` itself, split by a hash of their names, so that another picture moves none of the
    others. A single picture is in all of them.

    Raises:
        DataUnavailable: there is no such folder, or a split would be empty.
    """
    if folder.is_file():
        return {split: [folder] for split in SPLITS}
    if not folder.is_dir():
        raise DataUnavailable(
            f"there is no {folder}; give task.content=FOLDER with three or more pictures, or one"
        )
    absent = [split for split in SPLITS if not (folder / split).is_dir()]
    if not absent:
        splits: dict[str, list[Path]] = {split: pictures_in(folder / split) for split in SPLITS}
    elif len(absent) < len(SPLITS):
        raise DataUnavailable(
            f"{folder} lacks {absent[0]}/; give task.content=FOLDER with train/, validation/ and "
            "test/, or without any of them"
        )
    else:
        splits = _split(pictures_in(folder))
    empty = [split for split in SPLITS if not splits[split]]
    if empty:
        raise DataUnavailable(
            f"no photographs to {'meta-train on' if empty[0] == 'train' else empty[0]} in "
            f"{folder}; give task.content=FOLDER with three or more pictures, or with "
            "train/, validation/ and test/"
        )
    return splits


def _split(found: list[Path]) -> dict[str, list[Path]]:
    """Each by its own name; where there are so few that a split would be empty, by their order."""
    place = {
        path: int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:8], "big") / 2**64
        for path in found
    }
    splits: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for path in found:
        if place[path] < HELD_OUT:
            splits["validation"].append(path)
        elif place[path] < 2 * HELD_OUT:
            splits["test"].append(path)
        else:
            splits["train"].append(path)
    if all(splits.values()):
        return splits
    order = sorted(found, key=lambda path: place[path])
    return {"train": sorted(order[2:]), "validation": order[:1], "test": order[1:2]}


def find_painting(name: str, folder: Path) -> Path:
    """The file ``name``, or the picture in ``folder`` that is called so.

    Raises:
        DataUnavailable: there is neither.
    """
    path = as_typed(name)
    if path.is_file():
        return path
    there_are = pictures_in(folder) if folder.is_dir() else []
    known = {picture.stem: picture for picture in there_are}
    if name in known:
        return known[name]
    there = f"; {folder} has {', '.join(known)}" if known else ""
    raise DataUnavailable(f"there is no picture {name}; give task.style=FILE{there}")


def read_picture(path: Path, shorter_side: int) -> Tensor:
    """Pixels (3, height, width), uint8, the shorter side resized to ``shorter_side``.

    The longer one is at most ``LONGEST`` times as long: of others only the middle is taken.

    Raises:
        DataUnavailable: the file is not a readable picture.
    """
    from PIL import Image

    picture = bounded(decoded(path), path)
    scale = shorter_side / min(picture.size)
    width, height = (max(shorter_side, round(scale * side)) for side in picture.size)
    resized = picture.resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def write_picture(path: Path, pixels: Tensor) -> None:
    """Save pixels (3, height, width) in [0, 255], clipped, in the format of the file's name.

    Raises:
        UserError: the file could not be written.
    """
    import io

    from PIL import Image

    from l2lgd.errors import ConfigError
    from l2lgd.storage.files import write_atomically

    image = Image.fromarray(to_bytes(pixels).permute(1, 2, 0).cpu().numpy())
    content = io.BytesIO()
    formats: Mapping[str, str] = Image.registered_extensions()
    if path.suffix.lower() not in formats:
        raise ConfigError(f"{path}: pictures are written as .png or .jpg")
    image.save(content, format=formats[path.suffix.lower()], **_QUALITY)
    write_atomically(path, content.getvalue())


_QUALITY = {"quality": 95}


def to_bytes(pixels: Tensor) -> Tensor:
    """Pixels in [0, 255], rounded and clipped, as uint8."""
    return pixels.detach().round().clamp(0, 255).to(torch.uint8)
