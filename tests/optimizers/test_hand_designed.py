"""Hand-designed optimizers against torch.optim on a module, and against Torch7's formulas."""

from typing import Any

import pytest
import torch
from helpers import HAND_DESIGNED, classifiers, optimizer, optimizer_node, quadratics, run_steps
from torch import Tensor, nn
from torch.nn import functional

from l2lgd.errors import ConfigError
from l2lgd.optimizers.hand_designed import HandDesigned

STEPS = 100


def own_optimizer(name: str, parameters: Any) -> torch.optim.Optimizer:
    """PyTorch's optimizer as its user would make it."""
    config = optimizer_node(name)
    kind = getattr(torch.optim, config["algorithm"])
    return kind(parameters, lr=config["learning_rate"], **config["arguments"])


@pytest.mark.parametrize("name", HAND_DESIGNED)
def test_on_quadratics_it_is_torch_optim_on_a_module_of_each(name: str) -> None:
    functions = quadratics()
    stacked = run_steps(optimizer(name), functions, STEPS)
    for row in range(3):
        theta = nn.Parameter(functions.initial_parameters[row].clone())
        own = own_optimizer(name, [theta])
        for step in range(STEPS):
            torch.testing.assert_close(stacked[step, row], theta.data, rtol=1e-9, atol=1e-12)
            residual = functions.matrices[row] @ theta - functions.targets[row]
            own.zero_grad()
            residual.square().sum().backward()
            own.step()


@pytest.mark.parametrize("name", HAND_DESIGNED)
def test_on_classifiers_it_is_torch_optim_on_a_module_of_each(name: str) -> None:
    functions = classifiers()
    stacked = run_steps(optimizer(name), functions, STEPS)
    for row in range(3):
        module = nn.Sequential(nn.Linear(9, 4), nn.Sigmoid(), nn.Linear(4, 3)).double()
        initial = functions.unpack(functions.initial_parameters)
        for layer, part in ((0, module[0]), (1, module[2])):
            part.weight.data = initial[f"layer{layer}.weight"][row].T.clone()
            part.bias.data = initial[f"layer{layer}.bias"][row].clone()
        own = own_optimizer(name, module.parameters())
        for step in range(STEPS):
            pixels, labels = functions.minibatch(step)
            own.zero_grad()
            functional.cross_entropy(module(pixels[row].flatten(1)), labels[row]).backward()
            own.step()
        final = functions.unpack(stacked[-1])
        for layer, part in ((0, module[0]), (1, module[2])):
            torch.testing.assert_close(final[f"layer{layer}.weight"][row].T, part.weight.data)
            torch.testing.assert_close(final[f"layer{layer}.bias"][row], part.bias.data)


def torch7(name: str, functions: Any, rate: float, num_steps: int) -> Tensor:
    """Where Torch7 with its defaults evaluates the loss (paper.md 1.7)."""
    x = functions.initial_parameters
    v, square = torch.zeros_like(x), torch.zeros_like(x)
    visited = []
    for step in range(num_steps):
        ahead = x + 0.9 * v if name == "nag" else x
        visited.append(ahead)
        _, g = functions.loss_and_gradient(ahead, step)
        if name == "sgd":
            x = x - rate * g
        elif name == "nag":
            v = 0.9 * v - rate * g
            x = x + v
        elif name == "rmsprop":
            square = 0.99 * square + 0.01 * g * g
            x = x - rate * g / (square.sqrt() + 1e-8)
        elif name == "adam":
            v, square = 0.9 * v + 0.1 * g, 0.999 * square + 0.001 * g * g
            corrected = rate * (1 - 0.999 ** (step + 1)) ** 0.5 / (1 - 0.9 ** (step + 1))
            x = x - corrected * v / (square.sqrt() + 1e-8)
    return torch.stack(visited)


@pytest.mark.parametrize("name", ["sgd", "nag", "rmsprop", "adam"])
def test_the_four_baselines_are_torch7_with_its_defaults(name: str) -> None:
    functions, rate = quadratics(), optimizer_node(name)["learning_rate"]
    expected = torch7(name, functions, rate, STEPS)
    visited = run_steps(optimizer(name), functions, STEPS - 1)
    # PyTorch adds ε after the bias correction of Adam, Torch7 before it.
    torch.testing.assert_close(visited, expected, rtol=1e-6, atol=1e-6)


def test_without_a_learning_rate_nothing_runs() -> None:
    with pytest.raises(ConfigError, match="learning_rate"):
        HandDesigned("SGD").initial_state(torch.zeros(1, 2))


@pytest.mark.parametrize("algorithm", ["Sgd", "Optimizer2", "lr_scheduler", "Tensor"])
def test_an_algorithm_that_torch_lacks_is_refused(algorithm: str) -> None:
    with pytest.raises(ConfigError, match=algorithm):
        HandDesigned(algorithm, 0.1)


@pytest.mark.parametrize("algorithm", ["LBFGS", "SparseAdam", "Muon", "Adafactor"])
def test_an_algorithm_that_does_not_treat_coordinates_apart_is_refused(algorithm: str) -> None:
    # All B functions share one tensor: such a one would mix them, or not run at all.
    if not hasattr(torch.optim, algorithm):
        pytest.skip(f"this PyTorch has no {algorithm}")
    with pytest.raises(ConfigError, match=algorithm):
        HandDesigned(algorithm, 0.1)


@pytest.mark.parametrize(
    ("rate", "arguments"),
    [(-0.1, {}), (0.0, {}), (0.1, {"momentun": 0.9}), (0.1, {"momentum": -1})],
)
def test_bad_arguments_are_refused(rate: float, arguments: dict) -> None:
    with pytest.raises(ConfigError):
        HandDesigned("SGD", rate, arguments)


@pytest.mark.parametrize("name", HAND_DESIGNED)
def test_a_state_can_be_used_twice(name: str) -> None:
    chosen, functions = optimizer(name), quadratics()
    state = chosen.initial_state(functions.initial_parameters)
    gradient = functions.loss_and_gradient(functions.initial_parameters, 0)[1]
    for _ in range(3):
        (first, following), (second, _) = chosen.step(gradient, state), chosen.step(gradient, state)
        assert first.equal(second)
        state = following


@pytest.mark.parametrize("name", HAND_DESIGNED)
def test_a_step_is_differentiable(name: str) -> None:
    chosen, gradient = optimizer(name), torch.randn(2, 5, dtype=torch.float64)
    state = chosen.initial_state(torch.zeros_like(gradient))
    with torch.no_grad():
        _, state = chosen.step(gradient + 0.1, state)

    def update(x: Tensor) -> Tensor:
        return chosen.step(x, state)[0]

    assert torch.autograd.gradcheck(update, gradient.requires_grad_())
