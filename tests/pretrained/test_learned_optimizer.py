"""A trained optimizer as one of PyTorch's: what Adam does, and the trainer's own numbers."""

import copy
import io
import math
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import node, python
from torch import Tensor, nn

import l2lgd
from l2lgd.config.building import build
from l2lgd.errors import CheckpointError, ConfigError, UserError
from l2lgd.optimizers import base
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
from l2lgd.pretrained import weights
from l2lgd.pretrained.learned_optimizer import LearnedOptimizer
from l2lgd.seeding import generator
from l2lgd.storage import checkpoint

Make = Callable[..., torch.optim.Optimizer]


def adam(params: Any, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, **{"lr": 0.01, **options})


BOTH = pytest.mark.parametrize("make", [adam, LearnedOptimizer], ids=["adam", "learned"])


def model(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)


def loss_of(net: nn.Module) -> Tensor:
    own = next(net.parameters())
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(20, 6, generator=draw).to(own)
    return (net(x) - x[:, :3].sin()).square().mean()


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> list[Tensor]:
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(net).backward()
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)


# -- what every optimizer of PyTorch does ---------------------------------------------------------


@BOTH
def test_it_is_an_optimizer_and_minimises(make: Make) -> None:
    net = model()
    before = loss_of(net)
    optimizer = make(net.parameters())
    train(net, optimizer, 30)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert loss_of(net) < before


@BOTH
def test_a_state_goes_round_through_a_file_and_training_goes_on_to_the_same_bits(
    make: Make,
) -> None:
    whole = model()
    expected = train(whole, make(whole.parameters()), 10)
    first = model()
    optimizer = make(first.parameters())
    train(first, optimizer, 4)
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    second = model(seed=7)
    again = make(second.parameters())
    second.load_state_dict(kept["model"])
    again.load_state_dict(kept["optimizer"])
    assert_same(train(second, again, 6), expected)


@BOTH
def test_a_state_dict_can_be_pickled(make: Make) -> None:
    net = model()
    optimizer = make(net.parameters())
    train(net, optimizer, 2)
    state = optimizer.state_dict()
    again = pickle.loads(pickle.dumps(state))
    assert again["param_groups"] == state["param_groups"]
    for index, own in state["state"].items():
        assert_same(list(own.values()), list(again["state"][index].values()))


@BOTH
def test_a_deep_copy_goes_on_alone_and_alike(make: Make) -> None:
    net = model()
    optimizer = make(net.parameters())
    train(net, optimizer, 3)
    twin, its = copy.deepcopy((net, optimizer))
    assert_same(train(twin, its, 3), train(net, optimizer, 3))


@BOTH
def test_an_optimizer_can_be_pickled_with_its_model(make: Make) -> None:
    net = model()
    optimizer = make(net.parameters())
    train(net, optimizer, 2)
    twin, its = pickle.loads(pickle.dumps((net, optimizer)))
    assert_same(train(twin, its, 2), train(net, optimizer, 2))


@BOTH
def test_parameters_without_a_gradient_stay_and_get_no_state(make: Make) -> None:
    net = model()
    frozen = list(net[0].parameters())
    before = [p.detach().clone() for p in frozen]
    optimizer = make(net.parameters())
    loss_of(net).backward()
    for parameter in frozen:
        parameter.grad = None
    optimizer.step()
    assert_same([p.detach() for p in frozen], before)
    assert not any(optimizer.state[p] for p in frozen if p in optimizer.state)
    train(net, optimizer, 1)
    assert not torch.equal(frozen[0], before[0])


@BOTH
def test_nothing_at_all_happens_without_any_gradient(make: Make) -> None:
    net = model()
    before = [p.detach().clone() for p in net.parameters()]
    assert make(net.parameters()).step() is None
    assert_same([p.detach() for p in net.parameters()], before)


@BOTH
def test_a_closure_is_called_with_gradients_and_its_loss_returned(make: Make) -> None:
    net, plain = model(), model()
    optimizer = make(net.parameters())

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = loss_of(net)
        loss.backward()
        return loss

    expected = loss_of(net)
    assert torch.equal(optimizer.step(closure), expected)
    assert_same([p.detach() for p in net.parameters()], train(plain, make(plain.parameters()), 1))


