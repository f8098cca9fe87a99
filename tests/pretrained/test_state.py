"""The state of LearnedOptimizer: its shape, who else keeps things there, and older versions'."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import return_and_correct_aliasing

from l2lgd import LearnedOptimizer
from l2lgd.errors import CheckpointError
from l2lgd.optimizers.base import LearnedRule
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
from l2lgd.pretrained.layout import Layout

SHARING = ("sharing/mnist-lstm_gac", "sharing/mnist-ntm_lbfgs", "sharing/quadratic-ntm_bfgs")
# States and parameters after three and six steps, as LearnedOptimizer of commit 2d687aa made them
# with block_size=4 and the gradients of _grow.
OLD = Path(__file__).parent / "states_of_0_1.pt"


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(4))]


def _grow(own: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        draw = torch.Generator().manual_seed(step)
        for parameter in own:
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step()


@pytest.mark.parametrize("name", ["mnist-lstm", "cifar10-lstm_per_group:rest", *SHARING])
def test_state_tensors_begin_with_the_shape_of_their_parameter(name: str) -> None:
    own = parameters()
    optimizer = LearnedOptimizer(own, name)
    _grow(own, optimizer, range(2))
    for parameter in own:
        kept = optimizer.state[parameter]
        assert "hidden_0" in kept or "controller_hidden_0" in kept
        for value in kept.values():
            assert value.shape[: parameter.dim()] == parameter.shape


@pytest.mark.parametrize("name", ["mnist-lstm", *SHARING])
def test_a_state_in_another_memory_order_is_the_same_state(name: str) -> None:
    one, other = parameters(), parameters()
    optimizer, laid_out = LearnedOptimizer(one, name), LearnedOptimizer(other, name)
    for own, of in ((one, optimizer), (other, laid_out)):
        _grow(own, of, range(2))
    for kept in laid_out.state.values():
        for key, value in kept.items():
            strange = torch.empty(value.shape[::-1]).permute(*reversed(range(value.dim())))
            kept[key] = strange.copy_(value)
    for own, of in ((one, optimizer), (other, laid_out)):
        _grow(own, of, range(2, 4))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "name", ["mnist-lstm", "cifar10-lstm_per_group:rest", SHARING[0], SHARING[2]]
)
def test_a_state_of_an_older_version_goes_on_as_it_did_there(name: str) -> None:
    stored = torch.load(OLD, weights_only=True)[name]
    own = [nn.Parameter(value.clone()) for value in stored["parameters"]]
    optimizer = LearnedOptimizer(own, name)
    optimizer.load_state_dict(stored["state"])
    _grow(own, optimizer, range(3, 6))
    for found, expected in zip(own, stored["after"], strict=True):
        torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=1e-6)
    optimizer.load_state_dict(optimizer.state_dict())


def test_an_older_state_of_another_model_is_refused() -> None:
    stored = torch.load(OLD, weights_only=True)["mnist-lstm"]
    other = [nn.Parameter(torch.zeros(3, 3)), nn.Parameter(torch.zeros(4))]
    with pytest.raises(ValueError, match="of another model"):
        LearnedOptimizer(other, "mnist-lstm").load_state_dict(stored["state"])


def test_what_others_keep_in_a_state_is_theirs() -> None:
    """As the Lookahead of timm and others keep a slow copy of each parameter."""
    own, plain = parameters(), parameters()
    optimizer, alone = LearnedOptimizer(own), LearnedOptimizer(plain)
    _grow(plain, alone, range(4))
    optimizer.state[own[0]]["looked_at"] = 3  # before there is a state of ours
    _grow(own, optimizer, range(2))
    for parameter in own:
        optimizer.state[parameter]["slow_buffer"] = parameter.detach().clone()
    kept = copy.deepcopy(optimizer.state_dict())
    again = LearnedOptimizer(own)
    again.load_state_dict(kept)
    assert torch.equal(again.state[own[1]]["slow_buffer"], own[1].detach())
    assert again.state[own[0]]["looked_at"] == 3
    _grow(own, again, range(2, 4))
    for one, other in zip(own, plain, strict=True):
        assert torch.equal(one.detach(), other.detach())


@pytest.mark.parametrize("other", [torch.optim.Adam, torch.optim.SGD])
def test_a_state_of_another_optimizer_is_named_so(other: Any) -> None:
    own = parameters()
    optimizer = other(own, lr=0.1)
    _grow(own, optimizer, range(1))
    with pytest.raises(CheckpointError, match="the state is of another optimizer"):
        LearnedOptimizer(own).load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("name", ["mnist-lstm", *SHARING])
def test_every_parameter_has_a_state_as_distributed_checkpoints_want(name: str) -> None:
    from torch.distributed.checkpoint import state_dict as distributed

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    own = list(net.parameters())
    optimizer = LearnedOptimizer(own, name)
    _grow(own, optimizer, range(2))
    stored = copy.deepcopy(distributed.get_optimizer_state_dict(net, optimizer))
    before = [p.detach().clone() for p in own]
    _grow(own, optimizer, range(2, 4))
    expected = [p.detach().clone() for p in own]
    other = LearnedOptimizer(own, name)
    with torch.no_grad():
        for parameter, value in zip(own, before, strict=True):
            parameter.copy_(value)
    distributed.set_optimizer_state_dict(net, other, stored)
    _grow(own, other, range(2, 4))
    for one, value in zip(own, expected, strict=True):
        assert torch.equal(one.detach(), value)


# -- tensors that are not plain -------------------------------------------------------------------


class Wrapped(Tensor):
    """A tensor whose numbers are another's, as quantised and sharded ones are."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Wrapped":
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls,
            inner.shape,
            strides=inner.stride(),
            dtype=inner.dtype,
            device=inner.device,
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch.utils._pytree import tree_map_only

        kwargs = kwargs or {}
        plain_args, plain_kwargs = tree_map_only(Wrapped, lambda t: t.inner, (args, kwargs))
        out = tree_map_only(Tensor, Wrapped, func(*plain_args, **plain_kwargs))
        return return_and_correct_aliasing(func, args, kwargs, out)


