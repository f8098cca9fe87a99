"""Pictures of a folder, decoded once and kept as tensors."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from l2lgd.data.decoding import pictures_below
from l2lgd.errors import UserError
from l2lgd.storage.files import write_atomically

log = logging.getLogger(__name__)

NAMES = ("train_pixels", "train_labels", "test_pixels", "test_labels")
DECODER = 3  # counted up when the same pictures become other pixels
FEWEST = 1000  # pictures worth keeping; fewer are decoded in no time


class Cache:
    """A file for each state of a folder: names, sizes and times of all its pictures.

    Args:
        place: folder of the cache.
        name: of the data set, whose images have one size.
        root: the folder of pictures.
    """

    def __init__(self, place: Path, name: str, root: Path) -> None:
        self._path = place / f"{name}-{_fingerprint(name, root)}.safetensors"

    def read(self) -> dict[str, Tensor] | None:
        """The tensors ``NAMES``, or None where they are not kept, or not readable."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not self._path.is_file():
            return None
        try:
            found = load_file(str(self._path))
        except (SafetensorError, OSError, ValueError) as error:
            log.warning("decoding again, %s cannot be read: %s", self._path, error)
            return None
        return found if set(found) == set(NAMES) else None

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors; where that is not possible, say so and go on."""
        from safetensors.torch import save

        if len(tensors["train_labels"]) < FEWEST:
            return
        try:
            write_atomically(self._path, save(dict(tensors)))
        except UserError as error:
            log.warning("the decoded pictures are not kept for next time: %s", error)


def _fingerprint(name: str, root: Path) -> str:
    found = hashlib.sha256(f"{DECODER}\0{name}\0{root.resolve()}".encode())
    for path in pictures_below(root):
        status = path.stat()
        found.update(f"\0{path}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return found.hexdigest()[:16]