@BOTH
def test_groups_have_options_of_their_own_and_more_can_be_added(make: Make) -> None:
    net = model()
    optimizer = make([{"params": net[0].parameters(), "lr": 0.0}])
    first = [p.detach().clone() for p in net[0].parameters()]
    optimizer.add_param_group({"params": net[2].parameters()})
    train(net, optimizer, 2)
    assert_same([p.detach() for p in net[0].parameters()], first)
    assert len(optimizer.param_groups) == 2
    assert all(optimizer.state[p] for p in net.parameters())
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": net[2].parameters()})


@BOTH
@pytest.mark.parametrize(
    "scheduler",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 0.0 if t else 1.0),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, total_steps=10, cycle_momentum=False),
        lambda o: torch.optim.lr_scheduler.LinearLR(o),
    ],
)
def test_schedulers_of_pytorch_change_the_steps(make: Make, scheduler: Any) -> None:
    net, plain = model(), model()
    optimizer = make(net.parameters())
    schedule = scheduler(optimizer)
    rates = []
    for _ in range(3):
        train(net, optimizer, 1)
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert len(set(rates)) > 1 or rates[0] == 0.0
    reached = [p.detach() for p in net.parameters()]
    straight = train(plain, make(plain.parameters()), 3)
    assert not torch.equal(reached[0], straight[0])
    kept = schedule.state_dict()
    schedule.load_state_dict(kept)


@BOTH
def test_a_plateau_scheduler_and_a_rate_in_a_tensor(make: Make) -> None:
    net = model()
    optimizer = make(net.parameters(), lr=torch.tensor(0.5))
    train(net, optimizer, 1)
    optimizer = make(net.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    for _ in range(3):
        schedule.step(1.0)
    assert optimizer.param_groups[0]["lr"] < 0.5


@BOTH
def test_hooks_run_around_a_step(make: Make) -> None:
    net = model()
    optimizer = make(net.parameters())
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    train(net, optimizer, 1)
    assert seen == ["before", "after"]


@BOTH
def test_hooks_before_loading_can_change_a_state(make: Make) -> None:
    net = model()
    optimizer = make(net.parameters())
    train(net, optimizer, 2)
    other = make(model().parameters())
    seen: list[int] = []

    def unwrap(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        return dict(state["wrapped"])

    def quarters(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        changed = {
            index: {name: torch.full_like(value, 0.25) for name, value in own.items()}
            for index, own in state["state"].items()
        }
        return {**state, "state": changed}

    other.register_load_state_dict_pre_hook(unwrap)
    other.register_load_state_dict_pre_hook(quarters)
    other.register_load_state_dict_post_hook(lambda own: seen.append(len(own.state)))
    other.load_state_dict({"wrapped": optimizer.state_dict()})
    kept = [value for own in other.state.values() for value in own.values()]
    assert all((value == 0.25).all() for value in kept)
    assert seen == [4]


@BOTH
def test_a_negative_rate_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="Invalid learning rate: -1"):
        make(model().parameters(), lr=-1.0)


@BOTH
def test_no_parameters_and_a_state_of_other_groups_are_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="empty parameter list"):
        make([])
    net = model()
    state = make(net.parameters()).state_dict()
    two = make([{"params": net[0].parameters()}, {"params": net[2].parameters()}])
    with pytest.raises((ValueError, CheckpointError)):
        two.load_state_dict(state)


@BOTH
def test_sparse_gradients_are_refused(make: Make) -> None:
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = make(table.parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse gradients"):
        optimizer.step()


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64])
def test_parameters_of_every_type_are_moved_in_their_type(make: Make, dtype: torch.dtype) -> None:
    parameter = nn.Parameter(torch.ones(3, dtype=dtype))
    optimizer = make([parameter], lr=1.0)
    for _ in range(3):
        parameter.grad = torch.full((3,), 0.5, dtype=dtype)
        optimizer.step()
    assert parameter.dtype == dtype
    assert (parameter != 1).all()
    assert torch.view_as_real(parameter).isfinite().all() if parameter.is_complex() else True


