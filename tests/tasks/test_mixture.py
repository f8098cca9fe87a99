"""The mixture of architectures: its functions are those of the networks alone."""

import math
from typing import Any

import pytest
import torch
from helpers import classifiers, node, quadratics

from l2lgd.config.building import build
from l2lgd.errors import ConfigError
from l2lgd.meta.rollout import rollout, start
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
from l2lgd.seeding import generator
from l2lgd.tasks.augmentation import Rescaled
from l2lgd.tasks.mixture import Padded, PerceptronMixture


def mixture(**changes: Any) -> PerceptronMixture:
    config = node("evaluate", "task", "task=mnist_mixture") | changes
    config["data"]["source"] = "embedded"
    task: PerceptronMixture = build(config, "task")
    task.setup("", torch.device("cpu"), torch.float64)
    return task


def apart() -> list[Any]:
    """Functions of 10 and of 55 coordinates."""
    return [quadratics().select(slice(0, 1)), classifiers().select(slice(1, 2))]


def test_padded_functions_take_the_trajectories_that_they_take_alone() -> None:
    functions = apart()
    n = functions[1].initial_parameters.shape[1]
    lstm = CoordinatewiseLSTM(output_scale=0.01).double()
    together = rollout(start(lstm, Padded(functions, n)), 7)[0]
    for row, function in enumerate(functions):
        alone = rollout(start(lstm, function), 7)[0]
        torch.testing.assert_close(together.losses[:, row], alone.losses[:, 0])
        own = together.gradients[:, row]
        torch.testing.assert_close(own[:, : alone.gradients.shape[2]], alone.gradients[:, 0])
        assert not own[:, alone.gradients.shape[2] :].any()


def test_selected_rows_are_the_same_functions() -> None:
    functions = Padded([*apart(), *apart()], 55)
    point = torch.randn(4, 55, generator=generator(0, "point"), dtype=torch.float64)
    rows = slice(1, 3)
    part = functions.select(rows)
    torch.testing.assert_close(part.loss(point[rows], 3), functions.loss(point, 3)[rows])
    assert part.initial_parameters.equal(functions.initial_parameters[rows])


def test_rescaled_functions_have_gradients_times_c_and_begin_at_the_same_loss() -> None:
    function = classifiers()
    scale = (0.1 + torch.rand(3, 55, generator=generator(0, "c"))).double()
    rescaled = Rescaled(function, scale)
    loss, gradient = function.loss_and_gradient(function.initial_parameters, 0)
    found, own = rescaled.loss_and_gradient(rescaled.initial_parameters, 0)
    torch.testing.assert_close(found, loss)
    torch.testing.assert_close(own, scale * gradient)


def test_only_functions_to_meta_train_on_are_rescaled() -> None:
    task = mixture(rescaling=2.0)
    drawn: Any = {split: task.sample(split, 3, generator(0, split)) for split in ("train", "test")}
    scales = torch.cat([f.scale.flatten() for f in drawn["train"].functions]).log()
    assert -2 <= scales.min() < -1.9
    assert 1.9 < scales.max() <= 2
    assert not any(isinstance(f, Rescaled) for f in drawn["test"].functions)


def test_architectures_are_drawn_from_all_that_the_options_allow() -> None:
    task = mixture(widths=[2, 4], depths=[1, 3], activations=["relu", "tanh"])
    drawn: Any = task.sample("validation", 60, generator(0, "draw"))
    networks = [function.network for function in drawn.functions]
    hidden = {tuple(w[1] for n, w in net.shapes.items() if "weight" in n)[:-1] for net in networks}
    assert hidden == {(width,) * depth for width in (2, 3, 4) for depth in (1, 3)}
    assert {net.activation for net in networks} == {torch.relu, torch.tanh}
    chance = drawn.loss(drawn.initial_parameters, 0)
    torch.testing.assert_close(chance, torch.full_like(chance, math.log(10)), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("activations", ["step"]),
        ("activations", []),
        ("depths", [0]),
        ("widths", [5]),
        ("widths", [6, 5]),
        ("rescaling", -1.0),
    ],
)
def test_options_out_of_range_are_named(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"task.{option}"):
        mixture(**{option: value})