def test_a_subclass_without_an_address_takes_the_way_of_pytorch() -> None:
    own, plain = parameters(), parameters()
    wrapped = [nn.Parameter(Wrapped(p.detach().clone())) for p in own]
    optimizer, alone = LearnedOptimizer(wrapped), LearnedOptimizer(plain)
    _grow(plain, alone, range(3))
    for step in range(3):
        draw = torch.Generator().manual_seed(step)
        for parameter in wrapped:
            parameter.grad = Wrapped(torch.randn(parameter.shape, generator=draw))
        optimizer.step()
    for one, other in zip(wrapped, plain, strict=True):
        torch.testing.assert_close(one.detach().inner, other.detach(), rtol=1e-5, atol=1e-6)


def test_meta_tensors_are_stepped_without_numbers() -> None:
    own = [nn.Parameter(torch.zeros(3, 2, device="meta"))]
    optimizer = LearnedOptimizer(own)
    own[0].grad = torch.zeros(3, 2, device="meta")
    optimizer.step()
    assert optimizer.state[own[0]]["hidden_0"].device.type == "meta"


def test_fake_tensors_are_refused_in_one_line() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        fake = nn.Parameter(mode.from_tensor(torch.zeros(3)))
        with pytest.raises(RuntimeError, match="cannot be made in fake mode"):
            LearnedOptimizer([fake])
    optimizer = LearnedOptimizer([fake])
    fake.grad = mode.from_tensor(torch.zeros(3))
    with pytest.raises(RuntimeError, match="cannot step fake tensors"):
        optimizer.step()


def test_a_gradient_with_a_negative_view_has_its_sign() -> None:
    values = torch.tensor([0.5 + 0.25j, 1.0 - 2.0j])
    one, other = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer, plain = LearnedOptimizer([one]), LearnedOptimizer([other])
    one.grad = values.conj().imag
    assert one.grad.is_neg()
    other.grad = one.grad.clone().resolve_neg()
    optimizer.step()
    plain.step()
    assert torch.equal(one.detach(), other.detach())


# -- rules of one's own ---------------------------------------------------------------------------


class Measuring(CoordinatewiseLSTM):
    """Its state has a number that counts nothing."""

    def initial_state(self, parameters: Tensor) -> Any:
        return (super().initial_state(parameters), 0.3)


class Odd(LearnedRule[Tensor]):
    """Its state is not a multiple of n."""

    def initial_state(self, parameters: Tensor) -> Tensor:
        return parameters.new_zeros(parameters.shape[1] + 1)

    def step(self, gradient: Tensor, state: Tensor, width: Any = None) -> Any:
        raise NotImplementedError

    def reset_parameters(self, generator: torch.Generator) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("rule", "said"), [(Measuring(), "part of type float"), (Odd(), "must be multiples of them")]
)
def test_a_state_that_cannot_be_kept_with_parameters_is_said(rule: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Layout(rule, torch.device("cpu"), torch.float32)
