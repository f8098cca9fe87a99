"""The options of a parameter group, as plain types that a checkpoint can hold."""

import math
import numbers
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import l2lgd
from l2lgd.errors import ConfigError

OPTIONS = (
    "lr",
    "weights",
    "weight_decay",
    "maximize",
    "skip_zero_gradients",
    "state_dtype",
    "block_size",
    "horizon",
)
# What schedulers and other libraries keep in groups for themselves.
OF_OTHERS = {"initial_lr", "max_lr", "min_lr", "swa_lr", "lr_scale", "name", "group_name"}
OWN = {"params", "param_names", "weights_digest", "steps_done"}


def check(group: dict[str, Any]) -> None:
    """Make the options of a group plain.

    Raises:
        ConfigError: its weights are no name, path or mapping.
        ValueError: another option is of no use.
    """
    group["lr"] = _rate(group["lr"])
    size, dtype, decay = group["block_size"], group["state_dtype"], group["weight_decay"]
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"Invalid block_size: {size!r}")
    group["state_dtype"] = _name_of_type(dtype)
    if not _is_number(decay):
        raise ValueError(f"Invalid weight_decay value: {decay!r}")
    group["weight_decay"] = float(decay)
    for name in ("maximize", "skip_zero_gradients"):
        if not isinstance(group[name], bool):
            raise ValueError(f"Invalid {name}: {group[name]!r}")
    horizon = group["horizon"]
    if horizon is not None and (type(horizon) is not int or horizon < 1):
        raise ValueError(f"Invalid horizon: {horizon!r}")
    group["weights"] = _weights(group["weights"])


def type_of(group: Mapping[str, Any]) -> torch.dtype | None:
    """The type that the state of a group is kept in."""
    name = group["state_dtype"]
    return None if name is None else getattr(torch, name)


def warn(message: str) -> None:
    """Warn whoever calls from outside of this package and of PyTorch."""
    inside = tuple(str(Path(module.__file__ or "").parent) for module in (l2lgd, torch))
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def warn_of_unknown(group: Mapping[str, Any]) -> None:
    """Say which options of a group, as it is given, are nobody's here."""
    unknown = [str(key) for key in group if key not in {*OPTIONS, *OWN, *OF_OTHERS}]
    if unknown:
        warn(
            f"LearnedOptimizer ignores {', '.join(unknown)} of a parameter group; it knows "
            f"{', '.join(OPTIONS)}"
        )


def _name_of_type(dtype: Any) -> str | None:
    """As a text, which every kind of checkpoint can hold."""
    if dtype is None:
        return None
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"Invalid state_dtype: {dtype!r}")
    return str(found).removeprefix("torch.")


def _rate(lr: Any) -> float | Tensor:
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise ValueError(f"Invalid learning rate: a tensor of {lr.numel()} numbers; give one")
        if not 0 <= float(lr) < math.inf:
            raise ValueError(f"Invalid learning rate: {float(lr)}")
        return lr
    if not _is_number(lr):
        raise ValueError(f"Invalid learning rate: {lr!r}")
    return lr if isinstance(lr, (int, float)) else float(lr)


def _is_number(value: Any) -> bool:
    """Is it finite, and not negative?"""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and 0 <= float(value) < math.inf


def _weights(weights: Any) -> str | dict[str, str]:
    if isinstance(weights, (str, os.PathLike)):
        return str(os.fspath(weights))
    if not isinstance(weights, Mapping):
        raise ConfigError(
            f"weights={weights!r}: give a name, the path of a file, or a mapping of patterns"
        )
    if not weights:
        raise ConfigError("weights={}: give a pattern at least, such as {'*': NAME}")
    plain = {}
    for pattern, label in weights.items():
        if not isinstance(pattern, str) or not isinstance(label, (str, os.PathLike)):
            raise ConfigError(
                f"weights: {pattern!r}: {label!r} must be a pattern and a name or path"
            )
        plain[str(pattern)] = str(os.fspath(label))
    return plain
