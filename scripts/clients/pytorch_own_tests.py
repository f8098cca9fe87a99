"""What PyTorch's test_optim.py asks of every optimizer, asked of LearnedOptimizer.

A function has the name of PyTorch's test, and takes the options of the constructor. It is written
anew after what that test asserts, as PyTorch's wheel has no tests.
"""

import copy
import io
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.testing import assert_close

import l2lgd
from l2lgd import LearnedOptimizer

Options = dict[str, Any]
Problem = tuple[list[nn.Parameter], Callable[[], Tensor]]
SAME = {"rtol": 0, "atol": 0}

INPUTS: list[Options] = [
    {},
    {"lr": 0.1},
    {"lr": torch.tensor(0.1)},
    {"weight_decay": 1e-3},
    {"maximize": True},
    {"maximize": True, "weight_decay": 1e-3},
    {"skip_zero_gradients": True},
    {"state_dtype": torch.bfloat16},
    {"block_size": 7},
    # Not odd functions of the gradient: they move parameters whose gradient is exactly zero.
    {"weights": "mnist-lstm_mixture", "lr": 0.1, "skip_zero_gradients": True},
]
SCHEDULERS: list[list[Callable[[Any], Any]]] = [
    [],
    [lambda optimizer: lr_scheduler.StepLR(optimizer, 10, 0.9)],
    [lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer)],
    [
        lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.99),
        lambda optimizer: lr_scheduler.LinearLR(optimizer, 0.4, total_iters=4),
    ],
]


def problem(seed: int = 0, contiguous: bool = True) -> Problem:
    """Least squares of 60 numbers, and its loss with gradients."""
    torch.manual_seed(seed)
    weight, bias, inputs = torch.randn(10, 5, 2), torch.randn(10, 2), torch.randn(5)
    given = [weight[..., 0], bias[:, 0]]
    parameters = [nn.Parameter(part.clone() if contiguous else part) for part in given]

    def loss() -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        value: Tensor = (parameters[0].mv(inputs) + parameters[1]).pow(2).sum()
        value.backward()
        return value

    return parameters, loss


def goes_right(
    optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], up: bool, *schedulers: Any
) -> None:
    first = loss().item()
    for _ in range(20):
        value = loss()
        optimizer.step()
        for scheduler in schedulers:
            plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
            scheduler.step(value.detach()) if plateau else scheduler.step()
    last = loss().item()
    assert last > first if up else last < first, f"{first} … {last}"


def steps(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], count: int) -> None:
    for _ in range(count):
        loss()
        optimizer.step()


def without_names(state: dict[str, Any]) -> dict[str, Any]:
    groups = [{k: v for k, v in g.items() if k != "param_names"} for g in state["param_groups"]]
    return {**state, "param_groups": groups}


def named(parameters: list[nn.Parameter], names: bool) -> Any:
    return [(f"name{k}", p) for k, p in enumerate(parameters)] if names else parameters


def test_errors(options: Options) -> None:
    if options:
        return
    parameter = nn.Parameter(torch.zeros(2))
    for given, wrong, errors, said in (
        ([parameter], {"lr": -1.0}, ValueError, "learning rate"),
        ([parameter], {"lr": torch.zeros(2)}, (TypeError, ValueError), "give one"),
        ([parameter], {"weight_decay": -1.0}, ValueError, "weight_decay"),
        (parameter, {}, TypeError, "iterable"),
        ([], {}, ValueError, "empty"),
        ([2 * parameter], {}, ValueError, "non-leaf"),
        ([0.5], {}, TypeError, "float"),
        ([{"params": [parameter]}, {"params": [parameter]}], {}, ValueError, "more than one"),
        (
            [("weight", parameter), nn.Parameter(torch.zeros(2))],
            {},
            ValueError,
            "names are missing",
        ),
    ):
        assert said in _refused(given, wrong, errors), f"{wrong}: {said}"


def _refused(given: Any, options: Options, errors: Any) -> str:
    try:
        LearnedOptimizer(given, **options)
    except errors as error:
        return str(error)
    raise AssertionError(f"{options} is not refused")


def test_forloop_goes_right_direction(options: Options) -> None:
    for contiguous, makers in itertools.product([True, False], SCHEDULERS):
        parameters, loss = problem(contiguous=contiguous)
        optimizer = LearnedOptimizer(parameters, **copy.deepcopy(options))
        made = [maker(optimizer) for maker in makers]
        goes_right(optimizer, loss, options.get("maximize", False), *made)


def test_param_group_with_lrscheduler_goes_right_direction(options: Options) -> None:
    for makers in SCHEDULERS:
        parameters, loss = problem()
        groups = [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.01}]
        optimizer = LearnedOptimizer(groups, **copy.deepcopy(options))
        made = [maker(optimizer) for maker in makers]
        goes_right(optimizer, loss, options.get("maximize", False), *made)


