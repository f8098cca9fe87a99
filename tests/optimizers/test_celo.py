"""Celo against a trace of the authors' program, where this is at hand, and its invariances."""

from typing import Any

import pytest
import torch
from helpers import classifiers, optimizer, run_steps
from published import CELO
from test_mlp import flat, traced, worst
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.meta.estimators.replay import replay
from l2lgd.meta.rollout import rollout, start
from l2lgd.meta.schedules import Unroll
from l2lgd.optimizers.celo import Celo, Scheduler
from l2lgd.optimizers.mlp import MLPRule
from l2lgd.optimizers.observation import Observation

LAYERS = {"direct": "inp", "rectified": "mix", "gates": "lstm", "output": "out"}


def trained(traces: dict[str, Tensor]) -> Celo:
    """With the authors' weights; the third output of their MLP is not used."""
    celo: Celo = optimizer("celo", torch.float32)
    rule: Any = celo.rule
    with torch.no_grad():
        for index, (weight, bias) in enumerate(zip(rule.weights, rule.biases, strict=True)):
            weight.copy_(traces[f"mlp.w{index}"][:, : weight.shape[1]])
            bias.copy_(traces[f"mlp.b{index}"][: len(bias)])
        for mine, theirs in LAYERS.items():
            celo.scheduler.weights[mine].copy_(traces[f"lstm.{theirs}.w"])
            celo.scheduler.biases[mine].copy_(traces[f"lstm.{theirs}.b"])
        celo.scheduler.initial_hidden.copy_(traces["lstm.h0"])
        celo.scheduler.initial_cell.copy_(traces["lstm.c0"])
    return celo


def test_the_scheduler_of_celo() -> None:
    traces = traced("celo.safetensors")
    scheduler, theta = trained(traces).scheduler, torch.zeros(1, 1)
    state, horizon = scheduler.initial_state(theta), traces["horizon"].float()
    with torch.no_grad():
        for step, loss in enumerate(traces["loss"]):
            seen = Observation(theta, loss.reshape(1), step, int(horizon))
            features, *_ = scheduler.loss_features(state, loss.reshape(1, 1), horizon)
            times = scheduler.time_features(seen.number, horizon)
            factor, state = scheduler.step(state, seen)
            # Features are from −1 to 1, where single precision has seven digits.
            for mine, name in ((times, "time_features"), (features, "loss_features")):
                theirs = traces[f"scheduler.{name}"][step]
                torch.testing.assert_close(mine[0], theirs, rtol=0, atol=1e-5)
            found = {"factor": factor, "hidden": state.hidden, "cell": state.cell}
            for name, mine in found.items():
                assert worst(mine, [traces[f"scheduler.{name}"][step, 0]]) < 1e-5, (step, name)


@pytest.mark.parametrize("free", [False, True])
def test_the_steps_of_celo(free: bool) -> None:
    traces = traced("celo.safetensors")
    names = sorted(key.removeprefix("grad.") for key in traces if key.startswith("grad."))
    celo = trained(traces).named({n: tuple(traces[f"grad.{n}"].shape[1:]) for n in names})
    theta = flat([traces[f"param_before.{n}"][0] for n in names])
    state = celo.initial_state(theta)
    for step in range(20):
        if not free:
            theta = flat([traces[f"param_before.{n}"][step] for n in names])
        seen = Observation(theta, traces["loss"][step : step + 1], step, 20)
        gradient = flat([traces[f"grad.{n}"][step] for n in names])
        with torch.no_grad():
            update, state = celo.step(gradient, state, None, seen)
        assert worst(-update, [traces[f"step.{n}"][step] for n in names]) < 2e-5
        theta = theta + update


def test_it_has_as_many_weights_as_celo() -> None:
    """But for those of the authors that have no effect."""
    celo = optimizer("celo")
    unused = 4 + 1  # of the third output of the MLP
    assert sum(weight.numel() for weight in celo.rule.parameters()) == 159 - unused
    dead = 18 * 64 + 64 + 65
    assert sum(weight.numel() for weight in celo.scheduler.parameters()) == 36802 - dead + 128


def test_the_rule_of_the_yaml_file_is_that_of_celo() -> None:
    celo, same = optimizer("celo"), MLPRule(**CELO)
    own, theirs = ({**vars(rule)} for rule in (celo.rule, same))
    for name in ("training", "outputs"):
        own.pop(name, None)
        theirs.pop(name, None)
    plain = {k: v for k, v in theirs.items() if not k.startswith("_")}
    assert {k: own[k] for k in plain} == plain


