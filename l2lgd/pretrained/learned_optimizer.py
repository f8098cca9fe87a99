"""A trained optimizer as a ``torch.optim.Optimizer``, for anybody's PyTorch loop."""

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import LearnedRule
from l2lgd.pretrained import saved_states
from l2lgd.pretrained.assignment import Assignment, Function
from l2lgd.pretrained.observing import seen
from l2lgd.pretrained.options import OPTIONS, check, type_of, warn_of_unknown
from l2lgd.pretrained.placing import Steppers
from l2lgd.pretrained.sharding import (
    distributed_as,
    is_fake,
    is_whole,
    local,
    placed_as,
    real,
    real_shape,
)
from l2lgd.pretrained.stepping import Stepper

DEFAULT_WEIGHTS = "cifar10-lstm_per_group:rest"  # what works best where nothing was trained for
BLOCK_SIZE = 16384  # coordinates that are stepped at once
# A compiled training step leaves out what is compiled already. PyTorch's optimizers use the same.
_untraced = getattr(torch, "_disable_dynamo", lambda function: function)


class LearnedOptimizer(torch.optim.Optimizer):
    """A trained optimizer in the place of ``torch.optim.Adam``.

    A coordinatewise LSTM keeps 2·L·H numbers for every parameter, L layers of H units: 80 for the
    paper's network, which are 320 bytes in float32 and 160 in bfloat16, and twice that where it is
    made an odd function. Its state tensors are of the parameter's shape, with more dimensions
    behind. Beyond the state, the memory of a step does not depend on the size of the model. No
    graph is ever built.

    Args:
        params: parameters, named parameters, or groups of them, as every optimizer of PyTorch
            takes them. A group may have its own value of every option but ``allow_targets``.
        weights: a name that ``l2lgd optimizers`` lists, the path of a .safetensors file that
            l2lgd has written, or a mapping of patterns to those, as in
            ``{"*.bias": "quadratic-lstm", "*": "mnist-lstm"}``, of which the first that fits a
            parameter's name (``*``, ``?``, ``[…]``) counts. ``NAME:MEMBER`` is one of several
            optimizers that were trained together. Names are also taken without what DDP, FSDP,
            torch.compile and Lightning put into them.
        lr: factor on the updates, for schedulers; with 1 they are what was meta-trained.
        weight_decay: λ of θ ← (1 − lr·λ)·θ before each update, as in AdamW; lr is 1 here, and so
            λ is about a thousandth of AdamW's.
        maximize: go up instead of down.
        skip_zero_gradients: leave coordinates whose gradient is exactly zero, and their states, as
            they are in that step.
        state_dtype: what the recurrent state is kept in between steps, such as torch.bfloat16;
            None keeps float32, or float64 for parameters in float64.
        block_size: coordinates that are stepped at once.
        horizon: how many steps there will be, for weights that observe it; None where that is open.
        allow_targets: your own packages that the class of an optimizer may come from.

    An optimizer whose coordinates share information takes all its parameters of a group for the
    coordinates of one function, whole, so that its memory grows with them. Those without a
    gradient do not move, and are coordinates whose gradient is 0 to the others.

    Raises:
        CheckpointError: there are no such weights, or they are not readable.
        ConfigError: patterns without names, a name that none fits, or a class that is not allowed.
        ValueError: another option is out of range.
    """

    def __init__(
        self,
        params: Any,
        weights: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]] = DEFAULT_WEIGHTS,
        lr: float | Tensor = 1.0,
        *,
        weight_decay: float = 0.0,
        maximize: bool = False,
        skip_zero_gradients: bool = False,
        state_dtype: torch.dtype | None = None,
        block_size: int = BLOCK_SIZE,
        horizon: int | None = None,
        allow_targets: Iterable[str] = (),
    ) -> None:
        self._assignment = Assignment(allow_targets)
        self._steppers = Steppers(self._assignment)
        defaults = {
            "lr": lr,
            "weights": weights,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "skip_zero_gradients": skip_zero_gradients,
            "state_dtype": state_dtype,
            "block_size": block_size,
            "horizon": horizon,
        }
        check(defaults)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        warn_of_unknown(param_group)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            check(group)
            self._assignment.learn_names(group)
            self._sign(group)
        except Exception:
            self.param_groups.pop()
            raise

    @overload
    def step(self, closure: None = None, *, loss: float | Tensor | None = None) -> None: ...

    @overload
    def step(
        self, closure: Callable[[], float], *, loss: float | Tensor | None = None
    ) -> float: ...

    @torch.no_grad()
    def step(
        self, closure: Callable[[], float] | None = None, *, loss: float | Tensor | None = None
    ) -> float | None:
        """One step of every parameter that has a gradient.

        Args:
            closure: evaluates the model again and returns the loss.
            loss: that of the gradients, where there is no closure, for weights that observe it.

        Raises:
            ConfigError: weights whose coordinates share information have sharded parameters, or
                weights observe the loss, and there is none, or it is not one number.
            RuntimeError: a gradient is sparse, or its parameter is in fake mode.
            ValueError: a parameter's shape has changed, and its state's has not.
        """
        found = None
        if closure is not None:
            with torch.enable_grad():
                found = loss = closure()
        for group in self.param_groups:
            observed = False
            for function in self._assignment.functions(group):
                parameters = [group["params"][index] for index in function.indices]
                if any(parameter.grad is not None for parameter in parameters):
                    self._step(function, parameters, group, loss)
                    observed |= bool(self._assignment.optimizers[function.key].observes)
            if observed:  # whatever it is: t is one of what they see
                group["steps_done"] = group.get("steps_done", 0) + 1
        self._assignment.warn_of_unused(self.param_groups)
        return found

    def state_dict(self) -> dict[str, Any]:
        for group in self.param_groups:
            self._sign(group)  # its parameters may have been changed by hand
        return saved_states.for_fsdp1(super().state_dict(), self.param_groups, self._steppers)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state that :meth:`state_dict` gave, whatever device it was on.

        Raises:
            CheckpointError: it is of other weights, or of another optimizer.
            ValueError: it is of other parameter groups, or of parameters of other shapes.
        """
        given: dict[str, Any] = {}
        labels = [group["weights"] for group in self.param_groups]

        def before(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
            for group in self.param_groups:
                self._sign(group)
            saved_states.refuse_others(state, self.param_groups, self._assignment)
            given.update(
                saved_states.of_today(state, self.param_groups, self._assignment, self._steppers)
            )
            return given

        def after(_: torch.optim.Optimizer) -> None:
            saved = given["param_groups"]
            for group, label, theirs in zip(self.param_groups, labels, saved, strict=True):
                group["weights"] = label  # a file may have been moved
                for name in OPTIONS:  # an older state lacks some
                    group.setdefault(name, self.defaults[name])
                check(group)
                for index, entries in self._steppers.entries_of(group).items():
                    parameter = group["params"][index]
                    kept = given["state"].get(theirs["params"][index], {})
                    for name in [entry.name for entry in entries if entry.name in kept]:
                        # PyTorch gave it the parameter's type.
                        self.state[parameter][name] = kept[name].to(parameter.device, copy=True)
                for function in self._assignment.functions(group):
                    parameters = [group["params"][index] for index in function.indices]
                    self._check_state(self._steppers.on(function, parameters), parameters)

        # The last before PyTorch's own work and the first after it, among the user's hooks.
        hooks = (
            self.register_load_state_dict_pre_hook(before),
            self.register_load_state_dict_post_hook(after, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_assignment": self._assignment}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._steppers = Steppers(self._assignment)

    def _sign(self, group: dict[str, Any]) -> None:
        """Write into a group which weights have which of its parameters."""
        self._assignment.functions(group)  # raises where one has none
        group["weights_digest"] = self._assignment.digest(group)

    @_untraced
    def _step(
        self,
        function: Function,
        parameters: Sequence[Tensor],
        group: Mapping[str, Any],
        loss: float | Tensor | None,
    ) -> None:
        """One step of one function."""
        key = function.key
        self._refuse_to_step(key, parameters)
        owned = [real(local(parameter)) for parameter in parameters]
        home = owned[0]
        gradient = _joined([_gradient(p) for p in parameters], home.device)
        if not len(gradient):
            return
        stepper = self._steppers.on(function, parameters)
        size = stepper.block_size(group["block_size"], owned)
        learned = isinstance(self._assignment.optimizers[key], LearnedRule)
        self._begin(stepper, parameters, owned, size, type_of(group) if learned else None)
        self._check_state(stepper, parameters)
        states = [
            {entry.name: local(self.state[p][entry.name]) for entry in stepper.entries}
            for p in parameters
        ]
        theta = _joined([own.reshape(-1) for own in owned], home.device)
        if group["maximize"]:
            gradient = -gradient
        with _without_autocast(home.device.type):
            observes = self._assignment.optimizers[key].observes
            observed = seen(key, observes, theta, group, loss) if observes else None
            updates = stepper.updates(
                gradient, owned, states, size, group["skip_zero_gradients"], observed
            )
            rate, decay = group["lr"], group["weight_decay"]
            for where, update in updates:
                own = theta[where].mul_(1 - rate * decay) if decay else theta[where]
                own.add_(update * rate)
        parts = theta.split([own.numel() for own in owned])
        for parameter, own, part in zip(parameters, owned, parts, strict=True):
            same = part.data_ptr() == own.data_ptr() != 0
            if parameter.grad is not None and not same:
                own.copy_(part.view_as(own))

    def _refuse_to_step(self, key: str, parameters: Sequence[Tensor]) -> None:
        if any(p.grad is not None and p.grad.layout != torch.strided for p in parameters):
            raise RuntimeError("LearnedOptimizer does not support sparse gradients")
        if any(is_fake(parameter) for parameter in parameters):
            raise RuntimeError("LearnedOptimizer cannot step fake tensors, which have no numbers")
        rule = self._assignment.optimizers[key]
        if not rule.coordinatewise and not all(is_whole(p) for p in parameters):
            raise ConfigError(
                f"weights {key} share information between coordinates, and so need whole "
                "parameters, which are sharded here; take coordinatewise weights, such as "
                f"{DEFAULT_WEIGHTS}"
            )

    def _begin(
        self,
        stepper: Stepper,
        parameters: Sequence[Tensor],
        owned: Sequence[Tensor],
        size: int,
        kept_in: torch.dtype | None,
    ) -> None:
        """Give parameters their part of an initial state where they have none."""
        names = [entry.name for entry in stepper.entries]
        new = [any(name not in self.state[p] for name in names) for p in parameters]
        if not any(new):
            return
        n = sum(own.numel() for own in owned)
        initial = stepper.initial(owned, size, kept_in)
        for parameter, is_new, parts in zip(parameters, new, initial, strict=True):
            if is_new:
                for entry in stepper.entries:
                    if entry.name not in self.state[parameter]:  # another may have come with a name
                        part = distributed_as(parts[entry.name], entry, parameter, n)
                        self.state[parameter][entry.name] = part

    def _check_state(self, stepper: Stepper, parameters: Sequence[Tensor]) -> None:
        """Raise ValueError where a state is not of its parameter's shape."""
        n = sum(real_shape(parameter).numel() for parameter in parameters)
        for parameter in parameters:
            for entry in stepper.entries:
                shape = () if entry.axis is None else real_shape(parameter)
                found, needed = self.state[parameter].get(entry.name), (*shape, *entry.behind(n))
                if found is not None and tuple(found.shape) != needed:
                    raise ValueError(
                        f"the state {entry.name} of a parameter of shape {tuple(parameter.shape)} "
                        f"has shape {tuple(found.shape)}, and needs {needed}: it is of another "
                        "model, or the parameter was cut or grown without its state"
                    )


def _gradient(parameter: Tensor) -> Tensor:
    """Of this process's part, flat."""
    if parameter.grad is None:
        return real(torch.zeros_like(local(parameter))).reshape(-1)
    return real(local(placed_as(parameter.grad, parameter))).reshape(-1)


def _without_autocast(device: str) -> contextlib.AbstractContextManager[Any]:
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()  # meta


def _joined(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """One flat tensor of flat ones; a view where there is only one."""
    return tensors[0] if len(tensors) == 1 else torch.cat([part.to(device) for part in tensors])
