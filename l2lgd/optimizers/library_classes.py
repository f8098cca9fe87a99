"""Optimizer classes of libraries: found by name, and by trial what they want and what they mix."""

import contextlib
import functools
import importlib
import inspect
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from l2lgd.errors import ConfigError, is_out_of_memory, nearest, one_line
from l2lgd.optimizers.solver import Blueprint, Form, Solver, averages, flat, pieces, undisturbed

PACKAGES = ("torch.optim", "pytorch_optimizer", "schedulefree")
RATE = 0.01  # of trials
SMALL, LARGE = ((3, 2), (2,)), ((130, 129), (129,))  # some classes factor large matrices alone
MANY, FEW = 40, 3  # steps on each
# What an error says that is a class's way of asking for something else, and what that is.
WANTS = {
    "does not require grad": "it needs second derivatives; optimizers here are given gradients",
    "has no attribute 'named_parameters'": "it wants a module, not parameters",
    "has no attribute 'parameters'": "it wants a module, not parameters",
}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Manner:
    """How a class is run."""

    blueprint: Blueprint
    closure: bool  # does it evaluate the function within a step?
    elementwise: bool  # is every coordinate treated alike and apart?
    averages: bool  # are the parameters that count others than those that gradients are of?


def class_of(package: str, algorithm: str) -> type[torch.optim.Optimizer]:
    """A class of optimizers.

    Raises:
        ConfigError: no such package, it is not installed, or has no such class.
    """
    if package not in PACKAGES:
        raise ConfigError(f"package={package}{nearest(package, PACKAGES)}")
    try:
        with _silent():
            module = importlib.import_module(package)
    except ImportError as error:
        if is_out_of_memory(error) or package == "torch.optim":
            raise
        raise ConfigError(
            f"package={package} is not installed: pip install 'l2lgd[baselines]'"
        ) from error
    found: Any = getattr(module, algorithm, None)
    if not _is_optimizer(found):
        known = [name for name, part in vars(module).items() if _is_optimizer(part)]
        hint = nearest(algorithm, known)
        raise ConfigError(f"algorithm={algorithm}: {package} has no such optimizer{hint}")
    kind: type[torch.optim.Optimizer] = found
    return kind


def _is_optimizer(found: object) -> bool:
    base = torch.optim.Optimizer
    return (
        isinstance(found, type)
        and issubclass(found, base)
        and not (found is base or inspect.isabstract(found) or found.__name__ == "BaseOptimizer")
    )


def blueprint_of(
    kind: type[torch.optim.Optimizer],
    arguments: Mapping[str, Any],
    weight_decay: float | None,
    beta2: float | None,
) -> Blueprint:
    """What an optimizer is made of.

    Raises:
        ConfigError: the class does not have these arguments.
    """
    signature = inspect.signature(kind).parameters
    own = dict(arguments)
    for name in own:
        if name in ("params", "lr"):
            raise ConfigError(f"arguments.{name}: give opt.learning_rate= instead")
        if name not in signature and not _reads(kind, name):
            known = [key for key in signature if key not in ("params", "lr", "kwargs")]
            raise ConfigError(f"arguments.{name}: {kind.__name__} has none{nearest(name, known)}")
        default = signature[name].default if name in signature else None
        if isinstance(own[name], list) and not isinstance(default, list):
            own[name] = tuple(own[name])  # YAML has lists alone
    if weight_decay is not None:
        if "weight_decay" not in signature:
            raise ConfigError(
                f"weight_decay={weight_decay}: {kind.__name__} has none; leave it out"
            )
        if "weight_decay" in own:
            raise ConfigError("arguments.weight_decay: there is opt.weight_decay= already")
    if beta2 is not None:
        if "betas" not in signature:
            raise ConfigError(f"beta2={beta2}: {kind.__name__} has no betas; leave it out")
        own["betas"] = (*tuple(own.get("betas", signature["betas"].default))[:-1], beta2)
    return Blueprint(kind, own, weight_decay)


def _reads(kind: type, name: str) -> bool:
    """Does a class that takes any keywords read this one somewhere?"""
    any_of_them = inspect.Parameter.VAR_KEYWORD
    if all(p.kind is not any_of_them for p in inspect.signature(kind).parameters.values()):
        return False
    modules = {part.__module__ for part in kind.__mro__ if part is not object}
    texts = (inspect.getsource(sys.modules[module]) for module in sorted(modules))
    return any(f"'{name}'" in text or f'"{name}"' in text for text in texts)


_known: dict[tuple[type, str], Manner] = {}  # trials take a while, and searches build anew


