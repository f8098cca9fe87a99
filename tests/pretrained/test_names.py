"""Which weights take which parameters, whatever has been wrapped around their model."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from l2lgd import LearnedOptimizer
from l2lgd.errors import ConfigError
from l2lgd.pretrained.assignment import unwrapped

GROUPED = "cifar10-lstm_per_group"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.head = nn.Conv2d(1, 2, 3), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.conv1(x).flatten(1))
        return out


class Holder(nn.Module):
    """As Lightning's modules hold a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.model(x)
        return out


def reached(model: nn.Module, weights: str | dict[str, str] = GROUPED) -> list[torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = LearnedOptimizer(model.named_parameters(), weights)
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.ones(2, 1, 4, 4)).square().sum().backward()
            optimizer.step()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        Holder,
        torch.optim.swa_utils.AveragedModel,
        lambda net: nn.DataParallel(Holder(net)),
        lambda net: torch.compile(Holder(net), backend="eager"),
    ],
    ids=["DataParallel", "attribute", "AveragedModel", "both", "compiled"],
)
def test_a_wrapped_model_has_the_optimizers_of_the_model(
    wrap: Callable[[nn.Module], nn.Module],
) -> None:
    expected = reached(Net())
    for one, other in zip(reached(wrap(Net())), expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("module.conv1.weight", "conv1.weight"),
        ("_orig_mod.module.conv1.weight", "conv1.weight"),
        ("_fsdp_wrapped_module.layers.0._checkpoint_wrapped_module.w", "layers.0.w"),
        ("_forward_module.module.head.bias", "head.bias"),
        ("model.conv1.weight", "model.conv1.weight"),
    ],
)
def test_what_wrappers_put_into_names_is_left_out(name: str, bare: str) -> None:
    assert unwrapped(name) == bare


def test_patterns_may_be_of_the_wrapped_names_too() -> None:
    rules = {"module.conv1.*": "mnist-lstm", "*": "quadratic-lstm"}
    plain = {"conv1.*": "mnist-lstm", "*": "quadratic-lstm"}
    for one, other in zip(
        reached(nn.DataParallel(Net()), rules), reached(Net(), plain), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("weights", "pattern"),
    [
        ({"*.bais": "quadratic-lstm", "*": "mnist-lstm"}, r"\*\.bais"),
        ({"*conv*": f"{GROUPED}:conv", "*": f"{GROUPED}:rest"}, r"\*conv\*"),
        (GROUPED, r"conv\*\.weight"),
    ],
)
def test_a_pattern_that_no_parameter_fits_is_warned_of_once(
    weights: str | dict[str, str], pattern: str
) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = LearnedOptimizer(net.named_parameters(), weights)
    net(torch.ones(1, 2)).sum().backward()
    with pytest.warns(UserWarning, match=f"no parameter's name fits {pattern}"):
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()


def test_patterns_that_parameters_of_another_group_fit_are_not() -> None:
    net = Net()
    rules = {"*.bias": "quadratic-lstm", "*": "mnist-lstm"}
    named = list(net.named_parameters())
    groups = [
        {"params": [item for item in named if (".bias" in item[0]) == bias]} for bias in (0, 1)
    ]
    optimizer = LearnedOptimizer(groups, rules)
    net(torch.ones(2, 1, 4, 4)).sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()


# -- groups that are changed by hand --------------------------------------------------------------


def gradients(parameters: list[nn.Parameter], step: int) -> None:
    for index, parameter in enumerate(parameters):
        draw = torch.Generator().manual_seed(100 * step + index)
        parameter.grad = torch.randn(parameter.shape, generator=draw)


def test_an_appended_parameter_moves() -> None:
    first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    optimizer = LearnedOptimizer([first])
    optimizer.param_groups[0]["params"].append(second)
    gradients([first, second], 0)
    optimizer.step()
    assert (second != 1).all()
    optimizer.load_state_dict(optimizer.state_dict())


