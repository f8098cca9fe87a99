"""What becomes of a module as a task: tried before anything is begun."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from l2lgd.errors import ConfigError
from l2lgd.tasks.base import Optimizee
from l2lgd.tasks.functional import OF_MODULE, Batch, FunctionalModule, explained

log = logging.getLogger(__name__)

BYTES_AT_ONCE = 2**30  # that functions evaluated together may keep for their gradients
AGREE = {torch.float64: 1e-9}  # of stacked functions with the same ones apart; else:
ROUNDING = 1e-3


def try_out(
    network: FunctionalModule, functions: Optimizee, batch: Batch, modules: Sequence[nn.Module]
) -> int | None:
    """Evaluate two functions; have them run one after the other where they cannot be stacked.

    Args:
        network: of these functions.
        batch: their minibatch.
        modules: others of the kind, with the parameters and constants of these functions.

    Returns:
        How many functions to evaluate at once.

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
    try:
        again, gradient = functions.loss_and_gradient(theta, 0)
        alone = [
            network.of_module(module, [part[row] for part in batch])
            for row, module in enumerate(modules)
        ]
    except Exception as error:  # such as of sparse gradients
        raise ConfigError(f"module: {kind} has no gradient: {explained(error)}") from error
    if not (loss.isfinite().all() and gradient.isfinite().all()):
        raise ConfigError(f"module: {kind} has a loss or gradient that is not finite at the start")
    if not again.equal(loss.detach()):
        raise ConfigError(
            f"module: {kind} gives another loss each time. It draws random numbers, which noise= "
            "can give it, or changes itself, as spectral_norm does"
        )
    own_losses, own_gradients = (torch.stack(parts) for parts in zip(*alone, strict=True))
    if _differ(own_losses, again):
        raise ConfigError(
            f"module: {kind} has a loss of {own_losses[0]:.4g} by itself and of {again[0]:.4g} "
            "with its parameters handed to it; what it draws when it is built must be a parameter "
            "or a buffer"
        )
    if _differ(own_gradients, gradient):
        raise ConfigError(
            f"module: {kind} has another gradient by itself than with its parameters handed to "
            "it; leave out torch.utils.checkpoint, and hooks that change gradients"
        )
    network.stacked = True
    why = _cannot_be_stacked(functions, loss.detach(), gradient)
    if why:
        network.stacked = False
        log.info("functions of %s run one after the other: %s", kind, why)
    return max(1, 2 * BYTES_AT_ONCE // max(kept, 1)) if network.stacked else 1


def _cannot_be_stacked(functions: Optimizee, loss: Tensor, gradient: Tensor) -> str | None:
    """Why; None where stacked functions are the same as these."""
    theta = functions.initial_parameters
    try:
        together, its_gradient = functions.loss_and_gradient(theta, 0)
    except Exception as error:  # vmap has many ways of refusing
        return explained(error)
    if _differ(together, loss) or _differ(its_gradient, gradient):
        return "torch.vmap makes other functions of them"
    return None


def _differ(one: Tensor, other: Tensor) -> bool:
    near = AGREE.get(one.dtype, ROUNDING)
    return bool((one - other).abs().max() > near * other.abs().max())
