"""A library's own optimizer object, on parameters of its own."""

import contextlib
import enum
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from l2lgd.seeding import derive_seed

# (parameters) → loss () and gradients there, of one function and of the shapes of its tensors.
FunctionElsewhere: TypeAlias = Callable[[Sequence[Tensor]], tuple[Tensor, Sequence[Tensor]]]


class Form(enum.Enum):
    """How a class wants its parameters."""

    TENSORS = "all tensors in one group"
    USE_MUON = "matrices and others in two groups, told apart by use_muon"
    MATRICES = "matrices alone; AdamW has the others"


@dataclass(frozen=True)
class Blueprint:
    """What a library's optimizer is made of.

    Args:
        kind: its class.
        arguments: of the class, without parameters and learning rate.
        weight_decay: among the arguments; None for the class's default. It is that of AdamW, too,
            where that has a part of the parameters.
    """

    kind: type[torch.optim.Optimizer]
    arguments: dict[str, Any] = field(default_factory=dict)
    weight_decay: float | None = None
    form: Form = Form.TENSORS

    def made(self, parameters: Sequence[Tensor], rate: float) -> list[torch.optim.Optimizer]:
        """The optimizer for these parameters, and AdamW beside it where there is a need."""
        decay: dict[str, Any] = (
            {} if self.weight_decay is None else {"weight_decay": self.weight_decay}
        )
        arguments = {**self.arguments, **decay, "lr": rate}
        if self.form is Form.TENSORS:
            return [self.kind([{"params": list(parameters)}], **arguments)]
        matrices = [p for p in parameters if self._is_matrix(p)]
        others = [p for p in parameters if not self._is_matrix(p)]
        if self.form is Form.USE_MUON:
            pairs = ((matrices, True), (others, False))
            groups = [
                {"params": own, "use_muon": use, "lr": rate, **decay} for own, use in pairs if own
            ]
            return [self.kind(groups, **arguments)]
        made: list[torch.optim.Optimizer] = []
        if matrices:
            made.append(self.kind(matrices, **arguments))
        if others:
            made.append(torch.optim.AdamW(others, lr=rate, **decay))
        return made

    def _is_matrix(self, parameter: Tensor) -> bool:
        return parameter.dim() == 2 or (self.form is Form.USE_MUON and parameter.dim() > 2)

    def argument(self, name: str) -> inspect.Parameter | None:
        """An argument of the class; None where its signature does not name it."""
        return inspect.signature(self.kind).parameters.get(name)


class Solver:
    """An optimizer object that has parameters, of one function or of a stack of functions.

    It is changed in place.

    Args:
        blueprint: of the optimizer.
        tensors: initial parameters, which are copied.
        rate: positive.
    """

    def __init__(self, blueprint: Blueprint, tensors: Sequence[Tensor], rate: float) -> None:
        self.parameters = [nn.Parameter(tensor.detach().clone()) for tensor in tensors]
        self.objects = blueprint.made(self.parameters, rate)
        self.steps = 0
        self.lost = False  # is there no going on?
        for optimizer in self.objects:
            if averages(optimizer):
                optimizer.train()  # type: ignore[attr-defined]

    def step(
        self, gradients: Sequence[Tensor], rate: float, elsewhere: FunctionElsewhere | None = None
    ) -> None:
        """One step of the library's.

        Args:
            gradients: one for each tensor; libraries write over them, so they are copied.
            rate: the learning rate of this step.
            elsewhere: for classes that evaluate the function within a step.
        """
        self._set_gradients(gradients)

        def closure() -> Tensor:
            assert elsewhere is not None
            loss, found = elsewhere([parameter.detach() for parameter in self.parameters])
            self._set_gradients(found)
            return loss

        for optimizer in self.objects:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step(*(() if elsewhere is None else (closure,)))
        self.steps += 1

    def give_up(self) -> None:
        """A step to NaN, of a function that has diverged."""
        self.lost = True
        self.steps += 1
        with torch.no_grad():
            for parameter in self.parameters:
                parameter.fill_(torch.nan)

    def averaged(self) -> list[Tensor]:
        """The parameters that count, where they are others than those that gradients are of."""
        kept = [parameter.detach().clone() for parameter in self.parameters]
        self._switch("eval")
        found = [parameter.detach().clone() for parameter in self.parameters]
        self._switch("train")
        with torch.no_grad():  # going there and back rounds, and to look must change nothing
            for parameter, own in zip(self.parameters, kept, strict=True):
                parameter.copy_(own)
        return found

    def _switch(self, mode: str) -> None:
        for optimizer in self.objects:
            if averages(optimizer):
                getattr(optimizer, mode)()

    def _set_gradients(self, gradients: Sequence[Tensor]) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient.detach().clone()


def averages(optimizer: torch.optim.Optimizer) -> bool:
    """Has it a mode of training and one of evaluation, with other parameters?"""
    return all(callable(getattr(optimizer, mode, None)) for mode in ("train", "eval"))


def pieces(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """The tensors of a function's coordinates (n,)."""
    parts = flat.split([torch.Size(shape).numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """The coordinates (n,) of a function's tensors."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


@contextlib.contextmanager
def undisturbed(device: torch.device, step: int) -> Iterator[None]:
    """Let a library warn to nobody, and draw numbers that depend on the step alone."""
    devices = [device] if device.type == "cuda" else []
    with warnings.catch_warnings(), torch.random.fork_rng(devices):
        warnings.simplefilter("ignore")
        reseed(device, step)
        yield


def reseed(device: torch.device, step: int) -> None:
    """Have a library's random numbers in a step be the same for every function."""
    seed = derive_seed(0, "library", step)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
