"""Examples of any kind as tensors on the device, split so that nothing leaks."""

import logging
from collections.abc import Mapping, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, default_collate

from l2lgd.data.splits import SPLITS
from l2lgd.errors import ConfigError, one_line
from l2lgd.seeding import generator

log = logging.getLogger(__name__)

HELD_OUT = 0.1  # share of the examples for validation, and as many for test
LARGE = 2**30  # bytes

Examples = tuple[Tensor, ...]  # each (N, …): what a module is given, and last what it should say


def load_examples(found: object) -> dict[str, Examples]:
    """The three splits of a data set.

    Args:
        found: a tensor or a tuple of them, each (N, …); a data set of PyTorch whose examples are
            numbers, arrays and tensors; or a mapping of ``train``, ``validation`` and ``test`` to
            one of these. Without such a mapping, a tenth of the examples, drawn at random, is for
            validation, and another for test.

    Raises:
        ConfigError: it is none of these, or has too few examples.
    """
    if isinstance(found, Mapping):
        if set(found) != set(SPLITS):
            names = ", ".join(map(str, found))
            raise ConfigError(f"dataset has {names}: it needs {', '.join(SPLITS)}, or no names")
        parts: dict[str, Examples] = {
            split: _tensors(found[split], f"dataset[{split}]") for split in SPLITS
        }
    else:
        parts = _divided(_tensors(found, "dataset"))
    size = sum(tensor.nbytes for part in parts.values() for tensor in part)
    if size > LARGE:
        log.info("the data set takes %.1f GiB, all of it in memory", size / 2**30)
    return parts


def counts(parts: Mapping[str, Examples]) -> dict[str, int]:
    """Examples of each split."""
    return {split: len(part[0]) for split, part in parts.items()}


def _tensors(found: Any, name: str) -> Examples:
    if isinstance(found, Tensor | np.ndarray):
        found = (found,)
    if isinstance(found, Dataset):
        found = _collated(found, name)
    if isinstance(found, tuple | list):
        found = [torch.from_numpy(p) if isinstance(p, np.ndarray) else p for p in found]
        others = [_kind(part) for part in found if not _is_tensor(part)]
        if others:
            raise ConfigError(f"{name} has a part of {others[0]}: all must be dense tensors (N, …)")
    if not isinstance(found, list) or not found:
        raise ConfigError(
            f"{name} is {_kind(found)}: it must be a tuple of tensors, or a data set of PyTorch"
        )
    lengths = {len(tensor) for tensor in found}
    if len(lengths) > 1:
        raise ConfigError(f"{name} has tensors of {sorted(lengths)} examples: all need as many")
    if not len(found[0]):
        raise ConfigError(f"{name} has no examples")
    return tuple(found)


def _collated(found: Dataset, name: str) -> Examples:
    if isinstance(found, IterableDataset) or not isinstance(found, Sized):
        raise ConfigError(f"{name} is {_kind(found)}, which has no length: give it len() and [i]")
    if not len(found):
        raise ConfigError(f"{name} has no examples")
    try:
        examples = default_collate([found[i] for i in range(len(found))])
    except (TypeError, RuntimeError) as error:
        raise ConfigError(
            f"{name}: {_kind(found)} has examples that cannot be stacked ({one_line(error)}); "
            "give it a transform that makes tensors of one size"
        ) from error
    if isinstance(examples, Mapping):
        raise ConfigError(f"{name}: {_kind(found)} has dicts for examples; give it tuples")
    return (examples,) if isinstance(examples, Tensor) else tuple(examples)


def _divided(tensors: Examples) -> dict[str, Examples]:
    count = len(tensors[0])
    held_out = max(1, int(count * HELD_OUT))
    if count <= 2 * held_out:
        raise ConfigError(f"dataset has {count} examples: three splits need 3 at least")
    order = torch.randperm(count, generator=generator(0, "splits"))
    pieces = order.split([count - 2 * held_out, held_out, held_out])
    return {
        split: tuple(tensor[piece.to(tensor.device)] for tensor in tensors)
        for split, piece in zip(SPLITS, pieces, strict=True)
    }


def _is_tensor(part: object) -> bool:
    return isinstance(part, Tensor) and part.layout == torch.strided and part.dim() > 0


def _kind(found: object) -> str:
    return type(found).__name__