def test_a_parameter_that_is_put_first_leaves_the_others_their_states_and_weights() -> None:
    rules = {"0.*": "mnist-lstm", "*": "quadratic-lstm"}

    def run(put_first: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        own = list(net.parameters())
        optimizer = LearnedOptimizer(net.named_parameters(), rules)
        for step in range(4):
            if step == 2 and put_first:
                group = optimizer.param_groups[0]
                group["params"].insert(0, nn.Parameter(torch.ones(2)))
                group["param_names"].insert(0, "new.weight")
            gradients(own, step)
            optimizer.step()
        return [p.detach() for p in own]

    for one, other in zip(run(put_first=False), run(put_first=True), strict=True):
        assert torch.equal(one, other)


def test_a_parameter_without_a_name_among_named_ones_is_refused_with_the_way_out() -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    optimizer = LearnedOptimizer(
        net.named_parameters(), {"*.bias": "mnist-lstm", "*": "quadratic-lstm"}
    )
    new = nn.Parameter(torch.ones(2))
    optimizer.param_groups[0]["params"].append(new)
    gradients([new], 0)
    with pytest.raises(ConfigError, match="patterns of weights need names"):
        optimizer.step()


def test_a_parameter_that_is_taken_out_stays_where_it_is() -> None:
    first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    optimizer = LearnedOptimizer([first, second])
    optimizer.param_groups[0]["params"].pop(0)
    gradients([first, second], 0)
    optimizer.step()
    assert (first == 1).all()
    assert (second != 1).all()
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": [first]})
    optimizer.step()
    assert (first != 1).all()
    optimizer.param_groups.pop()
    optimizer.step()
    del optimizer.state[first]  # as with Adam
    optimizer.load_state_dict(optimizer.state_dict())


def test_pruning_with_the_state_is_as_if_the_rest_had_been_alone() -> None:
    """As Gaussian splatting prunes points: a new parameter, and the state indexed alike."""
    keep = torch.tensor([True, False, True, True])
    whole, alone = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(3, 3))
    optimizer = LearnedOptimizer([{"params": [whole], "name": "points"}])
    other = LearnedOptimizer([alone])
    for step in range(4):
        if step == 2:
            group = optimizer.param_groups[0]
            stored = optimizer.state.pop(whole)
            whole = nn.Parameter(whole.detach()[keep])
            group["params"][0] = whole
            optimizer.state[whole] = {name: value[keep] for name, value in stored.items()}
        draw = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        whole.grad = draw if step < 2 else draw[keep]
        alone.grad = draw[keep]
        optimizer.step()
        other.step()
    assert torch.equal(whole.detach(), alone.detach())


def test_growing_with_the_state_begins_the_new_points_anew() -> None:
    """As it clones points: the state of new ones is zero, which is an LSTM's first."""
    points, alone = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(1, 3))
    optimizer, other = LearnedOptimizer([points]), LearnedOptimizer([alone])
    points.grad = torch.ones(2, 3)
    optimizer.step()
    stored = optimizer.state.pop(points)
    points = nn.Parameter(torch.cat((points.detach(), torch.ones(1, 3))))
    optimizer.param_groups[0]["params"][0] = points
    optimizer.state[points] = {
        name: torch.cat((value, torch.zeros_like(value[:1]))) for name, value in stored.items()
    }
    points.grad, alone.grad = torch.ones(3, 3), torch.ones(1, 3)
    optimizer.step()
    other.step()
    assert torch.equal(points.detach()[2:], alone.detach())


def test_a_size_that_has_changed_without_the_state_is_said() -> None:
    parameter = nn.Parameter(torch.ones(4))
    optimizer = LearnedOptimizer([parameter])
    gradients([parameter], 0)
    optimizer.step()
    parameter.data = parameter.data[:3]
    gradients([parameter], 1)
    with pytest.raises(ValueError, match="was cut or grown without its state"):
        optimizer.step()
