"""What runs on a GPU stays there, checked without one: on the device ``meta``, which has no data.

Every operation of an unroll is looked at. None may take a number to the CPU, which waits for the
GPU, or mix tensors of both; and there are no more of them where there is more to compute.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import (
    CLASSES_OF_TASKS,
    LEARNED,
    OPTIMIZERS,
    SINGLE_TASKS,
    classifiers,
    node,
    optimizer,
    thinned,
)
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from l2lgd import LearnedOptimizer
from l2lgd.config.building import build
from l2lgd.kernels import coordinatewise as compiled
from l2lgd.meta.estimators.replay import replay
from l2lgd.meta.rollout import Position, advance, rollout, start
from l2lgd.meta.schedules import Unroll
from l2lgd.optimizers.base import LearnedRule
from l2lgd.pretrained.learned_optimizer import DEFAULT_WEIGHTS
from l2lgd.tasks.base import Optimizee, Task

TASKS = SINGLE_TASKS
ON_A_DEVICE = [name for name in OPTIMIZERS if optimizer(name).differentiable]  # BFGS is SciPy's
# Each optimizer meets vectors, matrices, and the kernels of convolutions.
WITH_EVERY_OPTIMIZER = ("quadratic", "mnist", "cifar10")


PAIRS = [
    (task, name)
    for task in TASKS
    for name in ON_A_DEVICE
    if name != "ntm_bfgs" or task.startswith("quadratic")  # its memory is n × n
]
FEW = [
    (task, name)
    for task, name in PAIRS
    if task in WITH_EVERY_OPTIMIZER
    or name == "adam"
    or (name == "lstm" and task in CLASSES_OF_TASKS)
]
META = torch.device("meta")


class Operations(TorchDispatchMode):
    """Notes every operation that would launch a kernel, and those that leave the device."""

    def __init__(self) -> None:
        super().__init__()
        self.launched: list[str] = []
        self.left: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        tensors = [part for part in tree_leaves((args, kwargs, found)) if isinstance(part, Tensor)]
        # A number of the CPU may take part in arithmetic, as a constant of the kernel.
        devices = {tensor.device.type for tensor in tensors if tensor.dim()}
        if not function.is_view:
            self.launched.append(str(function))
        if len(devices) > 1:
            self.left.append(str(function))
        return found


@pytest.fixture(scope="session")
def optimizee_of(gallery: dict[str, str], small_data: Path) -> Callable[[str], Optimizee]:
    """Three functions of a task by its name, on the device without data."""

    @functools.cache
    def get(name: str) -> Optimizee:
        config = node("evaluate", "task", f"task={name}", "opt=adam")
        # Choosing labels looks at them; that is before any unroll.
        config |= {key: None for key in ("labels", "label_counts") if key in config}
        if "vgg" in config:
            small = {"content": gallery["content"], "style": gallery["style"], "size": 16}
            config |= small | {"vgg": {**config["vgg"], "weights": gallery["vgg"]}}
        task: Task = build(config, "task")
        task.setup(str(small_data), META)
        return task.sample("train", 3, torch.Generator().manual_seed(0))

    return get


HOST = (
    torch.tensor,
    torch.as_tensor,
    Tensor.new_tensor,
    Tensor.item,
    Tensor.tolist,
    Tensor.cpu,
    Tensor.numpy,
    Tensor.__bool__,
    Tensor.__float__,
    Tensor.__int__,
)


class Host(TorchFunctionMode):
    """Notes what makes a tensor of numbers of the CPU, or asks for a tensor's."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in HOST:
            self.calls.append(getattr(function, "__name__", str(function)))
        return function(*args, **(kwargs or {}))


def begun(task: str, name: str, optimizee: Optimizee) -> Position:
    """An optimizer, by its name, at the start; the first minibatches are on the device."""
    config = node("evaluate", "opt", f"task={task}", f"opt={name}")
    if "learning_rate" in config and config["learning_rate"] is None:
        config["learning_rate"] = 0.01
    chosen: Any = build(config, "opt")
    if isinstance(chosen, LearnedRule):
        chosen.to(META)
    optimizee.prefetch(range(4))
    return start(chosen, optimizee, horizon=4)


def assert_stays(operations: Operations) -> None:
    assert operations.launched
    assert not operations.left, f"on two devices: {sorted(set(operations.left))}"


@pytest.mark.parametrize(("task", "name"), thinned(PAIRS, FEW))
def test_an_unroll_stays_on_the_device(
    task: str, name: str, optimizee_of: Callable[[str], Optimizee]
) -> None:
    at = begun(task, name, optimizee_of(task))
    with Host() as host:
        advance(at)
    if name in LEARNED:  # those of PyTorch count their steps on the CPU
        assert not host.calls
    with Operations() as operations:
        assert advance(at).parameters.device == META
        if at.optimizer.phi():
            record, _ = rollout(at, 2, keep_path=True)
            for path in (None, record.path):  # first order, and second derivatives
                own = replace(record, path=path)
                replay(own, Unroll([2]).objective(2), smoothing=1.0)
    assert_stays(operations)
    for weight in at.optimizer.phi():
        assert weight.grad is not None
        assert weight.grad.device == META


@pytest.mark.parametrize("weights", [DEFAULT_WEIGHTS, "mnist-lstm", "sharing/mnist-lstm_gac"])
def test_a_step_in_pytorch_stays_on_the_device(weights: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3)).to(META)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    learned = LearnedOptimizer(model.parameters(), weights, weight_decay=0.1)
    learned.step()  # makes the state
    with Operations() as operations:
        learned.step()
    assert_stays(operations)
    assert all(part.device == META for kept in learned.state.values() for part in kept.values())


def operations(name: str, optimizee: Optimizee, length: int, second: bool) -> tuple[int, int]:
    """How many a step of the rollout and a replay take, where compiled code is at hand."""
    at = start(optimizer(name, torch.float32), optimizee, horizon=4)
    optimizee.prefetch(range(length + 1))
    with Operations() as of_step:
        advance(at)
    record, _ = rollout(at, length, keep_path=second)
    with Operations() as of_replay:
        replay(record, lambda losses, steps: losses)
    return len(of_step.launched), len(of_replay.launched)


@pytest.mark.parametrize("name", ["lstm", "lstm_odd", "lstm_per_group"])
def test_operations_do_not_grow_with_what_is_computed(name: str) -> None:
    if not compiled.is_available():
        pytest.skip("without a C++ compiler, coordinates are stepped block by block")
    first = [
        operations(name, classifiers(functions, torch.float32), length, False)
        for functions, length in ((2, 3), (7, 3), (2, 9))
    ]
    first.append(operations(name, classifiers(400, torch.float32), 3, False))  # 22,000 coordinates
    assert len(set(first)) == 1, first
    few, more, longer, many = (
        operations(name, classifiers(functions, torch.float32), length, True)[1]
        for functions, length in ((2, 3), (7, 3), (2, 6), (2, 9))
    )
    assert few == more
    assert longer - few == many - longer, "each step of a second derivative adds the same number"
