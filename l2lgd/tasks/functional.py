"""Modules of PyTorch as functions of their parameters, B at once."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from l2lgd.errors import ConfigError, one_line
from l2lgd.system.runtime import quiet_vmap
from l2lgd.tasks.base import inputs_and_outputs_last

log = logging.getLogger(__name__)

Loss = Callable[[Tensor, Tensor], Tensor]  # outputs and targets of one function → ()
Batch = Sequence[Tensor]  # each (B, batch, …)
RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
OF_MODULE = "module"  # name of the loss that the module itself returns


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """(B,) of logits (B, …, classes), classes last, and labels (B, …) or probabilities."""
    if targets.is_floating_point():  # probabilities of all classes
        _alike(outputs, targets)
        flat = targets.flatten(0, -2)
    else:
        flat = targets.flatten()
    losses = functional.cross_entropy(outputs.flatten(0, -2), flat, reduction="none")
    return losses.view(len(outputs), -1).mean(1)


def mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """(B,) of two (B, …)."""
    return _alike(outputs, targets).sub(targets).square().flatten(1).mean(1)


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """(B,) of logits (B, …) and probabilities (B, …)."""
    targets = targets.to(outputs.dtype)
    logits = _alike(outputs, targets)
    losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return losses.flatten(1).mean(1)


LOSSES: dict[str, Loss] = {  # of B stacked functions
    "cross_entropy": cross_entropy,
    "mse": mean_squared_error,
    "binary_cross_entropy": binary_cross_entropy,
}


class FunctionalModule:
    """The mean loss of a module on a minibatch, as a function of its parameters, stacked.

    Args:
        module: which it is, with any parameters; it is changed, and must not be used elsewhere.
        loss: one of ``LOSSES``; ``module``, the module's own output, (); or a function of outputs
            and targets of one function → ().

    Raises:
        ConfigError: the module has random numbers, or nothing to be trained.
    """

    def __init__(self, module: nn.Module, loss: str | Loss) -> None:
        _refuse_what_does_not_do(module)
        self.module = module.train()
        if _without_running_statistics(module):
            log.info("batch normalisation has the statistics of each minibatch, as in training")
        if isinstance(loss, str) and loss != OF_MODULE and loss not in LOSSES:
            known = ", ".join([*LOSSES, OF_MODULE])
            raise ConfigError(f"loss={loss}: choose one of {known}")
        self.loss = loss
        self.stacked = True  # by vmap; else one after the other
        self.own_shapes = {name: tuple(p.shape) for name, p in trained(module)}
        if not self.own_shapes:
            raise ConfigError(f"module: {type(module).__name__} has no parameters to train")
        # In the order that LearnedOptimizer has the axes of weights in.
        self._orders = {n: inputs_and_outputs_last(len(s)) for n, s in self.own_shapes.items()}
        self.shapes = {
            name: tuple(shape[axis] for axis in self._orders[name])
            for name, shape in self.own_shapes.items()
        }

    def flat(self, module: nn.Module) -> Tensor:
        """The parameters of a module of this kind, (1, n).

        Raises:
            ConfigError: they have other names or shapes.
        """
        found = dict(trained(module))
        if {name: tuple(p.shape) for name, p in found.items()} != self.own_shapes:
            raise ConfigError(
                "module: it has parameters of other names or shapes each time it is built; "
                "stacked functions need the same"
            )
        pieces = [p.detach().permute(self._orders[name]) for name, p in found.items()]
        return torch.cat([piece.flatten() for piece in pieces]).unsqueeze(0)

    def losses(
        self, tensors: Mapping[str, Tensor], constants: Mapping[str, Tensor], batch: Batch
    ) -> Tensor:
        """(B,), differentiable twice where the module is.

        Args:
            tensors: parameters under the names of ``shapes``, each (B, *shape).
            constants: buffers and frozen parameters, each (B, …).
            batch: tensors (B, batch, …), the targets last.
        """
        own = self._in_own_order(tensors)
        # Fused attention has no second derivatives.
        with sdpa_kernel(SDPBackend.MATH):
            if self.stacked:
                with quiet_vmap():
                    found: Tensor = torch.vmap(self._of_one)(own, dict(constants), tuple(batch))
            else:
                rows = range(len(batch[0]))
                found = torch.stack([self._of_one(*_row((own, constants, batch), b)) for b in rows])
            if isinstance(self.loss, str) and self.loss != OF_MODULE:
                return LOSSES[self.loss](found, batch[-1])
        return found

    @torch.no_grad()
    def load(
        self, module: nn.Module, tensors: Mapping[str, Tensor], constants: Mapping[str, Tensor]
    ) -> None:
        """Give a module the parameters and constants of a function, each (1, …)."""
        own = self._in_own_order(tensors)
        for name, weight in trained(module):
            weight.copy_(own[name][0])
        for name, constant in constants_of(module).items():
            constant.copy_(constants[name][0])

    def of_module(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss () and gradient (n,) of a module with its own parameters, for comparison.

        Args:
            batch: tensors (batch, …), the targets last.
        """
        _without_running_statistics(module.train())
        inputs = batch if self.loss == OF_MODULE else batch[:-1]
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            loss = self._loss_of(module(*inputs), batch[-1])
            if isinstance(self.loss, str) and self.loss != OF_MODULE:
                loss = LOSSES[self.loss](loss.unsqueeze(0), batch[-1].unsqueeze(0))[0]
            weights = [weight for _, weight in trained(module)]
            found = torch.autograd.grad(loss, weights, materialize_grads=True)
        orders = self._orders.values()
        pieces = [
            piece.permute(order).flatten() for piece, order in zip(found, orders, strict=True)
        ]
        return loss.detach(), torch.cat(pieces)

    def _in_own_order(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parameters (B, …) with the axes that the module has."""
        own = {}
        for name, tensor in tensors.items():
            order = self._orders[name]
            back = sorted(range(len(order)), key=order.__getitem__)
            own[name] = tensor.permute(0, *(axis + 1 for axis in back))
        return own

    def _of_one(
        self, tensors: Mapping[str, Tensor], constants: Mapping[str, Tensor], batch: Batch
    ) -> Tensor:
        """The loss, or the outputs, of one function."""
        inputs = tuple(batch if self.loss == OF_MODULE else batch[:-1])
        outputs = functional_call(self.module, {**tensors, **constants}, inputs)
        return self._loss_of(outputs, batch[-1])

    def _loss_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss, where a function of one function computes it; else outputs."""
        found = outputs if isinstance(self.loss, str) else self.loss(outputs, targets)
        if not isinstance(found, Tensor):
            what = "module: its output" if isinstance(self.loss, str) else "loss: it"
            raise ConfigError(f"{what} is {type(found).__name__}, and must be a tensor")
        return found


def trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters that are not frozen; tied ones once."""
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]


def constants_of(module: nn.Module) -> dict[str, Tensor]:
    """Buffers and frozen parameters."""
    frozen = [(n, p.detach()) for n, p in module.named_parameters() if not p.requires_grad]
    return dict([*frozen, *module.named_buffers()])


def _row(parts: tuple, row: int) -> tuple:
    tensors, constants, batch = parts
    own = {name: tensor[row] for name, tensor in tensors.items()}
    fixed = {name: tensor[row] for name, tensor in constants.items()}
    return own, fixed, tuple(tensor[row] for tensor in batch)


def _alike(outputs: Tensor, targets: Tensor) -> Tensor:
    if outputs.shape != targets.shape:
        shapes = tuple(outputs.shape[1:]), tuple(targets.shape[1:])
        raise ConfigError(f"loss: the module gives {shapes[0]} and targets are {shapes[1]}")
    return outputs


def _refuse_what_does_not_do(module: nn.Module) -> None:
    for name, weight in module.named_parameters():
        if isinstance(weight, nn.parameter.UninitializedParameter):
            raise ConfigError(f"module: {name} has no size yet; take a layer that is not lazy")
        if weight.is_complex():
            raise ConfigError(
                f"module: {name} is complex; take real parameters and torch.view_as_complex"
            )
    for name, part in module.named_modules():
        share = getattr(part, "p", None) if isinstance(part, nn.modules.dropout._DropoutNd) else 0.0
        if isinstance(part, nn.MultiheadAttention | nn.RNNBase):
            share = part.dropout
        if share:
            raise ConfigError(
                f"module: {name or type(part).__name__} has dropout of {share}, and a function "
                "has to give the same loss each time; build the module with dropout of 0"
            )


def _without_running_statistics(module: nn.Module) -> bool:
    """Have normalisation use the statistics of its minibatch, which is all that θ decides."""
    found = False
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:
            part.track_running_stats, found = False, True
            part.running_mean = part.running_var = part.num_batches_tracked = None
    return found


def explained(error: Exception) -> str:
    """What went wrong in a module, in one line."""
    text = one_line(error)
    operation = re.search(r"Batching rule not implemented for (aten::)?(\w+)", text)
    if operation:
        cell = (
            "; a cell in a loop, such as nn.GRUCell, can be" if RECURRENT & {operation[2]} else ""
        )
        return f"{operation[2]} cannot be stacked{cell}"
    return text
