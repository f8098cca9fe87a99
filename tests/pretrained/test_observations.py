"""``LearnedOptimizer`` shows weights what meta-training showed them, and counts as it did."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import classifiers
from observers import Misled
from torch import Tensor, nn

from l2lgd import LearnedOptimizer
from l2lgd.errors import ConfigError
from l2lgd.meta.rollout import advance, start
from l2lgd.optimizers.base import Optimizer
from l2lgd.optimizers.observation import Observation
from l2lgd.pretrained.weights import load
from l2lgd.storage import checkpoint

STEPS, HORIZON = 5, 7
TARGETS = [
    "observers.Watchful",
    "observers.Apart",
    "observers.PerTensor",
    "l2lgd.optimizers.nn_adam.NNAdam",
    "l2lgd.optimizers.rnnprop.RNNprop",
    "l2lgd.optimizers.mlp.MLPRule",
    "l2lgd.optimizers.celo.Celo",
]
PARTS = {"l2lgd.optimizers.celo.Celo": {"rule": {"_target_": "l2lgd.optimizers.mlp.MLPRule"}}}


def saved(folder: Path, target: str) -> tuple[str, Optimizer]:
    """A file of such weights, and the rule in it."""
    from l2lgd.config.building import build

    node = {"_target_": target} | PARTS.get(target, {})
    rule: Any = build(node, "opt", ["observers"])
    path = folder / "weights.safetensors"
    checkpoint.save(path, rule.state_dict(), {"opt": node})
    return str(path), load(str(path), ["observers"])


class Model(nn.Module):
    """The one function of ``classifiers(1)``, with its tensors for parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.function = classifiers(1, torch.float32)
        found = self.function.unpack(self.function.initial_parameters)
        self.tensors = nn.ParameterList(nn.Parameter(part[0].clone()) for part in found.values())

    def flat(self) -> Tensor:
        return torch.cat([part.flatten() for part in self.tensors]).unsqueeze(0)

    def loss(self, step: int) -> Tensor:
        return self.function.loss(self.flat(), step).sum()


def trained(
    model: Model, optimizer: LearnedOptimizer, steps: range, way: str = "loss"
) -> list[Tensor]:
    visited = []
    for step in steps:
        optimizer.zero_grad()
        loss = model.loss(step)
        loss.backward()
        if way == "closure":
            optimizer.step(lambda loss=loss: loss)  # type: ignore[misc]
        else:
            optimizer.step(loss=loss if way == "loss" else loss.item())
        visited.append(model.flat().detach())
    return visited


