"""What ``LearnedOptimizer`` shows weights that observe more than the gradient."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.optimizers.observation import Observation


def seen(
    key: str, observes: Sequence[str], theta: Tensor, group: Mapping[str, Any], loss: Any
) -> Observation:
    """What weights observe in a step of a group, which counts its steps for them.

    Args:
        key: of the weights.
        observes: what they name.
        theta: of a function, flat and real.
        loss: None where nobody has told it.

    Raises:
        ConfigError: the loss is observed, and there is none, or it is not one number; or
            functions are, elsewhere.
    """
    if "evaluate" in observes:
        raise ConfigError(f"weights {key} evaluate functions within a step: PyTorch has no way to")
    if loss is None and "loss" in observes:
        raise ConfigError(f"weights {key} observe the loss: call step(loss=loss)")
    number = _one_number(0.0 if loss is None else loss, theta)
    if group["maximize"]:
        number = -number
    return Observation(theta, number, group.get("steps_done", 0), group["horizon"])


def _one_number(loss: Any, theta: Tensor) -> Tensor:
    """(1,), on the device of θ. One of Python has as many digits as arithmetic with θ."""
    if not isinstance(loss, Tensor):
        dtype = torch.float64 if theta.dtype == torch.float64 else torch.float32
        try:
            loss = torch.as_tensor(loss, dtype=dtype)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"the loss of a step is of type {type(loss).__name__}: it must be one number"
            ) from error
    if loss.numel() != 1 or loss.is_complex():
        kind = "complex" if loss.is_complex() else f"a tensor of shape {tuple(loss.shape)}"
        raise ConfigError(f"the loss of a step is {kind}: it must be one number, as loss.mean() is")
    number: Tensor = loss.detach().to(theta.device).reshape(1)
    return number