@BOTH
def test_shapes_strides_and_empty_tensors_do_not_matter(make: Make) -> None:
    values = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    flat = nn.Parameter(values.flatten().clone())
    turned = nn.Parameter(values.T.contiguous().T)
    number, nothing = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.empty(0))
    assert not turned.is_contiguous()
    optimizer = make([flat, turned, number, nothing])
    for step in range(4):
        gradient = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        flat.grad, turned.grad = gradient.flatten(), gradient.clone()
        number.grad, nothing.grad = torch.tensor(2.0), torch.empty(0)
        optimizer.step()
    torch.testing.assert_close(flat.view(4, 3), turned.detach(), rtol=1e-6, atol=1e-7)
    assert number != 1


@BOTH
@pytest.mark.filterwarnings("ignore")
def test_a_gradient_scaler_and_autocast(make: Make) -> None:
    net, plain = model(), model()
    optimizer, scaler = make(net.parameters()), torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(3):
        optimizer.zero_grad()
        scaler.scale(loss_of(net)).backward()
        scaler.step(optimizer)
        scaler.update()
    expected = train(plain, make(plain.parameters()), 3)
    for parameter, own in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), own, rtol=1e-4, atol=1e-5)
    before = [p.detach().clone() for p in net.parameters()]
    optimizer.zero_grad()
    (scaler.scale(loss_of(net)) * math.inf).backward()
    scaler.step(optimizer)  # an overflow: no step, no state spoilt
    scaler.update()
    assert_same([p.detach() for p in net.parameters()], before)


@BOTH
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model(make: Make) -> None:
    net, plain = model(), model()
    compiled = torch.compile(net, backend="eager")
    optimizer = make(compiled.named_parameters())
    assert_same(train(compiled, optimizer, 3), train(plain, make(plain.parameters()), 3))


@BOTH
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_training_step(make: Make) -> None:
    net, plain = model(), model()
    optimizer, other = make(net.parameters()), make(plain.parameters())
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))

    def step(own: nn.Module, by: torch.optim.Optimizer) -> None:
        by.zero_grad()
        own(x).square().mean().backward()
        by.step()

    compiled = torch.compile(step, backend="eager")
    for _ in range(3):
        compiled(net, optimizer)
        step(plain, other)
    expected = [p.detach() for p in plain.parameters()]
    for parameter, own in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), own)


@BOTH
def test_no_graph_is_built(make: Make) -> None:
    net = model()
    optimizer = make(net.parameters())
    train(net, optimizer, 2)
    kept = [v for own in optimizer.state.values() for v in own.values()]
    assert all(not v.requires_grad and v.grad_fn is None for v in kept if isinstance(v, Tensor))
    assert all(p.grad_fn is None and p.is_leaf for p in net.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@BOTH
def test_models_on_two_devices_and_a_state_that_moves(make: Make) -> None:
    here, there = model(), model().cuda()
    optimizer = make([*here.parameters(), *there.parameters()])
    for _ in range(3):
        optimizer.zero_grad()
        (loss_of(here) + loss_of(there).cpu()).backward()
        optimizer.step()
    for p, q in zip(here.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), q.detach().cpu(), rtol=1e-3, atol=1e-5)
    moved = model().cuda()
    again = make(moved.parameters())
    alone = make(here.parameters())
    train(here, alone, 2)
    again.load_state_dict(alone.state_dict())
    train(moved, again, 1)
    assert all(v.is_cuda for s in again.state.values() for v in s.values() if v.dim())


# -- what is ours ---------------------------------------------------------------------------------


def test_it_is_found_in_the_package() -> None:
    assert l2lgd.LearnedOptimizer is LearnedOptimizer
    with pytest.raises(AttributeError, match="no attribute 'Learned'"):
        _ = l2lgd.Learned


