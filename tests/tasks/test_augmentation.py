"""Functions in coordinates of other scales, and of other architectures."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import l2lgd
from torch import Tensor, nn

from l2lgd.data.sources import DataConfig
from l2lgd.errors import ConfigError
from l2lgd.seeding import generator
from l2lgd.tasks.augmentation import Augmentation, Augmented, Rescaled
from l2lgd.tasks.base import Task
from l2lgd.tasks.classification import ClassificationTask
from l2lgd.tasks.joined import join
from l2lgd.tasks.module import ModuleTask
from l2lgd.tasks.parts import MixtureTask
from l2lgd.tasks.quadratic import QuadraticTask
from l2lgd.testing import TASK_CHECKS, findings

CPU = torch.device("cpu")
LEVELS = ["global", "tensor", "coordinate"]


def digits(**options: Any) -> Task:
    return ClassificationTask("digits", DataConfig(source="embedded"), [4], **options)


def network() -> Task:
    draw = torch.Generator().manual_seed(0)
    data = torch.randn(40, 3, generator=draw), torch.randint(0, 2, (40,), generator=draw)
    return ModuleTask("net", lambda: nn.Linear(3, 2), dataset=lambda: data, batch_size=8)


TASKS = {"quadratic": QuadraticTask, "digits": digits, "module": network}


def augmented(task: Task, **options: Any) -> Augmented:
    made = Augmented(task, Augmentation(**options))
    made.setup("", CPU, torch.float64)
    return made


def drawn(task: Task, split: Any = "train", count: int = 3, seed: int = 0) -> Any:
    return task.sample(split, count, generator(seed, "test"))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", TASKS)
def test_functions_begin_where_they_did(name: str, level: str) -> None:
    task = augmented(TASKS[name](), levels=[level])
    functions, own = drawn(task), drawn(task.task)
    assert isinstance(functions, Rescaled)
    theta, scale = functions.initial_parameters, functions.scale
    torch.testing.assert_close(theta * scale, own.initial_parameters)
    for step in (0, 3):
        before = own.loss(own.initial_parameters, step)
        torch.testing.assert_close(functions.loss(theta, step), before, rtol=1e-6, atol=0)
    kinds = [len(set(row.tolist())) for row in scale]
    expected = {"global": 1, "tensor": len(own.shapes), "coordinate": theta.shape[1]}[level]
    assert kinds == [expected] * 3
    assert len(set(scale[:, 0].tolist())) == 3, "functions share a scale"
    assert 1e-3 <= scale.min() < scale.max() <= 1e3


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", TASKS)
def test_the_contract_of_tasks_holds(name: str, level: str) -> None:
    task = augmented(TASKS[name](), levels=[level], ranges=[[0.1, 10]])
    assert [finding for finding in findings(TASK_CHECKS, task) if finding.problem] == []


@pytest.mark.parametrize("split", ["validation", "test"])
def test_other_splits_are_as_they_were(split: str) -> None:
    task = augmented(digits(), levels=["global"], variants=[])
    functions, own = drawn(task, split), drawn(task.task, split)
    assert type(functions) is type(own)
    assert functions.initial_parameters.equal(own.initial_parameters)


def test_scales_are_log_uniform_and_levels_and_ranges_are_drawn() -> None:
    task = augmented(
        QuadraticTask(dimension=2), levels=["none", "global"], ranges=[[1, 10], [100, 1000]]
    )
    scale: Tensor = drawn(task, count=2000).scale[:, 0]
    shares = {
        "none": (scale == 1).double().mean(),
        "small": ((scale > 1) & (scale < 10**0.5)).double().mean(),
        "large": ((scale > 100) & (scale < 100 * 10**0.5)).double().mean(),
    }
    for name, expected in (("none", 1 / 2), ("small", 1 / 8), ("large", 1 / 8)):
        assert abs(shares[name] - expected) < 0.04, name


def test_second_derivatives_and_joined_functions() -> None:
    task = augmented(QuadraticTask(dimension=3), levels=["coordinate"], ranges=[[0.1, 10]])
    one, other = drawn(task, count=2), drawn(task, count=1, seed=1)
    theta = torch.randn(2, 3, generator=generator(0, "theta"), dtype=torch.float64)
    vector = torch.randn(2, 3, generator=generator(0, "vector"), dtype=torch.float64)
    expected = super(Rescaled, one).hessian_product(theta, 0, vector)
    torch.testing.assert_close(one.hessian_product(theta, 0, vector), expected)
    together = join([one, other], [0, 0])
    assert isinstance(together, Rescaled)
    assert not type(together.function).__name__.startswith("Joined")
    theta = together.initial_parameters
    parts = torch.cat([one.loss(theta[:2], 0), other.loss(theta[2:], 0)])
    torch.testing.assert_close(together.loss(theta, 0), parts)


def test_each_trajectory_draws_a_variant() -> None:
    variants: list[Task] = [QuadraticTask(dimension=2), QuadraticTask(dimension=5)]
    options = Augmentation(variants=[{"dimension": 2}, {"dimension": 5}])
    task = Augmented(QuadraticTask(), options, variants)
    task.setup("", CPU)
    sizes = [drawn(task, seed=seed).initial_parameters.shape[1] for seed in range(20)]
    assert set(sizes) == {2, 5}
    assert drawn(task, "validation").initial_parameters.shape[1] == 10


def test_each_task_of_a_mixture_is_augmented() -> None:
    tasks: dict[str, Task] = {"one": QuadraticTask(dimension=2), "other": QuadraticTask()}
    mixture = MixtureTask("both", tasks, {"one": 2.0}, {"other": 50})
    parts = augmented(mixture, levels=["global"]).parts()
    assert {name: (p.weight, p.num_steps) for name, p in parts.items()} == {
        "one": (2.0, None),
        "other": (1.0, 50),
    }
    for name, part in parts.items():
        functions = drawn(part.task)
        assert isinstance(functions, Rescaled)
        own = drawn(tasks[name])
        torch.testing.assert_close(
            functions.loss(functions.initial_parameters, 0), own.loss(own.initial_parameters, 0)
        )
        assert not isinstance(drawn(part.task, "validation"), Rescaled)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": ["globl"]}, "choose from none, global"),
        ({"levels": []}, "choose from none, global"),
        ({"ranges": [[0, 1]]}, "both positive"),
        ({"ranges": [[2, 1]]}, "both positive"),
        ({"ranges": [[1, 2, 3]]}, "both positive"),
        ({"ranges": [["a", 2]]}, "both positive"),
        ({"ranges": []}, "both positive"),
    ],
)
def test_options_out_of_range_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Augmentation(**options)


def test_any_task_takes_it_from_the_command_line(tmp_path: Path) -> None:
    small = "meta_steps=2 unroll.lengths=[3] num_steps=6 validation_functions=2 logger=none"
    words = ["task=quadratic", "opt=nn_adam", "threads=1", *small.split()]
    own = ["task.augment.levels=[tensor]", "task.augment.variants=[{dimension: 3}]"]
    done = l2lgd("meta-train", *words, *own, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    wrong = l2lgd("meta-train", *words, "task.augment.variants=[{dim: 3}]", cwd=tmp_path)
    assert (wrong.returncode, "there is no option task.dim" in wrong.stderr) == (2, True)
