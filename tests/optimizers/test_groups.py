"""Optimizers for groups of parameters, against each optimizer on its own tensors."""

from typing import Any

import pytest
import torch
from helpers import HAND_DESIGNED, classifiers, node, optimizer, run_steps, updates
from observers import ByName, Rows
from torch import Tensor

from l2lgd.config.building import build
from l2lgd.errors import ConfigError
from l2lgd.meta.estimators.replay import replay
from l2lgd.meta.estimators.textbook import textbook
from l2lgd.meta.rollout import advance, rollout, start
from l2lgd.meta.schedules import Unroll
from l2lgd.optimizers.bfgs import BFGS
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
from l2lgd.optimizers.groups import Group, Grouped
from l2lgd.optimizers.hand_designed import HandDesigned
from l2lgd.optimizers.mlp import MLPRule
from l2lgd.optimizers.sign_equivariant import SignEquivariant

SHAPES = {"a.weight": (3, 2), "a.bias": (2,), "b.weight": (2, 2), "b.bias": (2,)}
SLICES = {"a.weight": slice(0, 6), "a.bias": slice(6, 8), "b.weight": slice(8, 12)}
SLICES["b.bias"] = slice(12, 14)


def lstm(seed: int) -> CoordinatewiseLSTM:
    learned = CoordinatewiseLSTM(output_scale=0.5).double()
    learned.reset_parameters(torch.Generator().manual_seed(seed))
    return learned


