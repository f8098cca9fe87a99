"""Files of the JAX library Flax: nested mappings of arrays, in the format MessagePack.

Read here, without Flax, as far as it writes that format; nothing in such a file is run.
"""

import math
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l2lgd.errors import CheckpointError

LARGEST = 2**26  # bytes
MOST, DEEPEST = 10_000, 20  # values in all, and within each other
ARRAY, SCALAR = 1, 3  # kinds of extension, each the bytes of (shape, name of a type, numbers)
TYPES = ("float16", "bfloat16", "float32", "float64", "int32", "int64", "uint32", "bool")
# First bytes of values, and how the number behind them is packed: a size, or the value itself.
SIZED = {
    first + index: (kind, code)
    for kind, first, codes in (
        ("bytes", 0xC4, "BHI"),
        ("extra", 0xC7, "BHI"),
        ("text", 0xD9, "BHI"),
        ("list", 0xDC, "HI"),
        ("map", 0xDE, "HI"),
    )
    for index, code in enumerate(codes)
}
NUMBERS = dict(zip(range(0xCA, 0xD4), "fdBHIQbhiq", strict=True))
EXTRA = dict(zip(range(0xD4, 0xD9), (1, 2, 4, 8, 16), strict=True))  # bytes
NAMED = {0xC0: None, 0xC2: False, 0xC3: True}


def load(path: Path) -> dict[str, Tensor]:
    """The arrays of a file by the path to each, as in ``params/linear/w``.

    Raises:
        CheckpointError: missing, unreadable, too large, or none of Flax.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise CheckpointError(f"{path} is larger than the {LARGEST:,} bytes that are read")
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        reader = _Reader(content)
        found = reader.value()
        if not isinstance(found, dict) or not reader.ended:
            raise ValueError("it is not one mapping")
        return dict(_flat(found))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged, or not a file that flax.serialization.to_bytes gave ({error})"
        ) from error


class _Reader:
    """Values one after the other; each raises ValueError where it is none."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at, self._count = content, 0, 0

    @property
    def ended(self) -> bool:
        return self._at == len(self._content)

    def value(self, depth: int = 0) -> Any:
        self._count += 1
        if depth > DEEPEST or self._count > MOST:
            raise ValueError("it has too many values, or too many within each other")
        first = self._number("B")
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first in NAMED:
            return NAMED[first]
        if first in NUMBERS:
            return self._number(NUMBERS[first])
        if first in EXTRA:
            return self._sized("extra", EXTRA[first], depth)
        if first in SIZED:
            kind, size = SIZED[first]
            return self._sized(kind, self._number(size), depth)
        if first < 0x90:
            return self._sized("map", first & 0x0F, depth)
        if first < 0xA0:
            return self._sized("list", first & 0x0F, depth)
        if first < 0xC0:
            return self._sized("text", first & 0x1F, depth)
        raise ValueError(f"there is no value that begins with {first:#x}")

    def _sized(self, kind: str, size: int, depth: int) -> Any:
        if kind == "bytes":
            return self._bytes(size)
        if kind == "text":
            return self._bytes(size).decode()
        if kind == "list":
            return [self.value(depth + 1) for _ in range(size)]
        if kind == "map":
            return dict(self._pair(depth) for _ in range(size))
        code = self._number("b")
        content = self._bytes(size)
        if code not in (ARRAY, SCALAR):
            raise ValueError(f"an extension of kind {code}")
        return _array(_Reader(content).value(depth + 1))

    def _pair(self, depth: int) -> tuple[str, Any]:
        key = self.value(depth + 1)
        if not isinstance(key, str):
            raise ValueError("a name is no text")
        return key, self.value(depth + 1)

    def _number(self, code: str) -> Any:
        (found,) = struct.unpack(f">{code}", self._bytes(struct.calcsize(f">{code}")))
        return found

    def _bytes(self, count: int) -> bytes:
        if count > len(self._content) - self._at:
            raise ValueError("it ends too early")
        self._at += count
        return self._content[self._at - count : self._at]


def _array(packed: Any) -> Tensor:
    try:
        shape, name, content = packed
        sizes = [size for size in shape if type(size) is int and size >= 0]
    except TypeError:
        raise ValueError("an array is none") from None
    if len(sizes) != len(shape) or name not in TYPES or not isinstance(content, bytes):
        raise ValueError("an array has no shape, or numbers of another type")
    dtype = getattr(torch, name)
    if math.prod(sizes) * dtype.itemsize != len(content):
        raise ValueError("an array is not of its shape")
    flat = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0)
    return flat.reshape(sizes)


def _flat(tree: dict[str, Any], place: str = "") -> Any:
    """Pairs of a path and an array; what is none, such as a count of steps, is left out."""
    for name, part in tree.items():
        if isinstance(part, dict):
            yield from _flat(part, f"{place}{name}/")
        elif isinstance(part, Tensor):
            yield f"{place}{name}", part