def manner_of(blueprint: Blueprint) -> Manner:
    """How an optimizer is run, found by trial.

    Raises:
        ConfigError: it cannot be made, or cannot step.
    """
    key = blueprint.kind, repr(sorted(blueprint.arguments.items())) + repr(blueprint.weight_decay)
    if key not in _known:
        try:
            with _silent(), undisturbed(CPU, 0), torch.no_grad():
                _known[key] = _tried(blueprint)
        except OSError:  # PyTorch's imports want a temporary folder
            raise
        except Exception as error:  # each class has its own ways of refusing
            if isinstance(error, ConfigError) or is_out_of_memory(error):
                raise
            said, name = one_line(error), blueprint.kind.__name__
            meant = next((meant for sign, meant in WANTS.items() if sign in said), said)
            raise ConfigError(f"algorithm={name}: {meant}") from error
    return _known[key]


def _tried(blueprint: Blueprint) -> Manner:
    try:
        optimizer = _steps(blueprint)
    except OSError:
        raise
    except Exception as error:
        first = error
    else:
        return Manner(blueprint, False, _is_elementwise(blueprint), averages(optimizer))
    if "use_muon" in str(first):
        grouped = replace(blueprint, form=Form.USE_MUON)
        return Manner(grouped, False, False, averages(_steps(grouped)))
    for form, closure, dtype in (
        (Form.TENSORS, True, torch.float64),
        (Form.MATRICES, False, torch.float64),
        (Form.TENSORS, False, torch.float32),
    ):
        other = replace(blueprint, form=form)
        with contextlib.suppress(Exception):
            return Manner(other, closure, False, averages(_steps(other, closure, dtype)))
    raise first


def _steps(
    blueprint: Blueprint, closure: bool = False, dtype: torch.dtype = torch.float64
) -> torch.optim.Optimizer:
    """Two steps on a function of a matrix and a vector."""
    tensors = [torch.full(shape, 0.5, dtype=dtype) for shape in SMALL]
    solver = Solver(blueprint, tensors, RATE)

    def bowl(parameters: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        return flat(parameters).square().sum() / 2, list(parameters)

    for _ in range(2):
        _, gradients = bowl([parameter.detach() for parameter in solver.parameters])
        solver.step(gradients, RATE, bowl if closure else None)
    return solver.objects[0]


def _is_elementwise(blueprint: Blueprint) -> bool:
    """Is a stack of functions, as one tensor, stepped as each function with tensors of its own?"""
    return _stacks(blueprint, SMALL, MANY, 2) and _stacks(blueprint, LARGE, FEW, 1)


def _stacks(
    blueprint: Blueprint, shapes: Sequence[tuple[int, ...]], steps: int, count: int
) -> bool:
    draw = torch.Generator().manual_seed(0)
    numbers = functools.partial(torch.randn, generator=draw, dtype=torch.float64)
    theta = numbers(count, sum(torch.Size(shape).numel() for shape in shapes))
    try:
        whole = Solver(blueprint, [theta], RATE)
        apart = [Solver(blueprint, pieces(row, shapes), RATE) for row in theta]
        for step in range(steps):
            # Gradients of all sizes, as some classes cut large ones.
            gradient = numbers(theta.shape) * 10 ** (2 * numbers(count, 1))
            rate = RATE * (1 - step / (2 * steps))
            whole.step([gradient], rate)
            for row, solver in enumerate(apart):
                solver.step(pieces(gradient[row], shapes), rate)
            if not all(_alike(whole, solver, row) for row, solver in enumerate(apart)):
                return False
        for _ in range(FEW):  # nor may a function that diverges stop the last one
            gradient = numbers(theta.shape)
            gradient[:-1] = torch.nan
            whole.step([gradient], RATE)
            apart[-1].step(pieces(gradient[-1], shapes), RATE)
        return _alike(whole, apart[-1], count - 1)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, ArithmeticError):
        return False


def _alike(whole: Solver, apart: Solver, row: int) -> bool:
    """Has a function the same parameters in both, and all that is no tensor of them?

    A number that is kept for a whole tensor, and follows from its gradients, mixes coordinates
    even where it has not been used yet.
    """
    stacked, flattened = whole.parameters[0].detach()[row], flat(apart.parameters)
    if not stacked.equal(flattened):
        return False
    kept = list(_numbers(whole, 0))
    return all(list(_numbers(apart, index)) == kept for index in range(len(apart.parameters)))


def _numbers(solver: Solver, index: int) -> Iterator[object]:
    """What is kept of a parameter besides tensors of its shape, and of its group."""
    optimizer, parameter = solver.objects[0], solver.parameters[index]
    yield from _leaves(optimizer.state[parameter], parameter.shape)
    for group in optimizer.param_groups:
        yield from _leaves({k: v for k, v in group.items() if k != "params"}, parameter.shape)


def _leaves(kept: Any, shape: torch.Size) -> Iterator[object]:
    if isinstance(kept, Tensor):
        if kept.numel() == 1:
            yield kept.item()
        elif kept.shape != shape:
            yield kept.shape  # of factors and the like, others in a stack
    elif isinstance(kept, Mapping):
        for key in kept:
            yield from _leaves(kept[key], shape)
    elif isinstance(kept, Sequence) and not isinstance(kept, str):
        for part in kept:
            yield from _leaves(part, shape)
    else:
        yield kept  # an object of the library's is equal to itself alone


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Let a library print to nobody."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