def stream(steps: int = 5, num_functions: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(steps, num_functions, 14, generator=draw, dtype=torch.float64)


def test_each_tensor_is_moved_by_its_own_optimizer() -> None:
    weights, biases, adam = lstm(1), lstm(2), HandDesigned("Adam", 0.05)
    members = {"weights": weights, "biases": biases, "adam": adam}
    groups = [Group("b.bias", "adam"), Group("*.weight", "weights"), Group("*", "biases")]
    found = updates(Grouped(members, groups).named(SHAPES), stream())
    uses = {"a.weight": weights, "a.bias": biases, "b.weight": weights, "b.bias": adam}
    for name, own in uses.items():
        alone = updates(own, stream()[..., SLICES[name]])
        torch.testing.assert_close(found[..., SLICES[name]], alone, rtol=1e-12, atol=1e-15)


def test_one_optimizer_for_all_groups_is_that_optimizer() -> None:
    shared = lstm(1)
    groups = [Group("a.*", "it"), Group("b.weight", "it"), Group("*", "it")]
    grouped = Grouped({"it": shared}, groups)
    torch.testing.assert_close(
        updates(grouped.named(SHAPES), stream()), updates(shared, stream()), rtol=0, atol=0
    )


def test_an_optimizer_that_shares_information_does_so_within_its_groups() -> None:
    shared = CoordinatewiseLSTM(averaging_cells=3).double()
    groups = [Group("*.bias", "shared"), Group("*", "other")]
    found = updates(Grouped({"shared": shared, "other": lstm(2)}, groups).named(SHAPES), stream())
    columns = [6, 7, 12, 13]
    alone = updates(shared, stream()[..., columns])
    torch.testing.assert_close(found[..., columns], alone, rtol=1e-12, atol=1e-15)


def shuffled() -> MLPRule:
    rule = MLPRule().double()
    rule.reset_parameters(torch.Generator().manual_seed(3))
    return rule


SHAPED: dict[str, Any] = {
    "MLP": shuffled,
    "by name": lambda: ByName().double(),
    "a row": lambda: Rows().double(),
}


@pytest.mark.parametrize("inside", ["a group", "a group of a group"])
@pytest.mark.parametrize("name", SHAPED)
def test_a_member_knows_its_own_tensors(name: str, inside: str) -> None:
    rule = SHAPED[name]()
    grouped = Grouped(
        {"it": rule, "other": lstm(2)}, [Group("a.weight", "other"), Group("*", "it")]
    )
    if inside == "a group of a group":
        grouped = Grouped({"inner": grouped}, [Group("*", "inner")])
    own = {name: shape for name, shape in SHAPES.items() if name != "a.weight"}
    found = updates(grouped.named(SHAPES), stream())[..., 6:]
    alone = updates(rule.named(own), stream()[..., 6:])
    torch.testing.assert_close(found, alone, rtol=1e-12, atol=1e-15)


def test_tensors_of_a_member_need_not_lie_side_by_side() -> None:
    rule, adam = shuffled(), HandDesigned("Adam", 0.05)
    grouped = Grouped({"it": rule, "adam": adam}, [Group("*.bias", "adam"), Group("*", "it")])
    found = updates(grouped.named(SHAPES), stream())
    for name in ("a.weight", "b.weight"):
        alone = updates(rule.named({name: SHAPES[name]}), stream()[..., SLICES[name]])
        torch.testing.assert_close(found[..., SLICES[name]], alone, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", SHAPED)
def test_an_odd_function_knows_the_tensors_of_its_optimizer(name: str) -> None:
    rule = SHAPED[name]()
    found = updates(SignEquivariant(rule).named(SHAPES), stream())
    expected = updates(SignEquivariant(rule.named(SHAPES)), stream())
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", SHAPED)
@pytest.mark.parametrize("second_derivatives", [False, True])
def test_members_that_tell_tensors_apart_have_the_meta_gradient_of_the_textbook_loop(
    name: str, second_derivatives: bool
) -> None:
    found = []
    for way in ("replay", "textbook"):
        members = {"it": SHAPED[name](), "lstm": lstm(1)}
        learned = Grouped(members, [Group("layer0.bias", "lstm"), Group("*", "it")])
        at = start(learned, classifiers())
        if way == "replay":
            replay(rollout(at, 4, second_derivatives)[0], Unroll([4]).objective(4))
        else:
            textbook(at, 4, Unroll([4]).objective(4), second_derivatives)
        found.append(torch.cat([weight.grad.flatten() for weight in learned.parameters()]))
    assert (found[0] - found[1]).norm() <= 1e-10 * found[1].norm()


def mixed(hand_designed: str = "nag") -> Grouped:
    """Two learned optimizers and a hand-designed one on the four tensors of the classifiers."""
    groups = [Group("layer0.weight", "first"), Group("*.bias", "second"), Group("*", "third")]
    third = optimizer(hand_designed)
    return Grouped({"first": lstm(1), "second": lstm(2), "third": third}, groups)


@pytest.mark.parametrize("begun", [0, 3])
@pytest.mark.parametrize("hand_designed", HAND_DESIGNED)
@pytest.mark.parametrize("second_derivatives", [False, True])
def test_the_meta_gradient_of_a_mixture_is_that_of_the_textbook_loop(
    second_derivatives: bool, hand_designed: str, begun: int
) -> None:
    found, objective = [], Unroll([6]).objective(12)
    for way in ("replay", "textbook"):
        learned = mixed(hand_designed)
        at = start(learned, classifiers())
        for _ in range(begun):
            at = advance(at)
        if way == "replay":
            record, _ = rollout(at, 6, second_derivatives)
            replay(record, objective)
        else:
            textbook(at, 6, objective, second_derivatives)
        found.append([weight.grad for weight in learned.parameters()])
    largest = max(gradient.norm() for gradient in found[1])
    for fast, slow in zip(*found, strict=True):
        assert (fast - slow).norm() <= 1e-10 * slow.norm() + 1e-14 * largest


def test_a_shared_optimizer_gets_the_meta_gradients_of_all_its_groups() -> None:
    found = []
    for groups in (
        [Group("*", "it")],
        [Group("layer0.weight", "it"), Group("layer1.bias", "it"), Group("*", "it")],
    ):
        learned = Grouped({"it": lstm(1)}, groups)
        record, _ = rollout(start(learned, classifiers()), 5)
        replay(record, Unroll([5]).objective(5))
        found.append([weight.grad for weight in learned.parameters()])
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-13)


def test_one_optimizer_on_two_optimizees_keeps_them_apart() -> None:
    learned, functions = mixed(), classifiers()
    expected = run_steps(learned.named(functions.shapes), functions, 4)
    at = start(learned, functions)
    for _ in range(4):
        at = advance(at)
        updates(learned.named(SHAPES), stream(1))  # as a validation in between
    torch.testing.assert_close(at.parameters, expected[-1])


@pytest.mark.parametrize(
    ("members", "groups", "message"),
    [
        ({"x": lstm(0)}, [Group("*", "y")], "uses y"),
        ({"x": HandDesigned("SGD", 0.1)}, [Group("*", "x")], "learned"),
        ({"x": lstm(0), "y": BFGS(1.0)}, [Group("*", "x")], "BFGS"),
        ({"x": 3}, [Group("*", "x")], "_target_"),
    ],
)
def test_groups_that_make_no_sense_are_refused(
    members: dict, groups: list[Group], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Grouped(members, groups)


def test_a_parameter_that_fits_no_pattern_is_named() -> None:
    grouped = Grouped({"it": lstm(0)}, [Group("a.*", "it")])
    with pytest.raises(ConfigError, match=r"b\.weight fits none of a\.\*"):
        grouped.named(SHAPES)


def test_members_can_be_exchanged_on_the_command_line() -> None:
    options = (
        "task=cifar10",
        "opt@opt.optimizers.rest=adam",
        "opt.optimizers.rest.learning_rate=1",
    )
    grouped = build(node("meta_train", "opt", *options), "opt")
    names = list(dict(grouped.named_parameters()))
    assert names
    assert all(name.startswith("learned.conv.") for name in names)


@pytest.mark.parametrize("task", ["cifar10", "cifar5", "cifar2"])
def test_the_convnets_recommend_two_optimizers(task: str) -> None:
    found = node("evaluate", "opt", f"task={task}")
    assert set(found["optimizers"]) == {"conv", "rest"}
    assert node("evaluate", "opt", f"task={task}", "opt=adam")["algorithm"] == "Adam"


def test_what_is_wrong_inside_a_member_is_found_where_it_is() -> None:
    config = node("meta_train", "opt", "task=cifar10", "opt@opt.optimizers.conv=lstm")
    config["optimizers"]["conv"]["output_scale"] = -1.0
    with pytest.raises(ConfigError, match=r"opt\.optimizers\.conv\.output_scale"):
        build(config, "opt")
    config["optimizers"]["conv"]["_target_"] = "os.system"
    with pytest.raises(ConfigError, match=r"opt\.optimizers\.conv\._target_=os\.system is outside"):
        build(config, "opt")


def test_the_optimizer_of_the_tests_uses_both_groups() -> None:
    learned = optimizer("lstm_per_group")
    functions = classifiers()
    assert len(learned.named(functions.shapes).initial_state(functions.initial_parameters)) == 2


@pytest.mark.parametrize("name", HAND_DESIGNED)
def test_a_coordinate_without_a_gradient_leaves_the_meta_gradient_finite(name: str) -> None:
    chosen, gradient = optimizer(name), stream(1)[0]
    gradient[:, :4] = 0
    state = chosen.initial_state(torch.zeros_like(gradient))
    for _ in range(2):
        after = chosen.step(gradient, state)[1]
        found = chosen.step_back(gradient, state, torch.ones_like(gradient), None)
        assert found.gradient.isfinite().all()
        assert all(part.isfinite().all() for part in found.state.moments)
        assert found.gradient[:, 4:].abs().sum() > 0
        state = after


def test_a_group_smooths_where_all_its_members_do() -> None:
    groups = [Group("a.*", "one"), Group("*", "other")]
    assert Grouped({"one": lstm(1), "other": lstm(2)}, groups).smooths
    assert not Grouped({"one": lstm(1), "other": HandDesigned("Adam", 0.1)}, groups).smooths