def test_tensor_lr(options: Options) -> None:
    found = []
    for lr in (0.1, torch.tensor(0.1)):
        parameters, loss = problem()
        steps(LearnedOptimizer(parameters, **{**options, "lr": lr}), loss, 5)
        found.append(parameters)
    assert_close(*found)


def test_complex(options: Options) -> None:
    torch.manual_seed(0)
    given = [torch.randn(10, 5, dtype=torch.complex64), torch.randn(4)]
    mixed = [nn.Parameter(part.clone()) for part in given]
    reals = [nn.Parameter(_real(part).clone()) for part in given]
    optimizers = [LearnedOptimizer(part, **copy.deepcopy(options)) for part in (mixed, reals)]
    for _ in range(3):
        for one, other in zip(mixed, reals, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = _real(one.grad)
        for optimizer in optimizers:
            optimizer.step()
        assert_close([_real(one) for one in mixed], [p.detach() for p in reals], **SAME)


def _real(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def test_complex_2d(options: Options) -> None:
    torch.manual_seed(0)
    whole = nn.Parameter(torch.randn(2, dtype=torch.complex64))
    parts = [nn.Parameter(part.detach().clone()) for part in (whole.real, whole.imag)]
    optimizers = [LearnedOptimizer(p, **copy.deepcopy(options)) for p in ([whole], parts)]
    for _ in range(3):
        x, y = whole
        whole.grad = None
        ((1 - x) ** 2 + 100 * (y - x**2) ** 2).abs().backward()
        parts[0].grad, parts[1].grad = whole.grad.real.clone(), whole.grad.imag.clone()
        for optimizer in optimizers:
            optimizer.step()
        assert_close([whole.real, whole.imag], parts)


def test_param_groups_weight_decay(options: Options) -> None:
    parameters, loss = problem()
    groups = [
        {"params": parameters[:1], **copy.deepcopy(options)},
        {"params": parameters[1:], **copy.deepcopy(options), "weight_decay": 0.0},
    ]
    goes_right(LearnedOptimizer(groups), loss, options.get("maximize", False))


def test_param_groups_lr(options: Options) -> None:
    parameters, loss = problem()
    still = nn.Parameter(torch.randn(2))
    before = still.detach().clone()
    options = {"lr": 1e-3} | copy.deepcopy(options)
    optimizer = LearnedOptimizer([{"params": parameters, **options}, {"params": [still]}], lr=1e-28)
    still.grad = torch.rand(2)
    goes_right(optimizer, loss, options.get("maximize", False))
    assert_close(still.detach(), before, **SAME)


def test_step_is_noop_when_params_have_no_grad(options: Options) -> None:
    parameters, _ = problem()
    before = [p.detach().clone() for p in parameters]
    LearnedOptimizer(parameters, **copy.deepcopy(options)).step(lambda: torch.tensor([1.0]))
    assert_close([p.detach() for p in parameters], before, **SAME)


def test_step_is_noop_for_zero_grads(options: Options) -> None:
    if options.get("weight_decay"):
        return  # as PyTorch's test
    parameter = nn.Parameter(torch.randn(5, 1))
    before = parameter.detach().clone()
    parameter.grad = torch.zeros_like(parameter)
    LearnedOptimizer([parameter], **copy.deepcopy(options)).step(lambda: torch.tensor([1.0]))
    assert_close(parameter.detach(), before)


def test_optimizer_can_be_printed(options: Options) -> None:
    assert "LearnedOptimizer" in repr(LearnedOptimizer(problem()[0], **options))


def test_state_dict_deterministic(options: Options) -> None:
    for names in itertools.product([True, False], repeat=2):
        parameters, loss = problem()
        optimizer = LearnedOptimizer(named(parameters, names[0]), **copy.deepcopy(options))
        steps(optimizer, loss, 10)
        others, other_loss = problem()
        with torch.no_grad():
            for one, other in zip(parameters, others, strict=True):
                other.copy_(one)
        again = LearnedOptimizer(named(others, names[1]), **copy.deepcopy(options))
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for _ in range(10):
            steps(optimizer, loss, 1)
            steps(again, other_loss, 1)
            assert_close(parameters, others, **SAME)
        states = [without_names(one.state_dict()) for one in (optimizer, again)]
        _assert_equal(*states)
        again.param_groups.extend(again.param_groups)
        groups = [without_names(one.state_dict())["param_groups"][-1] for one in (optimizer, again)]
        _assert_equal(*groups)


def _assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), [other[key] for key in one]
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            _assert_equal(*pair)
    elif isinstance(one, Tensor):
        assert_close(one, other, **SAME)
    else:
        assert one == other


def _convnet() -> tuple[nn.Module, Callable[[], Tensor]]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(4, 2, 1, stride=2), nn.BatchNorm2d(2))
    pictures = torch.rand(1, 4, 16, 16)

    def loss() -> Tensor:
        model.zero_grad()
        value: Tensor = model(pictures).sum()
        value.backward()
        return value

    return model, loss


