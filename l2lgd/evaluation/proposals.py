"""What optimizers propose along the path of one of them (appendix B of the paper).

One optimizer leads. The others see its gradients and keep their states by them, but never move
the parameters. At each of the first steps, they are also asked what they would propose for a
coordinate if its gradient were another one; that leaves their states as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from l2lgd.optimizers.base import Optimizer, State, given
from l2lgd.optimizers.observation import Observation
from l2lgd.tasks.base import Optimizee


@dataclass(frozen=True)
class Proposals:
    """Of K coordinates of one function."""

    gradients: Tensor  # ∇_0 … ∇_{T−1} on the leader's path (T, K)
    updates: dict[str, Tensor]  # g_0 … g_{T−1} by optimizer, each (T, K)
    responses: dict[str, Tensor]  # by optimizer, each (S, K, G): in S steps, to G gradients instead


@torch.no_grad()
def proposals(
    optimizers: Mapping[str, Optimizer],
    function: Optimizee,
    num_steps: int,
    coordinates: Sequence[int],
    instead: Tensor,
    num_asked: int,
) -> Proposals:
    """Follow the first of the optimizers.

    Args:
        function: a single one, B = 1.
        num_steps: T.
        coordinates: K of its n.
        instead: G hypothetical gradients, the same for each coordinate.
        num_asked: S, so many of the first steps are asked for the response to them.
    """
    parameters = function.initial_parameters
    ready = {name: optimizer.named(function.shapes) for name, optimizer in optimizers.items()}
    states = {name: optimizer.initial_state(parameters) for name, optimizer in ready.items()}
    leader, chosen = next(iter(ready)), list(coordinates)
    gradients: list[Tensor] = []
    updates: dict[str, list[Tensor]] = {name: [] for name in ready}
    responses: dict[str, list[Tensor]] = {name: [] for name in ready}
    for step in range(num_steps):
        loss, gradient = function.loss_and_gradient(parameters, step)
        seen = Observation(parameters, loss, step, num_steps)
        gradients.append(gradient[0, chosen])
        for name, optimizer in ready.items():
            if step < num_asked:
                asked = [
                    _response(optimizer, gradient, states[name], seen, k, instead) for k in chosen
                ]
                responses[name].append(torch.stack(asked))
            update, states[name] = optimizer.step(gradient, states[name], **_given(optimizer, seen))
            updates[name].append(update[0, chosen])
            if name == leader:
                parameters = parameters + update
    return Proposals(
        torch.stack(gradients),
        {name: torch.stack(found) for name, found in updates.items()},
        {name: torch.stack(found) for name, found in responses.items() if found},
    )


def _response(
    optimizer: Optimizer,
    gradient: Tensor,
    state: State,
    seen: Observation,
    coordinate: int,
    instead: Tensor,
) -> Tensor:
    """Updates (G,) of a coordinate, were its gradient one of ``instead`` (G,)."""
    changed, found = gradient.clone(), []
    for value in instead:
        changed[0, coordinate] = value
        update, _ = optimizer.step(changed, state, **_given(optimizer, seen))
        found.append(update[0, coordinate])
    return torch.stack(found)


def _given(optimizer: Optimizer, seen: Observation) -> dict[str, Any]:
    return given(seen if optimizer.observes else None)