def test_steps_are_those_of_the_trainer_on_mnist(mnist_dir: str) -> None:
    task = build(node("evaluate", "task", "task=mnist"), "task")
    task.setup(mnist_dir, torch.device("cpu"))
    function = task.sample("test", 1, generator(3, "functions"))
    learned = weights.load("mnist-lstm")
    theta = function.initial_parameters.clone()
    state = learned.initial_state(theta)
    parameters = nn.ParameterDict()
    sizes = [math.prod(shape) for shape in function.shapes.values()]
    for name, part in zip(function.shapes, theta[0].split(sizes), strict=True):
        parameters[name.replace(".", "_")] = part.view(function.shapes[name]).clone()
    optimizer = LearnedOptimizer(parameters.values(), weights="mnist-lstm")
    for step in range(100):
        _, gradient = function.loss_and_gradient(theta, step)
        with torch.no_grad():
            update, state = learned.step(gradient, state)
        theta = theta + update
        own = torch.cat([p.detach().reshape(-1) for p in parameters.values()])
        _, gradient = function.loss_and_gradient(own.unsqueeze(0), step)
        for p, part in zip(parameters.values(), gradient[0].split(sizes), strict=True):
            p.grad = part.view_as(p)
        optimizer.step()
    reached = torch.cat([p.detach().reshape(-1) for p in parameters.values()])
    torch.testing.assert_close(reached, theta[0], rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:weights cifar")  # there is no convolution
@pytest.mark.parametrize("name", weights.names())
def test_all_shipped_weights_can_be_used(name: str) -> None:
    net = model()
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = LearnedOptimizer(net.named_parameters(), weights=name)
    after = train(net, optimizer, 3)
    assert all(p.isfinite().all() for p in after)
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))
    state = optimizer.state_dict()
    optimizer.load_state_dict(state)


@pytest.mark.parametrize("name", ["mnist-lstm", "cifar10-lstm_per_group:rest"])
def test_the_size_of_blocks_does_not_matter(name: str) -> None:
    reached = []
    for size in (7, 1000):
        net = model()
        optimizer = LearnedOptimizer(net.parameters(), weights=name, block_size=size)
        reached.append(train(net, optimizer, 5))
    for one, other in zip(*reached, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_state_keeps_the_size_of_its_blocks() -> None:
    net, whole = model(), model()
    optimizer = LearnedOptimizer(net.parameters(), block_size=7)
    train(net, optimizer, 3)
    other = LearnedOptimizer(net.parameters())
    other.load_state_dict(optimizer.state_dict())
    train(net, other, 3)
    expected = train(whole, LearnedOptimizer(whole.parameters(), block_size=7), 6)
    assert_same([p.detach() for p in net.parameters()], expected)


def test_memory_and_rounding_of_a_state_in_bfloat16() -> None:
    net, plain = model(), model()
    optimizer = LearnedOptimizer(net.parameters(), "mnist-lstm", state_dtype=torch.bfloat16)
    train(net, optimizer, 3)
    for parameter in net.parameters():
        kept = optimizer.state[parameter].values()
        assert all(part.dtype == torch.bfloat16 for part in kept)
        assert sum(part.numel() for part in kept) == 2 * 2 * 20 * parameter.numel()
    expected = train(plain, LearnedOptimizer(plain.parameters(), "mnist-lstm"), 3)
    for parameter, own in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), own, rtol=0, atol=0.02)
    again = LearnedOptimizer(net.parameters(), "mnist-lstm")
    again.load_state_dict(optimizer.state_dict())
    assert next(iter(again.state.values()))["hidden_0"].dtype == torch.bfloat16


def test_a_state_keeps_its_precision_over_parameters_of_less() -> None:
    net = model(dtype=torch.bfloat16)
    optimizer = LearnedOptimizer(net.parameters())
    train(net, optimizer, 2)
    state = optimizer.state_dict()
    other = LearnedOptimizer(net.parameters())
    other.load_state_dict(state)
    for parameter in net.parameters():
        for name, value in optimizer.state[parameter].items():
            assert value.dtype == torch.float32
            assert torch.equal(value, other.state[parameter][name])


def test_patterns_choose_weights_by_the_names_of_parameters() -> None:
    net, plain = model(), model()
    rules = {"*.bias": "quadratic-lstm", "*": "mnist-lstm"}
    reached = train(net, LearnedOptimizer(net.named_parameters(), weights=rules), 4)
    groups = [
        {"params": [plain[0].weight, plain[2].weight]},
        {"params": [plain[0].bias, plain[2].bias], "weights": "quadratic-lstm"},
    ]
    assert_same(reached, train(plain, LearnedOptimizer(groups, weights="mnist-lstm"), 4))


