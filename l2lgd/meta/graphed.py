"""A step as a CUDA graph: its kernels are launched as one, since launches take most of its time.

A graph works on buffers that stay where they are. It is captured once for a trajectory, whose
functions are its constants, and replayed for every step. What runs in it is :func:`advance`.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from l2lgd.errors import one_line
from l2lgd.meta.rollout import Position, Step, advance
from l2lgd.optimizers.base import has_counts, map_state, tensors_of

log = logging.getLogger(__name__)

MOST = 1 << 19  # coordinates; with more, kernels take longer than their launches
WARM_UPS = 2  # steps before a capture, in which kernels are compiled and libraries set up
_said: set[str] = set()


def step_of(at: Position) -> Step:
    """What does the steps of a trajectory: a graph where there can be one, else :func:`advance`."""
    if at.parameters.device.type != "cuda" or at.parameters.numel() > MOST:
        return advance
    why_not = obstacle(at)
    if why_not is None:
        step = captured(at)
        if isinstance(step, StaticStep):
            return step
        why_not = step
    if why_not not in _said:
        _said.add(why_not)
        log.info("no CUDA graph of steps: %s", why_not)
    return advance


def captured(at: Position) -> "StaticStep | str":
    """The graph, or why there is none: a step may do what cannot be captured."""
    try:
        return StaticStep(at)
    except RuntimeError as error:
        return one_line(error)


def obstacle(at: Position) -> str | None:
    """Why the steps of a trajectory cannot be a graph; None where they can."""
    device = at.parameters.device
    if not at.optimizer.differentiable:
        return f"{type(at.optimizer).__name__} keeps more than tensors in its state"
    if at.optimizee.inputs(at.step + 1) is None:
        return f"{type(at.optimizee).__name__} does not say what its steps depend on"
    if "evaluate" in at.optimizer.observes:
        return f"{type(at.optimizer).__name__} asks for the functions elsewhere within a step"
    if "horizon" in at.optimizer.observes or has_counts(at.states):  # constants of a graph
        return f"{type(at.optimizer).__name__} observes the horizon, or counts in its state"
    if not all(part.device == device for part in tensors_of(at.states)):
        return f"{type(at.optimizer).__name__} has a state on another device"
    return None


class StaticStep:
    """One step on buffers: a graph on a GPU; elsewhere the same, as it is."""

    def __init__(self, at: Position) -> None:
        self._inputs = tuple(part.clone() for part in at.optimizee.inputs(at.step + 1) or ())
        self._at = replace(
            _copy(at), optimizee=at.optimizee.on(self._inputs), step=_number(at.step, at)
        )
        self._last: Position | None = None  # what the buffers hold
        self._graph: torch.cuda.CUDAGraph | None = None
        if at.parameters.device.type == "cuda":
            self._capture()

    def __call__(self, at: Position) -> Position:
        """As :func:`advance`; tensors of the next position are its own."""
        if at is not self._last:
            _write(_tensors(self._at), _tensors(at))
        _write(self._inputs, at.optimizee.inputs(at.step + 1) or ())
        if self._graph is None:
            self._run()
        else:
            self._graph.replay()
        self._last = replace(_copy(self._at), optimizee=at.optimizee, step=at.step + 1)
        return self._last

    def _run(self) -> None:
        _write(_tensors(self._at), _tensors(advance(self._at)))

    def _capture(self) -> None:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                self._run()
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._run()


def _tensors(at: Position) -> list[Tensor]:
    return [
        at.parameters,
        at.loss,
        at.gradient,
        _number(at.step, at),
        *tensors_of(at.states),
    ]


def _number(step: int | Tensor, at: Position) -> Any:
    """The step t as a buffer, since optimizers may observe it."""
    return step if isinstance(step, Tensor) else at.parameters.new_tensor(step, dtype=torch.int64)


def _copy(at: Position) -> Position:
    return replace(
        at,
        parameters=at.parameters.clone(),
        loss=at.loss.clone(),
        gradient=at.gradient.clone(),
        states=map_state(torch.clone, at.states),
    )


def _write(into: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    if into:
        torch._foreach_copy_(list(into), list(values))