def test_can_load_older_state_dict(options: Options) -> None:
    model, loss = _convnet()
    optimizer = LearnedOptimizer(model.parameters(), **copy.deepcopy(options))
    steps(optimizer, loss, 3)
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        for name in ("maximize", "weight_decay", "skip_zero_gradients"):
            del group[name]
    optimizer.load_state_dict(state)
    steps(optimizer, loss, 1)


def test_can_load_from_to_named_state_dict(options: Options) -> None:
    for names in itertools.product([True, False], repeat=2):
        model, loss = _convnet()
        made = [
            LearnedOptimizer(
                model.named_parameters() if name else model.parameters(), **copy.deepcopy(options)
            )
            for name in names
        ]
        steps(made[0], loss, 3)
        made[1].load_state_dict(copy.deepcopy(made[0].state_dict()))
        steps(made[1], loss, 1)
        if any(names):
            found = made[1].state_dict()["param_groups"][0]["param_names"]
            assert found == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_save_load_equality_with_weights_only(options: Options) -> None:
    for names in (True, False):
        parameters, loss = problem()
        optimizer = LearnedOptimizer(named(parameters, names), **copy.deepcopy(options))
        steps(optimizer, loss, 3)
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        _assert_equal(torch.load(file, weights_only=True), optimizer.state_dict())


def test_load_nontensor_step(options: Options) -> None:
    parameters, loss = problem()
    optimizer = LearnedOptimizer(parameters, **copy.deepcopy(options))
    steps(optimizer, loss, 3)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(optimizer, loss, 1)


def test_hooks_of_states(options: Options) -> None:
    """test_state_dict_{pre,post,pre_post}_hook, test_load_state_dict_{pre…,post,pre_post}_hook."""
    optimizer = LearnedOptimizer(problem()[0], **copy.deepcopy(options))
    optimizer.register_state_dict_pre_hook(lambda one: one.state.update(test=1))
    assert optimizer.state_dict()["state"]["test"] == 1

    def after(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "had": state["state"].pop("test")}

    optimizer.register_state_dict_post_hook(after)
    state = optimizer.state_dict()
    assert state["had"] == 1
    assert "test" not in state["state"]

    def first(_: Any, state: dict[str, Any]) -> None:
        state["param_groups"][0]["lr"] = 0.002

    def other(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        state = copy.deepcopy(state)
        state["param_groups"][0]["lr"] = 0.003
        return state

    optimizer.register_load_state_dict_pre_hook(first)
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.002
    optimizer.register_load_state_dict_pre_hook(other, prepend=True)
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.002
    optimizer.register_load_state_dict_pre_hook(other)
    optimizer.register_load_state_dict_post_hook(lambda one: one.state.update(loaded=True))
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.003
    assert optimizer.state["loaded"]


def test_hooks_of_steps(options: Options) -> None:
    """test_step_pre_hook, test_step_post_hook, test_step_all_hooks."""
    from torch.optim.optimizer import (
        register_optimizer_step_post_hook,
        register_optimizer_step_pre_hook,
    )

    parameters, _ = problem()
    optimizer = LearnedOptimizer(parameters, **copy.deepcopy(options))
    calls: list[int] = []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: calls.append(0)),
        register_optimizer_step_post_hook(lambda *_: calls.append(5)),
        optimizer.register_step_pre_hook(lambda *_: calls.append(1)),
        optimizer.register_step_post_hook(lambda *_: calls.append(2)),
    ]
    optimizer.step()
    torch.optim.SGD(parameters, 0.1).step()
    optimizer.step()
    assert calls == [0, 1, 2, 5, 0, 5, 0, 1, 2, 5]
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert len(calls) == 10


def test_deepcopy_copies_all_public_attrs(options: Options) -> None:
    parameters, loss = problem()
    optimizer = LearnedOptimizer(parameters, **copy.deepcopy(options))
    steps(optimizer, loss, 3)
    public = [{k for k in vars(o) if k[0] != "_"} for o in (optimizer, copy.deepcopy(optimizer))]
    assert public[0] == public[1]


def test_non_empty_state(options: Options) -> None:
    parameters, loss = problem()
    optimizer = LearnedOptimizer(parameters, **copy.deepcopy(options))
    steps(optimizer, loss, 1)
    assert len(optimizer.state) == 2
    assert all(len(state) > 0 for state in optimizer.state.values())


