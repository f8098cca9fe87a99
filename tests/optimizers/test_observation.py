"""What a rule sees besides the gradient: θ, f(θ), t and T, in every loop that calls it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import classifiers, quadratics
from observers import Kept, Misled, Watchful
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.meta.diverged import finite_functions, without
from l2lgd.meta.estimators.replay import Replay, replay
from l2lgd.meta.estimators.textbook import textbook
from l2lgd.meta.evaluator import Evaluator
from l2lgd.meta.rollout import rollout, start
from l2lgd.meta.schedules import Unroll
from l2lgd.meta.trainer import MetaSettings, Trainer
from l2lgd.optimizers.base import like_state, map_state, tensors_of
from l2lgd.optimizers.celo import Celo
from l2lgd.optimizers.groups import Group, Grouped
from l2lgd.optimizers.sign_equivariant import SignEquivariant
from l2lgd.optimizers.vectorised import stack
from l2lgd.storage import checkpoint
from l2lgd.tasks.quadratic import QuadraticTask
from l2lgd.tracking.tracker import NullTracker

STEPS, HORIZON = 6, 9


def grouped() -> Grouped:
    members = {"one": Watchful(), "rest": Watchful()}
    return Grouped(members, [Group("*0*", "one"), Group("*", "rest")])


class InBlocks(Watchful):
    def blocks(self, num_functions: int, n: int, size: int) -> list[tuple[slice, slice]]:
        half = n // 2
        columns = (slice(0, half), slice(half, n))
        return [(slice(b, b + 1), part) for b in range(num_functions) for part in columns]


RULES = {
    "whole": Watchful,
    "in blocks": InBlocks,
    "in groups": grouped,
    "made odd": lambda: SignEquivariant(Watchful()),
    "scheduled": lambda: Celo(Watchful(), units=3),
}
OPTIMIZEES = {"quadratics": quadratics, "classifiers": classifiers}


def meta_gradient(rule: Any, optimizee: Any, second: bool, way: str, state_bytes: int) -> Tensor:
    rule.zero_grad(set_to_none=True)
    objective = Unroll([STEPS]).objective(STEPS)
    at = start(rule, optimizee, horizon=HORIZON)
    if way == "textbook":
        textbook(at, STEPS, objective, second)
    else:
        replay(rollout(at, STEPS, second, state_bytes)[0], objective)
    return torch.cat(
        [
            (torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten()
            for weight in rule.parameters()
        ]
    )


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("optimizee", OPTIMIZEES)
@pytest.mark.parametrize("name", RULES)
def test_replay_equals_the_textbook_loop(name: str, optimizee: str, second: bool) -> None:
    rule, functions = RULES[name]().double(), OPTIMIZEES[optimizee]()
    expected = meta_gradient(rule, functions, second, "textbook", 0)
    for state_bytes in (0, 2**30):  # states computed again, and kept
        found = meta_gradient(rule, functions, second, "replay", state_bytes)
        assert (found - expected).norm() <= 1e-10 * expected.norm()


@pytest.mark.parametrize("name", RULES)
def test_second_derivatives_are_those_of_finite_differences(name: str) -> None:
    rule, functions = RULES[name]().double(), classifiers()
    exact = meta_gradient(rule, functions, True, "replay", 2**30)
    direction = torch.randn(len(exact), generator=torch.Generator().manual_seed(0)).double()
    sizes = [weight.numel() for weight in rule.parameters()]

    def loss(distance: float) -> Tensor:
        moves = (distance * direction).split(sizes)
        with torch.no_grad():
            for weight, move in zip(rule.parameters(), moves, strict=True):
                weight += move.view_as(weight)
            record, _ = rollout(start(rule, functions, horizon=HORIZON), STEPS)
            for weight, move in zip(rule.parameters(), moves, strict=True):
                weight -= move.view_as(weight)
        return record.losses.mean(1).sum()

    difference = (loss(1e-5) - loss(-1e-5)) / 2e-5
    torch.testing.assert_close(exact @ direction, difference, rtol=1e-5, atol=0)


def test_observations_of_functions_that_diverged_do_not_count() -> None:
    rule, functions = Watchful().double(), quadratics()
    functions.matrices[1] = float("inf")
    for second in (False, True):
        rule.zero_grad(set_to_none=True)
        record, _ = rollout(start(rule, functions, horizon=HORIZON), STEPS, second)
        alive = finite_functions(record)
        assert alive is not None
        replay(without(record, alive), Unroll([STEPS]).objective(STEPS))
        assert rule.weight.grad is not None
        assert rule.weight.grad.isfinite().all()


def test_a_run_goes_on_with_counts_and_horizon(tmp_path: Path) -> None:
    task = QuadraticTask(dimension=3)
    task.setup("", torch.device("cpu"))
    unroll = Unroll([4], horizons=[8, 10, 14])
    ends = []
    for stops in ([12], [5, 12]):
        rule, folder = Watchful(), tmp_path / str(len(stops))
        folder.mkdir()
        for index, stop in enumerate(stops):
            settings = MetaSettings(12, 0.01, "constant", None, 2, 10, 6, 2, 1)
            trainer = Trainer(task, 0, NullTracker())
            if stop < 12:
                trainer.evaluate = stopped  # type: ignore[method-assign]
                with pytest.raises(KeyboardInterrupt):
                    trainer.meta_train(rule, unroll, Replay(True), settings, folder, {})
            else:
                trainer.meta_train(
                    rule, unroll, Replay(True), settings, folder, {}, resume=index > 0
                )
        ends.append(checkpoint.load(folder / "last.safetensors")[0])
    assert ends[0].keys() == ends[1].keys()
    assert all(ends[0][key].equal(ends[1][key]) for key in ends[0])


def stopped(*arguments: Any) -> Any:
    raise KeyboardInterrupt


def test_evaluation_says_how_long_it_is() -> None:
    class Noting(Watchful):
        def step(self, gradient: Any, state: Any, width: Any = None, seen: Any = None) -> Any:
            noted.append((seen.step, seen.horizon))
            return super().step(gradient, state, width, seen)

    noted: list[tuple[int, int]] = []
    task = QuadraticTask(dimension=3)
    task.setup("", torch.device("cpu"))
    Evaluator(task, 0, NullTracker()).evaluate(Noting(), "test", 2, 3)
    assert noted == [(0, 3), (1, 3), (2, 3)]


def test_states_are_gone_through_in_one_order_and_keep_their_kind() -> None:
    zeros = torch.zeros(2)
    state = ({"b": zeros, "a": 3}, Kept({}, 4), [zeros + 1])
    assert [tensor.tolist() for tensor in tensors_of(state)] == [3, [0, 0], 4, [1, 1]]
    again = like_state(state, [torch.tensor(5), zeros + 2, torch.tensor(6), zeros + 3])
    assert again[0]["a"] == 5
    assert type(again[0]["a"]) is int
    assert again[1] == Kept({}, 6)
    assert again[2][0].tolist() == [3, 3]
    assert map_state(torch.ones_like, state)[1].count == 4


@pytest.mark.parametrize("part", [0.5, None, "text", True])
def test_what_no_state_may_have_is_named(part: Any) -> None:
    with pytest.raises(ConfigError, match=f"a part of type {type(part).__name__}: it must"):
        tensors_of((torch.zeros(1), part))


def test_keys_without_an_order_are_named() -> None:
    with pytest.raises(ConfigError, match="a dict with keys of int, str: they must have an order"):
        tensors_of({0: torch.zeros(1), "a": torch.zeros(1)})


class Worded(Watchful):
    observes = "loss"  # type: ignore[assignment]


@pytest.mark.parametrize("inside", [lambda rule: rule, SignEquivariant])
@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Misled(), "observes: there is no gradient_norm; choose among parameters, loss, step, hor"),
        (Worded(), "observes='loss': must be a tuple of some of parameters, loss, step, horizon"),
    ],
)
def test_what_cannot_be_observed_is_said_at_once(rule: Any, inside: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        start(inside(rule), quadratics(dtype=torch.float32))
    with pytest.raises(ConfigError, match=said):
        stack(inside(rule), [weight.detach().unsqueeze(0) for weight in rule.phi()])
