"""Minibatches are the same however and wherever they are drawn."""

import pytest
import torch

from l2lgd.tasks.minibatches import Minibatches


def streams(examples: int | None = None) -> Minibatches:
    return Minibatches(50, 4, seed=3, stacked=5, examples=examples)


@pytest.mark.parametrize("examples", [None, 7])
def test_what_is_drawn_ahead_is_what_is_drawn_alone(examples: int | None) -> None:
    ahead, alone = streams(examples), streams(examples)
    for steps in (range(3), range(3, 8), range(6, 9), range(1)):
        ahead.prefetch(steps)
        for step in (*steps, 100):
            assert ahead.index(step).equal(alone.index(step))


def test_steps_ahead_are_drawn_once_and_no_others_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    plain = torch.randint
    monkeypatch.setattr(torch, "randint", lambda *a, **k: drawn.append(0) or plain(*a, **k))
    own = streams()
    own.prefetch(range(10))
    own.prefetch(range(2, 5))
    for step in range(10):
        own.index(step)
    assert len(drawn) == 10
    own.prefetch(range(10, 12))
    assert len(drawn) == 12
    own.index(0)
    assert len(drawn) == 13


@pytest.mark.parametrize("examples", [None, 7])
def test_functions_alone_have_the_minibatches_they_have_among_others(examples: int | None) -> None:
    own = streams(examples)
    part = own.select(slice(1, 4)).select(slice(1, None))
    assert part.index(6).equal(own.index(6)[2:4])


def test_functions_and_steps_have_minibatches_of_their_own() -> None:
    own = streams()
    rows = [*own.index(0), *own.index(1)]
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)