def test_several_optimizers_trained_together_go_by_names() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.head = nn.Conv2d(1, 2, 3), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv1(x).flatten(1))

    def net() -> Net:
        torch.manual_seed(0)
        return Net()

    def steps(own: Net, optimizer: torch.optim.Optimizer) -> list[Tensor]:
        for _ in range(3):
            optimizer.zero_grad()
            own(torch.ones(2, 1, 4, 4)).square().sum().backward()
            optimizer.step()
        return [p.detach() for p in own.parameters()]

    one, other = net(), net()
    whole = LearnedOptimizer(one.named_parameters(), weights="cifar10-lstm_per_group")
    rest = [p for name, p in other.named_parameters() if name != "conv1.weight"]
    label = "cifar10-lstm_per_group:{}".format
    groups = [
        {"params": [other.conv1.weight], "weights": label("conv")},
        {"params": rest, "weights": label("rest")},
    ]
    assert_same(steps(one, whole), steps(other, LearnedOptimizer(groups)))


def test_coordinates_that_share_information_are_one_function() -> None:
    gac = weights.load("sharing/mnist-lstm_gac")
    one, other = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))
    optimizer = LearnedOptimizer([one, other], weights="sharing/mnist-lstm_gac")
    theta = torch.zeros(1, 7)
    state = gac.initial_state(theta)
    for step in range(4):
        gradient = torch.randn(1, 7, generator=torch.Generator().manual_seed(step))
        with torch.no_grad():
            update, state = gac.step(gradient, state)
        theta = theta + update
        one.grad, other.grad = gradient[0, :3], gradient[0, 3:].view(2, 2)
        optimizer.step()
    found = torch.cat([one.detach(), other.detach().flatten()])
    torch.testing.assert_close(found, theta[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["lstm_gac", "ntm_lbfgs"])
def test_what_shares_information_leaves_frozen_parameters_where_they_are(name: str) -> None:
    free = nn.Parameter(torch.ones(3))
    frozen = nn.Parameter(torch.ones(4), requires_grad=False)
    optimizer = LearnedOptimizer([free, frozen], weights=f"sharing/mnist-{name}")
    for _ in range(3):
        free.grad = torch.ones(3)
        optimizer.step()
    assert (frozen == 1).all()
    assert (free != 1).all()


def test_a_state_of_a_model_of_another_size_is_refused() -> None:
    large, small = nn.Parameter(torch.ones(500)), nn.Parameter(torch.ones(50))
    optimizer, other = LearnedOptimizer([large]), LearnedOptimizer([small])
    large.grad = torch.ones(500)
    optimizer.step()
    with pytest.raises(ValueError, match="it is of another model"):
        other.load_state_dict(optimizer.state_dict())


def test_where_a_model_is_made_and_autocast_do_not_matter() -> None:
    with torch.device("meta"):
        optimizer = LearnedOptimizer(model().to_empty(device="cpu").parameters())
    rules = optimizer._assignment.optimizers.values()
    assert all(p.device.type == "cpu" for own in rules for p in own.phi())
    for name in ("mnist-lstm", "sharing/mnist-lstm_gac"):
        net, plain = model(), model()
        optimizer = LearnedOptimizer(net.parameters(), weights=name)
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(net).backward()
            with torch.autocast("cpu", torch.bfloat16):
                optimizer.step()
        expected = train(plain, LearnedOptimizer(plain.parameters(), weights=name), 3)
        assert_same([p.detach() for p in net.parameters()], expected)


def test_a_folder_with_the_name_of_shipped_weights_is_not_taken_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mnist-lstm").mkdir()
    monkeypatch.chdir(tmp_path)
    assert weights.find("mnist-lstm").path == weights.SHIPPED / "mnist-lstm.safetensors"
    path = weights.SHIPPED / "mnist-lstm.safetensors"
    assert LearnedOptimizer(model().parameters(), weights=path).param_groups[0]["weights"]


def test_a_state_of_other_weights_is_refused() -> None:
    net = model()
    optimizer = LearnedOptimizer(net.parameters(), weights="mnist-lstm")
    train(net, optimizer, 1)
    other = LearnedOptimizer(net.parameters(), weights="quadratic-lstm")
    with pytest.raises(CheckpointError, match="of weights mnist-lstm, not of quadratic-lstm"):
        other.load_state_dict(optimizer.state_dict())


def test_the_same_weights_from_elsewhere_are_the_same(tmp_path: Path) -> None:
    net = model()
    optimizer = LearnedOptimizer(net.parameters(), weights="mnist-lstm")
    train(net, optimizer, 1)
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes((weights.SHIPPED / "mnist-lstm.safetensors").read_bytes())
    other = LearnedOptimizer(net.parameters(), weights=str(moved))
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["weights"] == str(moved)


def test_mistakes_are_answered_with_the_way_out(tmp_path: Path) -> None:
    net = model()
    pickled = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1)}, pickled)
    foreign = tmp_path / "foreign.safetensors"
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, foreign)
    anonymous = tmp_path / "anonymous.safetensors"
    checkpoint.save(anonymous, {"a": torch.zeros(1)}, {})
    for label, message in (
        ("mnist-lstn", "no weights mnist-lstn ship.*did you mean mnist-lstm"),
        (str(tmp_path / "none.safetensors"), "no checkpoint at"),
        (str(pickled), "is not a readable checkpoint"),
        (str(foreign), "is not a checkpoint of l2lgd"),
        (str(anonymous), "does not say which optimizer"),
        ("mnist-lstm:conv", "have no member conv; they are of a single optimizer"),
        ("cifar10-lstm_per_group:con", "no member con; did you mean conv"),
    ):
        with pytest.raises(CheckpointError, match=message):
            LearnedOptimizer(net.parameters(), weights=label)
    for rules, message in (
        ({"*.bias": "mnist-lstm", "*": "mnist-lstm"}, "need names"),
        ("cifar10-lstm_per_group", "give model.named_parameters"),
    ):
        with pytest.raises(ConfigError, match=message):
            LearnedOptimizer(net.parameters(), weights=rules)
    with pytest.raises(ConfigError, match=r"0.weight fits none of \*.bias"):
        LearnedOptimizer(net.named_parameters(), weights={"*.bias": "mnist-lstm"})
    optimizer = LearnedOptimizer(net[0].parameters())
    with pytest.raises(CheckpointError):
        optimizer.add_param_group({"params": net[2].parameters(), "weights": "none"})
    train(net, optimizer, 1)  # the group that failed has left nothing behind