def test_state_dict_with_cuda_params(options: Options) -> None:
    parameters, loss = problem()
    optimizer = LearnedOptimizer(parameters, **copy.deepcopy(options))
    steps(optimizer, loss, 3)
    state = copy.deepcopy(optimizer.state_dict())
    there = [nn.Parameter(p.detach().cuda()) for p in parameters]
    other = LearnedOptimizer(there, **copy.deepcopy(options))
    other.load_state_dict(state)
    _assert_equal(state, optimizer.state_dict())
    for _ in range(5):
        for one, far in zip(parameters, there, strict=True):
            one.grad = torch.randn_like(one)
            far.grad = one.grad.cuda()
        optimizer.step()
        other.step()
        assert_close([p.detach().cuda() for p in parameters], [p.detach() for p in there])


# Schedulers


def test_schedulers(options: Options) -> None:
    """TestLRScheduler: rates, their states and those of a resumed scheduler are SGD's."""
    if options:
        return
    for name, make in _schedulers():
        rates = []
        for kind in (torch.optim.SGD, LearnedOptimizer):
            optimizer, loss = _two_groups(kind)
            scheduler, found = make(optimizer), []
            for step in range(12):
                if step == 6:  # resumed
                    states = [copy.deepcopy(o.state_dict()) for o in (optimizer, scheduler)]
                    optimizer, loss = _two_groups(kind)
                    scheduler = make(optimizer)
                    optimizer.load_state_dict(states[0])
                    scheduler.load_state_dict(states[1])
                loss()
                optimizer.step()
                plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
                scheduler.step(1.0) if plateau else scheduler.step()
                found.append([float(group["lr"]) for group in optimizer.param_groups])
            rates.append(found)
        assert rates[0] == rates[1], name
        assert len({tuple(rate) for rate in rates[0]}) > 1, f"{name} changes nothing"


def _two_groups(kind: Any) -> tuple[Any, Callable[[], Tensor]]:
    (weight, bias), loss = problem()
    groups = [{"params": [weight]}, {"params": [bias], "lr": torch.tensor(0.5)}]
    return kind(groups, lr=0.05), loss


def _schedulers() -> Iterator[tuple[str, Callable[[Any], Any]]]:
    s = lr_scheduler
    yield "LambdaLR", lambda o: s.LambdaLR(o, lambda epoch: 0.95**epoch)
    yield "MultiplicativeLR", lambda o: s.MultiplicativeLR(o, lambda epoch: 0.9)
    yield "StepLR", lambda o: s.StepLR(o, 3)
    yield "MultiStepLR", lambda o: s.MultiStepLR(o, [2, 5, 9])
    yield "ConstantLR", lambda o: s.ConstantLR(o, 0.5, 5)
    yield "LinearLR", lambda o: s.LinearLR(o, 0.25, 0.6, 4)
    yield "ExponentialLR", lambda o: s.ExponentialLR(o, 0.9)
    yield "PolynomialLR", lambda o: s.PolynomialLR(o, 5, 0.9)
    yield "CosineAnnealingLR", lambda o: s.CosineAnnealingLR(o, 10)
    yield "CosineAnnealingWarmRestarts", lambda o: s.CosineAnnealingWarmRestarts(o, 4)
    yield "CyclicLR", lambda o: s.CyclicLR(o, 0.1, 0.5, 3, cycle_momentum=False)
    yield "OneCycleLR", lambda o: s.OneCycleLR(o, 0.5, 20, cycle_momentum=False)
    yield "ReduceLROnPlateau", lambda o: s.ReduceLROnPlateau(o, patience=2)
    yield "SWALR", lambda o: torch.optim.swa_utils.SWALR(o, 0.01, 5)
    yield (
        "SequentialLR",
        lambda o: s.SequentialLR(o, [s.ConstantLR(o, 0.1), s.ExponentialLR(o, 0.9)], [3]),
    )
    yield (
        "ChainedScheduler",
        lambda o: s.ChainedScheduler([s.LinearLR(o, 0.4, total_iters=3), s.StepLR(o, 4)]),
    )


def test_averages_of_parameters(options: Options) -> None:
    """TestSWAUtils, as far as it concerns an optimizer: AveragedModel beside its steps."""
    model, loss = _convnet()
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = l2lgd.LearnedOptimizer(model.parameters(), **copy.deepcopy(options))
    sums = [torch.zeros_like(p) for p in model.parameters()]
    for _ in range(4):
        steps(optimizer, loss, 1)
        average.update_parameters(model)
        sums = [s + p.detach() / 4 for s, p in zip(sums, model.parameters(), strict=True)]
    assert_close([p.detach() for p in average.module.parameters()], sums)
