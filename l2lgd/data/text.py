"""Text as sequences of characters, split into separate stretches."""

import hashlib
import platform
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from l2lgd.data.examples import HELD_OUT, Examples, counts
from l2lgd.errors import ConfigError, DataUnavailable
from l2lgd.storage.paths import as_typed

WAY_OUT = "give task.file=FILE, a text of your own"


@dataclass(frozen=True)
class Sequences:
    """Sequences of characters as numbers, and what they are.

    ``parts``: of each split inputs (N, length), and as targets the characters after each. Number 0
    is every character that is not in ``alphabet``, k + 1 is ``alphabet[k]``.
    """

    parts: dict[str, Examples]
    alphabet: str
    description: dict[str, object]


def load_sequences(file: str | None, characters: int, length: int, alphabet_size: int) -> Sequences:
    """The first nine tenths less one of a text for training, then a tenth each for the others.

    Args:
        file: the text, in UTF-8; None for the source of Python's standard library.
        characters: of the text in use, from its beginning; a file may have fewer.
        length: of a sequence.
        alphabet_size: numbers that characters have; one is for all that are rare.

    Raises:
        DataUnavailable: there is no such text.
        ConfigError: it is too short.
    """
    text, name, source = _read(file, characters)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    held_out = int(len(codes) * HELD_OUT)
    if held_out < length + 1:
        least = int((length + 1) / HELD_OUT) + 1
        raise ConfigError(
            f"{'file' if file else 'characters'}={file or characters}: {len(codes)} characters are "
            f"too few for sequences of {length} in three splits; it needs {least}"
        )
    edges = [len(codes) - 2 * held_out, len(codes) - held_out]
    train, validation, test = np.split(codes, edges)
    known, often = np.unique(train, return_counts=True)
    kept = np.sort(known[np.argsort(-often, kind="stable")[: alphabet_size - 1]])
    stretches = {"train": train, "validation": validation, "test": test}
    numbers = {split: _numbered(own, kept) for split, own in stretches.items()}
    parts: dict[str, Examples] = {split: _cut(own, length) for split, own in numbers.items()}
    description: dict[str, object] = {
        "name": name,
        "source": source,
        "num_examples": counts(parts),
        "digest": hashlib.sha256(codes.tobytes()).hexdigest()[:12],
    }
    if not file:
        description["note"] = f"the source of Python {platform.python_version()}'s library"
    return Sequences(parts, "".join(map(chr, kept)), description)


def _read(file: str | None, characters: int) -> tuple[str, str, str]:
    """Text, its name, and where it is from."""
    if file is None:
        return _standard_library(characters), "python", "standard library"
    try:
        text = as_typed(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataUnavailable(f"task.file={file} is no text in UTF-8") from error
    except OSError as error:
        raise DataUnavailable(f"task.file={file} cannot be read: {error.strerror}") from error
    return text[:characters], Path(file).name, "file"


def _standard_library(characters: int) -> str:
    """Its modules in alphabetical order, without what is not ASCII."""
    folder, found, count = Path(sysconfig.get_path("stdlib")), [], 0
    try:
        for file in sorted(folder.glob("*.py")):
            text = file.read_bytes().replace(b"\r\n", b"\n").decode("ascii", "ignore")
            found.append(text)
            count += len(text)
            if count >= characters:
                return "".join(found)[:characters]
    except OSError as error:
        raise DataUnavailable(
            f"the source of Python's standard library cannot be read ({error}); {WAY_OUT}"
        ) from error
    raise DataUnavailable(
        f"the source of Python's standard library has {count:,} characters in {folder}, and "
        f"task.characters={characters}; take fewer, or {WAY_OUT}"
    )


def _numbered(codes: np.ndarray, kept: np.ndarray) -> np.ndarray:
    place = np.searchsorted(kept, codes).clip(max=len(kept) - 1)
    return np.where(kept[place] == codes, place + 1, 0)


def _cut(numbers: np.ndarray, length: int) -> tuple[Tensor, Tensor]:
    """Inputs (N, length), one sequence after the other, and the characters after each."""
    count = (len(numbers) - 1) // length
    whole = torch.from_numpy(numbers[: count * length + 1])
    return whole[:-1].view(count, length), whole[1:].view(count, length)
