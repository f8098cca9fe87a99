"""Rules with weights of their own for each function, against each function's rule by itself."""

import math
from typing import Any

import pytest
import torch
from helpers import LEARNED, OPTIMIZEES, generator, optimizer
from observers import Counting, Kept
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.meta.rollout import Position, advance, start
from l2lgd.optimizers.base import LearnedRule, Optimizer, tensors_of
from l2lgd.optimizers.observation import Observation
from l2lgd.optimizers.vectorised import Vectorised, stack

FUNCTIONS, STEPS = 3, 4
HORIZONS = (50, 70, 90)
STARTS = (0, 2, 5)  # steps that the trajectories of the three functions are ahead


def rules(name: str) -> list[LearnedRule]:
    """One a function, with other weights each."""
    made = []
    for number in range(FUNCTIONS):
        rule = optimizer(name)
        rule.reset_parameters(generator(number, "phi"))
        with torch.no_grad():
            for weight in rule.phi():
                noise = torch.randn(weight.shape, generator=generator(number, "noise"))
                weight += 0.01 * noise
        made.append(rule)
    return made


def together(name: str, optimizee: Any, vectorised: bool) -> Optimizer:
    each = [rule.phi() for rule in rules(name)]
    phi = [torch.stack([w.detach() for w in weights]) for weights in zip(*each, strict=True)]
    rule = optimizer(name).named(optimizee.shapes)
    return Vectorised(rule, phi) if vectorised else stack(rule, phi)


def run(at: Position) -> Position:
    for _ in range(STEPS):
        at = advance(at)
    return at


@pytest.mark.parametrize("vectorised", [True, False])
@pytest.mark.parametrize("optimizee", OPTIMIZEES)
@pytest.mark.parametrize("name", LEARNED)
def test_stacked_is_one_after_the_other(name: str, optimizee: str, vectorised: bool) -> None:
    functions = OPTIMIZEES[optimizee](FUNCTIONS)
    at = start(together(name, functions, vectorised), functions)
    at.horizon, at.begun = torch.tensor(HORIZONS), -torch.tensor(STARTS)
    found = run(at)
    for b, rule in enumerate(rules(name)):
        row = slice(b, b + 1)
        alone = start(rule, functions.select(row))
        alone.horizon, alone.begun = HORIZONS[b], -torch.tensor(STARTS[b])
        expected = run(alone)
        torch.testing.assert_close(found.parameters[row], expected.parameters)
    for part in tensors_of(found.states):
        assert part.shape[0] == FUNCTIONS


def test_blocks_of_columns_change_nothing() -> None:
    functions = OPTIMIZEES["classifiers"](FUNCTIONS)
    rule = together("lstm", functions, vectorised=True)
    whole = start(rule, functions)
    parts = start(rule, functions, block_size=3 * 10)
    assert len(whole.blocks) == 1
    assert len(parts.blocks) > 1
    torch.testing.assert_close(run(parts).parameters, run(whole).parameters)


@pytest.mark.parametrize("optimizee", OPTIMIZEES)
def test_counts_are_one_whole_number_a_function(optimizee: str) -> None:
    functions = OPTIMIZEES[optimizee](FUNCTIONS)
    each = [Counting().double() for _ in range(FUNCTIONS)]
    for number, rule in enumerate(each):
        rule.reset_parameters(generator(number, "phi"))
    phi = [torch.stack([rule.weight.detach() for rule in each])]
    at = start(stack(Counting().double(), phi), functions)
    assert at.states[0].count.tolist() == [0] * FUNCTIONS  # type: ignore[union-attr]
    found = run(at)
    assert found.states[0].count.tolist() == [STEPS] * FUNCTIONS  # type: ignore[union-attr]
    assert found.states[0].count.dtype == torch.int64  # type: ignore[union-attr]
    for b, rule in enumerate(each):
        row = slice(b, b + 1)
        alone = run(start(rule, functions.select(row)))
        torch.testing.assert_close(found.parameters[row], alone.parameters)


class Branching(Counting):
    def step(self, gradient: Tensor, state: Kept, width: Tensor | None = None) -> Any:
        update, state = super().step(gradient, state)
        return (update if state.count > 2 else 2 * update), state


class Converting(Counting):
    def step(self, gradient: Tensor, state: Kept, width: Tensor | None = None) -> Any:
        update, state = super().step(gradient, state)
        return update / math.sqrt(state.count), state


@pytest.mark.parametrize("kind", [Branching, Converting])
def test_a_count_that_must_be_a_number_of_python_is_said(kind: type[Counting]) -> None:
    rule = kind()
    phi = [weight.detach().expand(FUNCTIONS, -1) for weight in rule.phi()]
    stacked, theta = stack(rule, phi), torch.zeros(FUNCTIONS, 2)
    with pytest.raises(ConfigError, match=f"{kind.__name__} needs a number of Python's"):
        stacked.step(theta, stacked.initial_state(theta))


def test_a_count_may_begin_anew_by_itself() -> None:
    class Again(Counting):
        def step(self, gradient: Tensor, state: Kept, width: Tensor | None = None) -> Any:
            update, _ = super().step(gradient, state)
            return update, self.initial_state(gradient)

    phi = [weight.detach().expand(FUNCTIONS, -1) for weight in Again().phi()]
    stacked, theta = stack(Again(), phi), torch.zeros(FUNCTIONS, 2)
    _, state = stacked.step(theta, stacked.initial_state(theta))
    assert state.count.tolist() == [0] * FUNCTIONS


def test_numbers_of_steps_broadcast_against_coordinates() -> None:
    theta, loss = torch.zeros(3, 5), torch.zeros(3)
    seen = Observation(theta, loss, torch.tensor([1, 2, 3]), torch.tensor([7, 8, 9]))
    assert seen.number.tolist() == [[2], [3], [4]]
    part = seen.of(slice(1, 3), slice(0, 2))
    assert part.number.tolist() == [[3], [4]]
    assert part.length is not None
    assert part.length.tolist() == [[8], [9]]
    assert Observation(theta, loss, 4).number.shape == ()
    assert Observation(theta, loss, 4).length is None
    assert part.parameters.shape == (2, 2)