def test_classes_outside_the_package_need_leave(tmp_path: Path) -> None:
    own = CoordinatewiseLSTM()
    file = tmp_path / "own.safetensors"
    checkpoint.save(file, own.state_dict(), {"opt": {"_target_": "elsewhere.Optimizer"}})
    with pytest.raises(ConfigError, match=r"allow_targets=\[elsewhere\]"):
        LearnedOptimizer(model().parameters(), weights=str(file))


@pytest.mark.parametrize(
    "opt", [{"_target_": "l2lgd.cli.main.main", "arguments": []}, "main", None]
)
def test_a_file_of_weights_cannot_have_anything_called(opt: object, tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    checkpoint.save(file, CoordinatewiseLSTM().state_dict(), {"opt": opt})
    said = "its opt cannot be read|is not a class|has no _target_"
    with pytest.raises(UserError, match=said):
        LearnedOptimizer(model().parameters(), weights=str(file))


def test_names_of_weights_are_those_of_files() -> None:
    found = weights.names()
    assert "mnist-lstm" in found
    assert found.index("quadratic-lstm") < found.index("sharing/mnist-lstm")
    assert {weights.find(name).metadata["licence"] for name in found} == {"Apache-2.0"}
    assert all(isinstance(weights.load(name), base.LearnedRule) for name in found[:3])


PEAK = """
import sys, torch
from pathlib import Path
from l2lgd import LearnedOptimizer

torch.set_num_threads(1)
n, layout = int(sys.argv[1]), sys.argv[2]
values = torch.zeros(n)
if layout == "transposed":
    values = values.view(1000, -1).T
parameter = torch.nn.Parameter(values)
parameter.grad = torch.ones_like(parameter)
small = torch.nn.Parameter(torch.zeros(40000))
small.grad = torch.ones_like(small)
LearnedOptimizer([small]).step()  # whatever is only needed once
optimizer = LearnedOptimizer([parameter])


def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
before = status("VmRSS")
optimizer.step()
state = sum(part.numel() * 4 for part in optimizer.state[parameter].values())
print(status("VmHWM") - before - state)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("layout", ["flat", "transposed"])
def test_memory_beyond_the_state_is_that_of_a_block(layout: str) -> None:
    ran = python("-c", PEAK, "1000000", layout)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 100e6, "a third of the state"
