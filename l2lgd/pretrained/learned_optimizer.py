"""A trained optimizer as a ``torch.optim.Optimizer``, for anybody's PyTorch loop."""

import copy
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from l2lgd.errors import CheckpointError, ConfigError
from l2lgd.optimizers import base
from l2lgd.optimizers.groups import Grouped, first_fit
from l2lgd.pretrained import weights as trained
from l2lgd.pretrained.blockwise import Blockwise
from l2lgd.results.losses import digest

DEFAULT_WEIGHTS = "cifar10-lstm_per_group:rest"  # what works best where nothing was trained for
BLOCK_SIZE = 16384  # coordinates that are stepped at once
COMPILED = "_orig_mod."  # what torch.compile puts into the names of parameters
# A compiled training step leaves out what is compiled already. PyTorch's optimizers use the same.
_untraced = getattr(torch, "_disable_dynamo", lambda function: function)


class _Function(NamedTuple):
    """Parameters of a group that one optimizer takes for the coordinates of one function."""

    key: str  # of that optimizer
    indices: tuple[int, ...]  # of the parameters in their group


class LearnedOptimizer(torch.optim.Optimizer):
    """A trained optimizer in the place of ``torch.optim.Adam``.

    A coordinatewise LSTM keeps 2·L·H numbers for every parameter, L layers of H units: 80 for the
    paper's network, which are 320 bytes in float32 and 160 in bfloat16, and twice that where it is
    made an odd function. Beyond that, the memory of a step does not depend on the size of the
    model. No graph is ever built.

    Args:
        params: parameters, named parameters, or groups of them, as every optimizer of PyTorch
            takes them. A group may have its own ``weights``, ``lr``, ``state_dtype`` and
            ``block_size``.
        weights: a name that ``l2lgd optimizers`` lists, the path of a .safetensors file that
            l2lgd has written, or a mapping of patterns to those, as in
            ``{"*.bias": "quadratic-lstm", "*": "mnist-lstm"}``, of which the first that fits a
            parameter's name (``*``, ``?``, ``[…]``) counts. ``NAME:MEMBER`` is one of several
            optimizers that were trained together.
        lr: factor on the updates, for schedulers; with 1 they are what was meta-trained.
        state_dtype: what the recurrent state is kept in between steps, such as torch.bfloat16;
            None keeps float32, or float64 for parameters in float64.
        block_size: coordinates that are stepped at once; a state belongs to one block size.
        allow_targets: your own packages that the class of an optimizer may come from.

    An optimizer whose coordinates share information takes all its parameters of a group for the
    coordinates of one function, whole, so that its memory grows with them. Those without a
    gradient do not move, and are coordinates whose gradient is 0 to the others.

    Raises:
        CheckpointError: there are no such weights, or they are not readable.
        ConfigError: patterns without names, a name that none fits, or a class that is not allowed.
        ValueError: ``lr`` or ``block_size`` is out of range.
    """

    def __init__(
        self,
        params: Any,
        weights: str | os.PathLike[str] | Mapping[str, str] = DEFAULT_WEIGHTS,
        lr: float | Tensor = 1.0,
        *,
        state_dtype: torch.dtype | None = None,
        block_size: int = BLOCK_SIZE,
        allow_targets: Iterable[str] = (),
    ) -> None:
        self._allow_targets = tuple(allow_targets)
        self._optimizers: dict[str, base.Optimizer] = {}  # by key, on the CPU in float32
        self._functions: list[list[_Function]] = []  # of each group
        self._forget_copies()
        defaults = {
            "lr": lr,
            "weights": weights,
            "state_dtype": state_dtype,
            "block_size": block_size,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check(group)
            self._functions.append(self._shared_out(group))
        except Exception:
            self.param_groups.pop()
            raise
        group["weights_digest"] = self._digest(self._functions[-1])

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of every parameter that has a gradient.

        Args:
            closure: evaluates the model again and returns the loss.

        Raises:
            RuntimeError: a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, functions in zip(self.param_groups, self._functions, strict=True):
            for function in functions:
                parameters = [group["params"][index] for index in function.indices]
                if any(parameter.grad is not None for parameter in parameters):
                    self._step(function.key, parameters, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state that :meth:`state_dict` gave, whatever device it was on.

        Raises:
            CheckpointError: it is of other weights.
            ValueError: it is of other parameter groups, or of parameters of other sizes.
        """
        given: dict[str, Any] = {}
        labels = [group["weights"] for group in self.param_groups]

        def before(_: torch.optim.Optimizer, state: dict[str, Any]) -> None:
            given.update(state)
            for group, theirs in zip(self.param_groups, state["param_groups"], strict=False):
                if theirs.get("weights_digest") != group["weights_digest"]:
                    raise CheckpointError(
                        f"the state is of weights {theirs.get('weights')}, not of "
                        f"{group['weights']}"
                    )

        def after(_: torch.optim.Optimizer) -> None:
            saved = given["param_groups"]
            for group, label, theirs in zip(self.param_groups, labels, saved, strict=True):
                group["weights"] = label  # a file may have been moved
                for parameter, index in zip(group["params"], theirs["params"], strict=True):
                    if index in given["state"]:  # PyTorch gave it the parameter's type
                        own = given["state"][index].items()
                        self.state[parameter] = {
                            name: value.to(parameter.device, copy=True) for name, value in own
                        }
            self._check_sizes()

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

    def _check_sizes(self) -> None:
        """Raise ValueError where a state is not of a function's number of coordinates."""
        for group, functions in zip(self.param_groups, self._functions, strict=True):
            for function in functions:
                parameters = [group["params"][index] for index in function.indices]
                home, state = parameters[0], self.state.get(parameters[0])
                if not state:
                    continue
                theta = _joined([_real(p) for p in parameters], home.device)
                steps = self._on(function.key, home.device, _computed_in(home.dtype))
                sizes = steps.sizes(theta, self._size(function.key, group, len(theta)))
                found = [value.numel() for value in state.values()]
                if found != sizes:
                    raise ValueError(
                        f"the state of a parameter of shape {tuple(home.shape)} has {found} "
                        f"numbers, and needs {sizes}: it is of another model"
                    )

    def _size(self, key: str, group: Mapping[str, Any], n: int) -> int:
        """Of a block."""
        size: int = group["block_size"] if self._optimizers[key].coordinatewise else n
        return size

    def __getstate__(self) -> dict[str, Any]:
        own = {"_allow_targets", "_optimizers", "_functions"}
        return super().__getstate__() | {name: self.__dict__[name] for name in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget_copies()

    def _forget_copies(self) -> None:
        """Of the optimizers, for the devices and types of parameters."""
        self._placed: dict[tuple[str, torch.device, torch.dtype], Blockwise] = {}

    def _shared_out(self, group: Mapping[str, Any]) -> list[_Function]:
        """Which optimizer takes which parameters of a group."""
        weights = group["weights"]
        rules = {"*": weights} if isinstance(weights, str) else dict(weights)
        names = group.get("param_names")
        if names is None:
            if list(rules) != ["*"]:
                raise ConfigError(
                    "patterns of weights need names: give model.named_parameters() instead of "
                    "model.parameters()"
                )
            names = [None] * len(group["params"])
        functions: dict[str, list[int]] = {}
        apart = []
        for index, name in enumerate(names):
            key, optimizer = self._optimizer_of(name and name.replace(COMPILED, ""), rules)
            if optimizer.coordinatewise:
                apart.append(_Function(key, (index,)))
            else:
                functions.setdefault(key, []).append(index)
        return apart + [_Function(key, tuple(indices)) for key, indices in functions.items()]

    def _optimizer_of(
        self, name: str | None, rules: Mapping[str, str]
    ) -> tuple[str, base.Optimizer]:
        """The key and the optimizer of a parameter."""
        label = first_fit(name or "", rules.items())
        if label is None:
            raise ConfigError(
                f'weights: {name} fits none of {", ".join(rules)}; end them with "*": NAME'
            )
        if label not in self._optimizers:
            self._optimizers[label] = trained.load(label, self._allow_targets)
        optimizer = self._optimizers[label]
        if not isinstance(optimizer, Grouped):
            return label, optimizer
        if name is None:
            example = f"{label}:{next(iter(optimizer.learned))}"
            raise ConfigError(
                f"weights {label} are of several optimizers, by the names of parameters: give "
                f"model.named_parameters(), or one of them, as in {example}"
            )
        member = optimizer.member_of(name)
        key = f"{label}:{member}"
        return key, self._optimizers.setdefault(key, optimizer.member(member))

    def _digest(self, functions: Sequence[_Function]) -> str:
        """Of which weights take which parameters."""
        found = hashlib.sha256()
        for key, indices in functions:
            optimizer = self._optimizers[key]
            if isinstance(optimizer, base.LearnedRule):
                found.update(digest(optimizer.state_dict()).encode())
            found.update(f"{type(optimizer).__name__} {indices}".encode())
        return found.hexdigest()[:16]

    @_untraced
    def _step(self, key: str, parameters: Sequence[Tensor], group: Mapping[str, Any]) -> None:
        """One step of one function."""
        if any(p.grad is not None and p.grad.layout != torch.strided for p in parameters):
            raise RuntimeError("LearnedOptimizer does not support sparse gradients")
        home = parameters[0]
        gradient = _joined([_gradient(p) for p in parameters], home.device)
        if not len(gradient):
            return
        steps = self._on(key, home.device, _computed_in(home.dtype))
        size = self._size(key, group, len(gradient))
        state = self.state[home]
        theta = _joined([_real(p) for p in parameters], home.device)
        if not state:
            learned = isinstance(self._optimizers[key], base.LearnedRule)
            state |= steps.initial(theta, size, group["state_dtype"] if learned else None)
        with torch.autocast(home.device.type, enabled=False):
            for where, update in steps.updates(gradient, state, size):
                theta[where].add_(update * group["lr"])
        parts = theta.split([_real(p).numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            own = _real(parameter)
            if parameter.grad is not None and part.data_ptr() != own.data_ptr():
                own.copy_(part.view_as(own))

    def _on(self, key: str, device: torch.device, dtype: torch.dtype) -> Blockwise:
        """An optimizer for parameters of a device."""
        place = (key, device, dtype)
        if place not in self._placed:
            optimizer = self._optimizers[key]
            if isinstance(optimizer, base.LearnedRule):
                optimizer = copy.deepcopy(optimizer).to(device, dtype)
            self._placed[place] = Blockwise(optimizer, dtype)
        return self._placed[place]


def _check(group: dict[str, Any]) -> None:
    """Raise ValueError where an option of a group is out of range."""
    lr, size, dtype = group["lr"], group["block_size"], group["state_dtype"]
    if not lr >= 0:
        raise ValueError(f"Invalid learning rate: {lr}")
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"Invalid block_size: {size}")
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"Invalid state_dtype: {dtype}")
    if isinstance(group["weights"], os.PathLike):
        group["weights"] = os.fspath(group["weights"])


def _computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32


def _real(tensor: Tensor) -> Tensor:
    """Complex numbers as two real ones, as PyTorch's optimizers take them."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _gradient(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    return _real(torch.zeros_like(parameter) if gradient is None else gradient)


def _joined(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """One flat tensor; a view where there is only one."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    return flat[0] if len(flat) == 1 else torch.cat([part.to(device) for part in flat])
