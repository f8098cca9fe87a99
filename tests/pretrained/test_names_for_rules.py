"""Names and shapes of parameters reach the rule in ``LearnedOptimizer``, and states by tensor."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import observers
import pytest
import torch
from helpers import classifiers
from torch import Tensor, nn

from l2lgd import LearnedOptimizer
from l2lgd.errors import ConfigError
from l2lgd.meta.rollout import advance, start
from l2lgd.optimizers.base import LearnedRule
from l2lgd.optimizers.celo import Celo
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
from l2lgd.optimizers.mlp import MLPRule
from l2lgd.optimizers.sign_equivariant import SignEquivariant
from l2lgd.pretrained.assignment import Assignment
from l2lgd.pretrained.layout import Layout
from l2lgd.pretrained.placing import Steppers
from l2lgd.storage import checkpoint

RULES = ["ByName", "ByNameAlone", "ByNameEverywhere", "Rows", "WithMomentum"]
STEPS = 4


def weights(folder: Path, kind: str) -> tuple[str, Any]:
    """A file of such weights, and the rule in it."""
    rule = getattr(observers, kind)()
    path = folder / f"{kind}.safetensors"
    checkpoint.save(path, rule.state_dict(), {"opt": {"_target_": f"observers.{kind}"}})
    return str(path), rule


def model() -> tuple[Any, dict[str, nn.Parameter]]:
    """One function, and its tensors by their names."""
    function = classifiers(1, torch.float32)
    found = function.unpack(function.initial_parameters)
    return function, {name: nn.Parameter(part[0].clone()) for name, part in found.items()}


def walk(
    optimizer: LearnedOptimizer, function: Any, own: dict[str, nn.Parameter], steps: range
) -> list[Tensor]:
    visited = []
    for step in steps:
        optimizer.zero_grad()
        flat = torch.cat([part.flatten() for part in own.values()]).unsqueeze(0)
        function.loss(flat, step).sum().backward()
        optimizer.step()
        visited.append(torch.cat([part.detach().flatten() for part in own.values()]))
    return visited


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("kind", RULES)
def test_steps_are_those_of_meta_training(
    tmp_path: Path, kind: str, wrapper: str, skip: bool
) -> None:
    path, rule = weights(tmp_path, kind)
    function, own = model()
    optimizer = LearnedOptimizer(
        [(wrapper + name, part) for name, part in own.items()],
        path,
        allow_targets=["observers"],
        skip_zero_gradients=skip,
        block_size=7,
    )
    at = start(rule, function)
    for found in walk(optimizer, function, own, range(STEPS)):
        at = advance(at)
        torch.testing.assert_close(found, at.parameters[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("kind", RULES)
def test_a_saved_state_goes_on_to_the_same_bits(
    tmp_path: Path, kind: str, dtype: torch.dtype | None
) -> None:
    path, _ = weights(tmp_path, kind)
    options: dict[str, Any] = {"allow_targets": ["observers"], "state_dtype": dtype}
    function, whole = model()
    optimizer = LearnedOptimizer(whole.items(), path, **options)
    walk(optimizer, function, whole, range(2))
    _, second = model()
    with torch.no_grad():
        for name, part in second.items():
            part.copy_(whole[name])
    again = LearnedOptimizer(second.items(), path, **options)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    expected = walk(optimizer, function, whole, range(2, STEPS))[-1]
    assert walk(again, function, second, range(2, STEPS))[-1].equal(expected)


def steps_of(path: str, named: Any, count: int = 3) -> LearnedOptimizer:
    optimizer = LearnedOptimizer(named, path, allow_targets=["observers"])
    for _ in range(count):
        for group in optimizer.param_groups:
            for part in group["params"]:
                part.grad = torch.ones_like(part)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("kind", RULES)
def test_tensors_of_one_shape_are_told_apart_by_their_names(tmp_path: Path, kind: str) -> None:
    path, _ = weights(tmp_path, kind)
    weight, bias = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    steps_of(path, [("a.weight", weight), ("a.bias", bias)])
    assert weight.abs().min() > 0
    torch.testing.assert_close(bias.detach(), weight.detach() / 2)


@pytest.mark.parametrize("kind", RULES)
def test_parameters_without_names_are_stepped(tmp_path: Path, kind: str) -> None:
    path, _ = weights(tmp_path, kind)
    own = [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(3))]
    steps_of(path, own)
    assert all(part.abs().min() > 0 for part in own)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["module.a.weight", "_orig_mod.b"], ("a.weight", "b")),
        (["module.a", "a"], ("module.a", "a")),
        (None, ("0", "1")),
    ],
)
def test_names_to_a_rule_are_those_without_wrappers(
    given: Sequence[str] | None, names: tuple[str, ...]
) -> None:
    own = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))]
    assignment = Assignment([])
    assignment.optimizers["x"] = observers.Rows()
    group = {"params": own, "param_names": given, "weights": "x"}
    (function,) = assignment.functions(group)
    assert function.names == names


def test_a_parameter_that_joins_does_not_reset_the_others(tmp_path: Path) -> None:
    path, _ = weights(tmp_path, "ByName")
    first, second = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    optimizer = steps_of(path, [("a", first)], 2)
    kept = optimizer.state[first]["a"].clone()
    group = optimizer.param_groups[0]
    group["params"].append(second)
    group["param_names"].append("b")
    for part in (first, second):
        part.grad = 2 * torch.ones_like(part)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[first]["a"], 0.9 * kept + 0.1 * 4)


@pytest.mark.parametrize(
    "rule",
    [
        CoordinatewiseLSTM(),
        SignEquivariant(CoordinatewiseLSTM()),
        Celo(CoordinatewiseLSTM()),
        CoordinatewiseLSTM(averaging_cells=2),
    ],
)
def test_rules_that_do_not_tell_tensors_apart_have_one_stepper(rule: LearnedRule) -> None:
    found = _steppers(rule)
    assert found[0] is found[1]


@pytest.mark.parametrize("rule", [MLPRule(), SignEquivariant(MLPRule()), observers.ByNameAlone()])
def test_rules_that_do_have_one_for_each(rule: LearnedRule) -> None:
    found = _steppers(rule)
    assert found[0] is not found[1]


def _steppers(rule: LearnedRule) -> list[Any]:
    assignment = Assignment([])
    assignment.optimizers["x"] = rule
    steppers = Steppers(assignment)
    own = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))]
    found = []
    for names in (["a", "b"], ["c", "d"]):
        group = {"params": own, "param_names": names, "weights": "x"}
        found.append(steppers.on(assignment.functions(group)[0], own[:1]))
    return found


def test_a_tensor_for_every_parameter_tensor_goes_along_no_coordinate() -> None:
    shapes = {"a": (3, 2), "b": (2,)}
    cpu = torch.device("cpu")
    entries = {
        e.name: e for e in Layout(observers.WithMomentum(), cpu, torch.float32, shapes).entries
    }
    assert {name: entry.axis for name, entry in entries.items()} == {
        "momentum": 1,
        "sizes_a": None,
        "sizes_b": None,
    }


def test_parts_of_a_state_that_would_have_one_name_are_said() -> None:
    class Twice(observers.PerTensor):
        def initial_state(self, parameters: Tensor) -> Any:
            return {"a": {"b": parameters.clone()}, "a_b": parameters.clone()}

    with pytest.raises(ConfigError, match="two parts that would be called a_b"):
        Layout(Twice(), torch.device("cpu"), torch.float32)
