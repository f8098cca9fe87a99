"""Steps on static buffers are those of ``advance``; what a CUDA graph of them would run."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import LEARNED, OPTIMIZEES, OPTIMIZERS, classifiers, optimizer, quadratics
from torch import Tensor

from l2lgd.meta.estimators.replay import replay
from l2lgd.meta.graphed import StaticStep, captured, obstacle, step_of
from l2lgd.meta.rollout import Position, advance, rollout, start
from l2lgd.meta.schedules import Unroll
from l2lgd.optimizers.base import tensors_of
from l2lgd.tasks.augmentation import Rescaled
from l2lgd.tasks.base import Optimizee
from l2lgd.tasks.mixture import Padded


def mixed() -> Padded:
    """Classifiers of their own, one of them rescaled."""
    one, other = (classifiers(3).select(slice(k, k + 1)) for k in range(2))
    scale = 1 + torch.rand(1, 55, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return Padded([one, Rescaled(other, scale)], 60)


WITH_TENSORS = [name for name in OPTIMIZERS if optimizer(name).differentiable]
KINDS: dict[str, Callable[[], Optimizee]] = {**OPTIMIZEES, "mixed": mixed}


def everything(at: Position) -> list[Tensor]:
    states = [part for state in at.states for part in tensors_of(state)]
    return [at.parameters, at.loss, at.gradient, *states]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WITH_TENSORS)
def test_static_steps_have_the_bits_of_others(name: str, kind: str) -> None:
    at = apart = start(optimizer(name), KINDS[kind](), horizon=4)
    step, seen = StaticStep(at), []
    for _ in range(3):
        at, apart = step(at), advance(apart)
        seen.append((everything(at), everything(apart)))
        assert at.step == apart.step
        assert at.optimizee is apart.optimizee
    for static, plain in seen:  # looked at in the end, when the buffers hold the last step
        for one, other in zip(static, plain, strict=True):
            assert one.equal(other)


def test_a_static_step_goes_on_from_anywhere() -> None:
    first = start(optimizer("lstm"), classifiers())
    step = StaticStep(first)
    second = step(first)
    step(second)
    for one, other in zip(everything(step(first)), everything(second), strict=True):
        assert one.equal(other)


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("name", LEARNED)
def test_meta_gradients_of_static_steps_are_those_of_others(name: str, second: bool) -> None:
    found = []
    for static in (False, True):
        at = start(optimizer(name), classifiers(), horizon=4)
        record, _ = rollout(at, 4, second, step=StaticStep(at) if static else advance)
        replay(record, Unroll([4]).objective(4))
        found.append([weight.grad for weight in at.optimizer.phi()])
    for one, other in zip(*found, strict=True):
        assert one.equal(other)


def test_a_step_that_cannot_be_captured_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: StaticStep, at: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(StaticStep, "__init__", fails)
    found = captured(start(optimizer("lstm"), quadratics()))
    assert str(found).startswith("operation not permitted when stream is capturing")


class Unknown(Optimizee):
    stochastic = True
    shapes = {"x": (2,)}  # noqa: RUF012
    initial_parameters = torch.zeros(1, 2)

    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return step * parameters.sum(1)

    def select(self, rows: slice) -> "Unknown":
        return self


def test_what_cannot_be_a_graph_says_why() -> None:
    assert obstacle(start(optimizer("lstm"), quadratics())) is None
    assert obstacle(start(optimizer("lstm"), classifiers())) is None
    assert "Unknown" in str(obstacle(start(optimizer("adam", torch.float32), Unknown())))
    assert "BFGS" in str(obstacle(start(optimizer("bfgs"), quadratics())))
    at = start(optimizer("adam"), quadratics())
    at.parameters = at.parameters.to("meta")  # its state counts steps on the CPU
    assert "state on another device" in str(obstacle(at))


def test_there_are_no_graphs_on_the_cpu() -> None:
    assert step_of(start(optimizer("lstm"), quadratics())) is advance
