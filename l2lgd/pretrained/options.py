"""The options of a parameter group, as plain types that a checkpoint can hold."""

import math
import numbers
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from l2lgd.errors import ConfigError

# What schedulers and other libraries keep in groups for themselves.
OF_OTHERS = {"initial_lr", "max_lr", "min_lr", "swa_lr", "lr_scale", "name", "group_name"}
OWN = {"params", "param_names", "weights_digest"}


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
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"Invalid state_dtype: {dtype!r}")
    if isinstance(decay, bool) or not isinstance(decay, numbers.Real) or not 0 <= decay < math.inf:
        raise ValueError(f"Invalid weight_decay value: {decay!r}")
    group["weight_decay"] = float(decay)
    for name in ("maximize", "skip_zero_gradients"):
        if not isinstance(group[name], bool):
            raise ValueError(f"Invalid {name}: {group[name]!r}")
    group["weights"] = _weights(group["weights"])


def warn_of_unknown(group: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Say which options of a group, as it is given, are nobody's here."""
    unknown = [str(key) for key in group if key not in {*known, *OWN, *OF_OTHERS}]
    if unknown:
        warnings.warn(
            f"LearnedOptimizer ignores {', '.join(unknown)} of a parameter group; it knows "
            f"{', '.join(known)}",
            stacklevel=4,
        )


def _rate(lr: Any) -> float | Tensor:
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise ValueError(f"Invalid learning rate: a tensor of {lr.numel()} numbers; give one")
        if not 0 <= float(lr) < math.inf:
            raise ValueError(f"Invalid learning rate: {float(lr)}")
        return lr
    if isinstance(lr, bool) or not isinstance(lr, numbers.Real) or not 0 <= lr < math.inf:
        raise ValueError(f"Invalid learning rate: {lr!r}")
    return lr if isinstance(lr, (int, float)) else float(lr)


def _weights(weights: Any) -> str | dict[str, str]:
    if isinstance(weights, (str, os.PathLike)):
        return str(os.fspath(weights))
    if not isinstance(weights, Mapping):
        raise ConfigError(
            f"weights={weights!r}: give a name, the path of a file, or a mapping of patterns to those"
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