@pytest.mark.parametrize("way", ["loss", "number", "closure"])
@pytest.mark.parametrize("target", TARGETS)
def test_steps_are_those_of_meta_training(tmp_path: Path, target: str, way: str) -> None:
    weights, rule = saved(tmp_path, target)
    model = Model()
    optimizer = LearnedOptimizer(
        model.parameters(), weights, horizon=HORIZON, allow_targets=["observers"], block_size=7
    )
    at = start(rule, model.function, horizon=HORIZON)
    for found in trained(model, optimizer, range(STEPS), way):
        at = advance(at)
        torch.testing.assert_close(found, at.parameters, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "order"),
    [
        (nn.Linear(4, 4, bias=False), (1, 0)),
        (nn.Conv2d(3, 3, 3, bias=False), (2, 3, 1, 0)),
        (nn.Conv1d(4, 4, 4, bias=False), (2, 1, 0)),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_weights_of_layers_are_turned_so_that_inputs_and_outputs_come_last(
    tmp_path: Path, layer: Any, order: tuple[int, ...], skip: bool
) -> None:
    weights, rule = saved(tmp_path, "l2lgd.optimizers.mlp.MLPRule")
    layer = copy.deepcopy(layer)
    own = layer.weight.detach().permute(order)
    bound = rule.named({"": tuple(own.shape)})
    theta, draw = own.reshape(1, -1), torch.Generator().manual_seed(0)
    state = bound.initial_state(theta)
    optimizer = LearnedOptimizer(layer.parameters(), weights, skip_zero_gradients=skip)
    for step in range(3):
        layer.weight.grad = torch.randn(layer.weight.shape, generator=draw)
        gradient = layer.weight.grad.permute(order).reshape(1, -1)
        with torch.no_grad():
            seen = Observation(theta, torch.ones(1), step)
            update, state = bound.step(gradient, state, None, seen)  # type: ignore[call-arg]
        theta = theta + update
        optimizer.step()
        found = layer.weight.detach().permute(order).reshape(1, -1)
        torch.testing.assert_close(found, theta)


@pytest.mark.parametrize("target", TARGETS)
def test_a_saved_state_goes_on_to_the_same_bits(tmp_path: Path, target: str) -> None:
    weights, _ = saved(tmp_path, target)
    options: dict[str, Any] = {"horizon": HORIZON, "allow_targets": ["observers"]}
    whole = Model()
    expected = trained(
        whole, LearnedOptimizer(whole.parameters(), weights, **options), range(STEPS)
    )
    first = Model()
    optimizer = LearnedOptimizer(first.parameters(), weights, **options)
    trained(first, optimizer, range(2))
    second = Model()
    second.load_state_dict(first.state_dict())
    again = LearnedOptimizer(second.parameters(), weights, allow_targets=["observers"])
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert trained(second, again, range(2, STEPS))[-1].equal(expected[-1])


def test_a_loss_that_is_observed_must_be_given(tmp_path: Path) -> None:
    weights, _ = saved(tmp_path, "observers.Watchful")
    model = Model()
    optimizer = LearnedOptimizer(model.parameters(), weights, allow_targets=["observers"])
    model.loss(0).backward()
    with pytest.raises(ConfigError, match=r"observe the loss: call step\(loss=loss\)"):
        optimizer.step()


def test_uphill_is_downhill_of_the_negative(tmp_path: Path) -> None:
    weights, _ = saved(tmp_path, "observers.Watchful")
    ends = []
    for sign in (1, -1):
        parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = LearnedOptimizer(
            [parameter], weights, maximize=sign < 0, allow_targets=["observers"]
        )
        for _ in range(3):
            optimizer.zero_grad()
            loss = sign * parameter.square().sum()
            loss.backward()
            optimizer.step(loss=loss)
        ends.append(parameter.detach().clone())
    assert ends[0].equal(ends[1])


@pytest.mark.parametrize("horizon", [0, -1, 1.5, True, "10"])
def test_a_horizon_is_a_number_of_steps(horizon: Any) -> None:
    with pytest.raises(ValueError, match="Invalid horizon"):
        LearnedOptimizer([nn.Parameter(torch.zeros(1))], horizon=horizon)


def watched(folder: Path, dtype: torch.dtype = torch.float32) -> LearnedOptimizer:
    weights, _ = saved(folder, "observers.Watchful")
    parameter = nn.Parameter(torch.ones(2, dtype=dtype))
    parameter.grad = torch.ones_like(parameter)
    return LearnedOptimizer([parameter], weights, allow_targets=["observers"])


@pytest.mark.parametrize(
    "loss", [torch.ones(2), torch.ones(0), [1.0, 2.0], "x", {}, torch.tensor(1j)]
)
def test_a_loss_is_one_number(tmp_path: Path, loss: Any) -> None:
    optimizer = watched(tmp_path)
    with pytest.raises(ConfigError, match=r"the loss of a step is .* must be one number"):
        optimizer.step(loss=loss)
    assert optimizer.param_groups[0]["params"][0].eq(1).all()


@pytest.mark.parametrize("loss", [torch.ones(1, 1), torch.tensor(1), 1, 1.0])
def test_one_number_may_be_of_any_kind(tmp_path: Path, loss: Any) -> None:
    ends = []
    for told in (loss, torch.tensor(1.0)):
        optimizer = watched(tmp_path)
        optimizer.step(loss=told)
        ends.append(optimizer.param_groups[0]["params"][0].detach())
    assert ends[0].equal(ends[1])


def test_a_loss_of_python_keeps_all_its_digits(tmp_path: Path) -> None:
    ends = []
    for loss in (1 / 3, torch.tensor(1 / 3, dtype=torch.float64)):
        optimizer = watched(tmp_path, torch.float64)
        optimizer.step(loss=loss)
        ends.append(optimizer.param_groups[0]["params"][0].detach())
    assert ends[0].equal(ends[1])


def test_steps_are_counted_for_a_rule_that_names_the_horizon_alone(tmp_path: Path) -> None:
    weights, rule = saved(tmp_path, "observers.Falling")
    model = Model()
    optimizer = LearnedOptimizer(
        model.parameters(), weights, horizon=HORIZON, allow_targets=["observers"]
    )
    at = start(rule, model.function, horizon=HORIZON)
    for found in trained(model, optimizer, range(STEPS)):
        at = advance(at)
        torch.testing.assert_close(found, at.parameters, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_observed_is_said(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    node = {"_target_": "observers.Misled"}
    checkpoint.save(path, Misled().state_dict(), {"opt": node})
    with pytest.raises(ConfigError, match=r"Misled\.observes: there is no gradient_norm; choose"):
        LearnedOptimizer([nn.Parameter(torch.zeros(1))], str(path), allow_targets=["observers"])
