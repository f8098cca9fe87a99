"""What the options of LearnedOptimizer may be, and what becomes of those of other optimizers."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from l2lgd import LearnedOptimizer
from l2lgd.errors import CheckpointError, ConfigError
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
from l2lgd.pretrained import weights
from l2lgd.storage import checkpoint

SHIPPED = weights.SHIPPED / "mnist-lstm.safetensors"


def step(values: torch.Tensor, gradient: torch.Tensor, **options: Any) -> torch.Tensor:
    parameter = nn.Parameter(values.clone())
    optimizer = LearnedOptimizer([parameter], "mnist-lstm", **options)
    parameter.grad = gradient
    optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize(
    "given",
    [
        SHIPPED,
        OmegaConf.create({"w": {"*.bias": "quadratic-lstm", "*": "mnist-lstm"}}).w,
        {"*": SHIPPED},
    ],
    ids=["path", "omegaconf", "mapping of paths"],
)
def test_weights_are_kept_as_plain_types_that_a_checkpoint_can_hold(given: Any) -> None:
    net = nn.Linear(2, 2)
    optimizer = LearnedOptimizer(nn.Sequential(net).named_parameters(), given)
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    found = kept["param_groups"][0]["weights"]
    assert type(found) in (str, dict)
    optimizer.load_state_dict(kept)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"weights": None}, "weights=None: give a name"),
        ({"weights": 3}, "weights=3: give a name"),
        ({"weights": {}}, "give a pattern at least"),
        ({"weights": {"*": None}}, "must be a pattern and a name or path"),
        ({"weights": {1: "mnist-lstm"}}, "must be a pattern and a name or path"),
        ({"lr": "1.0"}, "Invalid learning rate: '1.0'"),
        ({"lr": None}, "Invalid learning rate: None"),
        ({"lr": -1.0}, "Invalid learning rate: -1.0"),
        ({"lr": math.nan}, "Invalid learning rate: nan"),
        ({"lr": math.inf}, "Invalid learning rate: inf"),
        ({"lr": torch.tensor([1.0, 2.0])}, "a tensor of 2 numbers; give one"),
        ({"lr": torch.tensor(-1.0)}, "Invalid learning rate: -1.0"),
        ({"weight_decay": -0.1}, "Invalid weight_decay value: -0.1"),
        ({"weight_decay": "0.1"}, "Invalid weight_decay value: '0.1'"),
        ({"maximize": 1}, "Invalid maximize: 1"),
        ({"skip_zero_gradients": "yes"}, "Invalid skip_zero_gradients: 'yes'"),
        ({"block_size": 0}, "Invalid block_size: 0"),
        ({"block_size": 2.5}, "Invalid block_size: 2.5"),
        ({"block_size": True}, "Invalid block_size: True"),
        ({"state_dtype": torch.int64}, r"Invalid state_dtype: torch\.int64"),
        ({"state_dtype": "halves"}, "Invalid state_dtype: 'halves'"),
    ],
)
def test_what_is_of_no_use_is_refused_in_one_line(option: dict[str, Any], said: str) -> None:
    parameter = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=said) as refused:
        LearnedOptimizer([parameter], **option)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match=said):
        LearnedOptimizer([{"params": [parameter], **option}])


def test_a_rate_in_a_numpy_number_becomes_a_plain_one() -> None:
    import numpy as np

    optimizer = LearnedOptimizer([nn.Parameter(torch.ones(1))], lr=np.float32(0.5))
    assert type(optimizer.param_groups[0]["lr"]) is float


def test_weight_decay_is_that_of_adamw() -> None:
    values, gradient = torch.tensor([1.0, -2.0]), torch.tensor([0.3, 0.4])
    plain = step(values, gradient, lr=0.5)
    decayed = step(values, gradient, lr=0.5, weight_decay=0.1)
    torch.testing.assert_close(decayed, plain - 0.05 * values)
    both = []
    for make in (torch.optim.AdamW, LearnedOptimizer):
        parameter = nn.Parameter(torch.ones(3))
        optimizer = make([parameter], lr=0.0, weight_decay=0.5)
        parameter.grad = torch.ones(3)
        optimizer.step()
        both.append(parameter.detach())
    assert torch.equal(*both)


def test_a_group_may_have_a_decay_of_its_own() -> None:
    one, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = LearnedOptimizer([{"params": [one], "weight_decay": 0.5}, {"params": [other]}])
    one.grad = other.grad = torch.tensor([0.1, -0.1])
    optimizer.step()
    torch.testing.assert_close(other.detach() - one.detach(), torch.full((2,), 0.5))


def test_to_maximize_is_to_minimize_the_negative() -> None:
    values, gradient = torch.tensor([1.0, -2.0]), torch.tensor([0.3, 0.4])
    assert torch.equal(step(values, gradient, maximize=True), step(values, -gradient))


def test_options_of_other_optimizers_are_warned_of_once() -> None:
    parameter = nn.Parameter(torch.ones(2))
    group = {"params": [parameter], "betas": (0.9, 0.99), "nesterov": True}
    with pytest.warns(UserWarning, match="ignores betas, nesterov of a parameter group") as said:
        LearnedOptimizer([group])
    assert len(said) == 1
    assert said[0].filename == __file__


def test_what_schedulers_and_other_libraries_keep_in_groups_is_let_be() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = LearnedOptimizer([{"params": [parameter], "initial_lr": 1.0, "lr_scale": 0.5}])
    torch.optim.lr_scheduler.StepLR(optimizer, 1, last_epoch=3)
    assert optimizer.param_groups[0]["lr_scale"] == 0.5


# -- gradients that are exactly zero --------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist-lstm", "cifar10-lstm_per_group:rest", "neural_art-lstm"])
def test_zero_gradients_can_be_skipped_with_their_states(name: str) -> None:
    gradients = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    gradients[:, 2:] = 0  # never a gradient
    gradients[::2, 0] = 0  # only sometimes
    some, seldom = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(1))
    optimizer = LearnedOptimizer([some, seldom], name, skip_zero_gradients=True, block_size=3)
    alone = LearnedOptimizer([seldom], name)
    for gradient in gradients:
        some.grad, seldom.grad = gradient, None
        optimizer.step()
        if gradient[0]:
            seldom.grad = gradient[:1]
            alone.step()
    assert (some[2:] == 1).all()
    torch.testing.assert_close(some.detach()[:1], seldom.detach())


def test_without_that_weights_that_are_not_odd_move_them() -> None:
    assert (step(torch.zeros(3), torch.zeros(3)) != 0).all()
    assert (step(torch.zeros(3), torch.zeros(3), skip_zero_gradients=True) == 0).all()


def test_odd_weights_leave_zero_gradients_where_they_are() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = LearnedOptimizer([parameter])
    parameter.grad = torch.zeros(3)
    optimizer.step()
    assert (parameter == 1).all()


# -- files of weights -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.tensor(math.nan), "not finite"),
        (torch.tensor(-math.inf), "not finite"),
        (torch.tensor(True), "of torch.bool"),
        (torch.tensor(1), "of torch.int64"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(
    value: torch.Tensor, said: str, tmp_path: Path
) -> None:
    tensors, metadata = checkpoint.load(SHIPPED)
    tensors["output_bias"] = value.reshape(1)
    file = tmp_path / "own.safetensors"
    checkpoint.save(file, tensors, metadata)
    with pytest.raises(CheckpointError, match=f"its output_bias .*{said}") as refused:
        LearnedOptimizer([nn.Parameter(torch.ones(1))], file)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_default_type_of_tensors_does_not_matter(dtype: torch.dtype) -> None:
    expected = step(torch.ones(4), torch.tensor([0.1, 0.2, 0.3, 0.4]))
    parameter = nn.Parameter(torch.ones(4, dtype=torch.float32))
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        optimizer = LearnedOptimizer([parameter], "mnist-lstm")
        parameter.grad = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float32)
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(parameter.detach(), expected)


def test_one_package_that_is_allowed_need_not_be_a_list(tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    metadata = {"opt": {"_target_": "elsewhere.Rule"}}
    checkpoint.save(file, CoordinatewiseLSTM().state_dict(), metadata)
    with pytest.raises(ConfigError, match=r"elsewhere\.Rule cannot be imported"):
        LearnedOptimizer([nn.Parameter(torch.ones(1))], file, allow_targets="elsewhere")