def factors(scheduler: Scheduler, losses: Tensor, numbers: Any, horizon: Any) -> Tensor:
    """The factor (T, B) at each step, of losses (T, B)."""
    theta = losses.new_zeros(losses.shape[1], 1)
    state, found = scheduler.initial_state(theta), []
    with torch.no_grad():
        for loss, number in zip(losses, numbers, strict=True):
            factor, state = scheduler.step(state, Observation(theta, loss, number, horizon))
            found.append(factor[:, 0])
    return torch.stack(found)


def losses(steps: int = 30, num_functions: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    falling = torch.linspace(3, 1, steps).unsqueeze(1)
    return falling * (1 + 0.1 * torch.rand(steps, num_functions, generator=draw))


def test_numbers_of_steps_may_be_numbers_or_tensors_or_differ_between_functions() -> None:
    scheduler, told = optimizer("celo", torch.float32).scheduler, losses()
    expected = factors(scheduler, told, range(30), 30)
    tensors = [torch.tensor(step) for step in range(30)]
    assert factors(scheduler, told, tensors, torch.tensor(30)).equal(expected)
    rows = [torch.full((3,), step) for step in range(30)]
    found = factors(scheduler, told, rows, torch.full((3,), 30))
    torch.testing.assert_close(found, expected)
    # Each function at a place of its own, as if alone.
    begins, horizons = torch.tensor([0, 5, 11]), torch.tensor([30, 60, 100])
    together = factors(scheduler, told, [begins + step for step in range(30)], horizons)
    for row in range(3):
        begin, horizon = int(begins[row]), int(horizons[row])
        own = told[:, row : row + 1]
        alone = factors(scheduler, own, range(begin, begin + 30), horizon)
        torch.testing.assert_close(together[:, row : row + 1], alone)


def test_a_spike_of_the_loss_counts_no_more_than_twice_the_largest_mean() -> None:
    scheduler, told = optimizer("celo", torch.float32).scheduler, losses()
    found = []
    for spike in (10.0, 1e30):  # both are far above
        with_spike = told.clone()
        with_spike[10] = spike
        found.append(factors(scheduler, with_spike, range(30), 30))
    assert found[0].equal(found[1])
    assert not found[0].allclose(factors(scheduler, told, range(30), 30), rtol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30, -1.0])
@pytest.mark.parametrize("horizon", [1, 7, 100_000])
def test_factors_are_finite_whatever_the_losses(scale: float, horizon: int) -> None:
    scheduler = optimizer("celo", torch.float32).scheduler
    found = factors(scheduler, scale * losses(), range(30), horizon)
    assert found.isfinite().all()
    assert (found > 0).all()


def test_the_first_factor_of_untrained_weights_is_about_a_tenth() -> None:
    (first,) = factors(optimizer("celo", torch.float32).scheduler, losses(1), range(1), 30)
    assert ((first > 0.05) & (first < 0.2)).all()


def test_the_initial_state_gets_a_meta_gradient_from_the_first_unroll_alone() -> None:
    celo, functions = optimizer("celo"), classifiers()
    at = start(celo, functions, horizon=8)
    for expected in (True, False):
        celo.zero_grad(set_to_none=True)
        record, at = rollout(at, 4)
        replay(record, Unroll([4]).objective(8))
        for weight in (celo.scheduler.initial_hidden, celo.scheduler.initial_cell):
            assert (weight.grad != 0).any() == expected


@pytest.mark.parametrize("part", ["rule", "scheduler"])
def test_one_part_can_be_trained_alone(part: str) -> None:
    celo = Celo(optimizer("celo").rule, trained=part).double()
    assert {id(w) for w in celo.phi()} == {id(w) for w in getattr(celo, part).parameters()}
    record, _ = rollout(start(celo, classifiers(), horizon=4), 4, keep_path=True)
    replay(record, Unroll([4]).objective(4))
    for name, weight in celo.named_parameters():
        assert (weight.grad is not None) == name.startswith(part), name


def test_a_rule_that_is_trained_alone_makes_the_steps_of_the_rule() -> None:
    functions = classifiers()
    rule = optimizer("celo").rule
    celo = Celo(rule, trained="rule").double()
    assert celo.observes == rule.observes
    assert run_steps(celo, functions, 5).equal(run_steps(rule, functions, 5))


def test_a_horizon_that_nobody_knows_is_asked_for() -> None:
    celo, functions = optimizer("celo"), classifiers()
    with pytest.raises(ConfigError, match="horizon=STEPS"):
        rollout(start(celo, functions), 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"units": 0}, "units=0: must be positive"),
        ({"trained": "mlp"}, "choose one of all, rule, scheduler"),
        ({"rule": None}, "the _target_ of a learned optimizer"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Celo(**{"rule": MLPRule()} | options)
