"""Pictures in files: which of them count, and what they look like.

One decoder for all: photographs, paintings, and the images of data sets.
"""

import contextlib
import functools
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from l2lgd.errors import DataUnavailable, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
LONGEST = 8  # times the shorter side, of what is kept of a picture
WHITE = (255, 65535, 2**31 - 1)  # of whole numbers whose range a file does not tell
WHITE_OF_FLOATS = (1, 255)
OVERSHOOT = 1.5  # times white is the most that sharp edges have in resized pictures
SIXTEEN_BITS = ("PNG", "PPM")  # formats whose large numbers are of that range


def is_hidden(path: Path) -> bool:
    """Litter of editors and systems, such as ``.ipynb_checkpoints``."""
    return path.name.startswith(".")


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, by name: visible, regular files.

    Raises:
        DataUnavailable: one is a link to what is not there.
    """
    return [path for path in sorted(folder.iterdir()) if _is_picture(path)]


def pictures_below(folder: Path) -> Iterator[Path]:
    """Those of a folder and of all visible folders in it, each of these once.

    Raises:
        DataUnavailable: one is a link to what is not there.
    """
    seen: set[tuple[int, int]] = set()
    tree = []
    for here, folders, files in os.walk(folder, followlinks=True):
        found = Path(here).stat()
        if (found.st_dev, found.st_ino) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders[:] = [name for name in sorted(folders) if not is_hidden(Path(name))]
        tree.append((here, files))
    for here, files in sorted(tree):
        yield from (path for name in sorted(files) if _is_picture(path := Path(here, name)))


def _is_picture(path: Path) -> bool:
    if is_hidden(path) or path.suffix.lower() not in SUFFIXES:
        return False
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        reason = "is a broken link" if path.is_symlink() else f"({error.strerror})"
        raise DataUnavailable(f"{path} {reason}; mend it, or take it away") from error
    if not regular and not path.is_dir():
        _say_left_out(path)
    return regular


@functools.cache  # a folder is looked through more than once
def _say_left_out(path: Path) -> None:
    log.warning("%s is left out: it is no regular file", path)


@contextlib.contextmanager
def _of_any_size() -> Iterator[None]:
    """PIL warns of half as many pixels as it refuses: those are fine, too."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


@_of_any_size()
def decoded(path: Path) -> "Image":
    """A picture as a viewer shows it, in RGB.

    The camera's orientation is heeded, transparent parts are white, the largest number of 16 bits
    is white. Of floating-point numbers, 1 is white where none is larger, else 255, both but for
    what resizing adds at edges; else the largest of them. NaN and negative ones are black.

    Raises:
        DataUnavailable: the file is not a readable picture.
    """
    from PIL import Image, ImageOps

    try:
        if not path.is_file():  # a pipe would have us wait
            raise ValueError("it is no file" if path.exists() else "there is no such file")
        with Image.open(path) as file:
            file.load()
            picture: Image.Image = file
            with contextlib.suppress(Exception):  # damaged notes of the camera's
                picture = ImageOps.exif_transpose(file)
            return _rgb(picture, file.format in SIXTEEN_BITS)
    # PIL raises its own kinds, OSError, ValueError and SyntaxError for files that are no pictures.
    except Exception as error:
        raise DataUnavailable(f"{path} cannot be read as a picture ({one_line(error)})") from error


def _rgb(picture: "Image", sixteen_bits: bool) -> "Image":
    from PIL import Image

    if picture.mode == "F" or picture.mode.startswith("I"):  # numbers beyond 8 bits
        numbers = np.nan_to_num(np.asarray(picture).astype(np.float64), posinf=np.inf)
        largest = float(numbers.max(initial=0, where=np.isfinite(numbers)))
        if picture.mode == "F":
            white = next((w for w in WHITE_OF_FLOATS if largest <= OVERSHOOT * w), largest)
        elif picture.mode == "I" and not sixteen_bits:
            white = next(w for w in WHITE if largest <= w)
        else:
            white = 65535
        grey = 255 * (numbers / white).clip(0, 1)
        picture = Image.fromarray(grey.round().astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


@_of_any_size()
def bounded(picture: "Image", path: Path) -> "Image":
    """Its middle, where one side is more than ``LONGEST`` times the other; says so.

    Whatever is enlarged to a given shorter side would be of any size otherwise.
    """
    most = LONGEST * min(picture.size)
    if max(picture.size) <= most:
        return picture
    log.warning("%s: only the middle is taken, as it is %d × %d pixels", path, *picture.size)
    width, height = (min(side, most) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
