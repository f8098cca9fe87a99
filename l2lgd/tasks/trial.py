"""What becomes of a module as a task: tried before anything is begun."""

import logging

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from l2lgd.errors import ConfigError
from l2lgd.tasks.base import Optimizee
from l2lgd.tasks.functional import OF_MODULE, Batch, FunctionalModule, explained

log = logging.getLogger(__name__)

BYTES_AT_ONCE = 2**30  # that functions evaluated together may keep for their gradients
AGREE = {torch.float64: 1e-9}  # of stacked functions with the same ones apart; else:
ROUNDING = 1e-3


def try_out(network: FunctionalModule, functions: Optimizee, batch: Batch) -> int | None:
    """Evaluate two functions; have them run one after the other where they cannot be stacked.

    Args:
        network: of these functions.
        batch: their minibatch.

    Returns:
        How many functions to evaluate at once; None for all.

    Raises:
        ConfigError: the module does not do as a task; in one line, why.
    """
    network.stacked = False
    kind = type(network.module).__name__
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    theta = functions.initial_parameters
    try:
        with saved_tensors_hooks(count, lambda tensor: tensor):
            loss = functions.loss(theta.clone().requires_grad_(), 0)
    except ConfigError:
        raise
    except Exception as error:  # it is somebody's own code
        sizes = ", ".join(str(tuple(part.shape[1:])) for part in batch)
        raise ConfigError(
            f"module: {kind} fails on a minibatch of tensors {sizes}: {explained(error)}"
        ) from error
    if loss.shape != (2,):
        what = "its output" if network.loss == OF_MODULE else "that of one function"
        raise ConfigError(
            f"loss: {what} has shape {tuple(loss.shape[1:])}; it must be one number, such as the "
            "mean over the minibatch"
        )
    if not loss.requires_grad:
        raise ConfigError(f"loss: it does not depend on the parameters of {kind} by autograd")
    again, gradient = functions.loss_and_gradient(theta, 0)
    if not again.equal(loss.detach()):
        raise ConfigError(
            f"module: {kind} gives another loss each time; have random numbers come with the data"
            ", as noise= does"
        )
    if not (loss.isfinite().all() and gradient.isfinite().all()):
        raise ConfigError(f"module: {kind} has a loss or gradient that is not finite at the start")
    network.stacked = True
    why = _cannot_be_stacked(functions, loss.detach(), gradient)
    if why:
        network.stacked = False
        log.info("functions of %s run one after the other: %s", kind, why)
    fits = max(1, 2 * BYTES_AT_ONCE // max(kept, 1))
    return fits if network.stacked else None


def _cannot_be_stacked(functions: Optimizee, loss: Tensor, gradient: Tensor) -> str | None:
    """Why; None where stacked functions are the same as these."""
    theta = functions.initial_parameters
    try:
        together, its_gradient = functions.loss_and_gradient(theta, 0)
    except Exception as error:  # vmap has many ways of refusing
        return explained(error)
    near = AGREE.get(theta.dtype, ROUNDING)
    size = gradient.abs().max()
    if (together - loss).abs().max() > near * loss.abs().max() or (
        its_gradient - gradient
    ).abs().max() > near * size:
        return "stacked, they are other functions"
    return None
