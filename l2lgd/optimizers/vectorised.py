"""Any rule with weights of its own for each of P functions, all of which it steps at once."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import (
    BLOCK_SIZE,
    LearnedRule,
    Optimizer,
    StateT,
    counts_as_tensors,
    given,
)
from l2lgd.optimizers.observation import Observation, known_fields
from l2lgd.system.runtime import quiet_vmap

ONE_NUMBER = (
    "data-dependent control flow",
    "calling .item()",
)  # what vmap says of tensors that differ


def stack(rule: LearnedRule, phi: Sequence[Tensor]) -> Optimizer[Any]:
    """The rule with weights φ_1 … φ_P for P functions.

    Args:
        rule: for the functions' parameter tensors, see ``named``.
        phi: for each of ``rule.phi()`` a tensor (P, *shape).

    Returns:
        An optimizer whose states have the functions as their first dimension.
    """
    return rule.stacked(phi) or Vectorised(rule, phi)


class Vectorised(Optimizer[StateT]):
    """A rule vectorised by ``torch.vmap`` over P functions, each with its own weights.

    A function of it is stepped as if it were the only one, so its state is that of B = 1, with one
    dimension more. Functions may be at different steps, and so what the rule counts by a whole
    number is a tensor () to it here.
    """

    def __init__(self, rule: LearnedRule[StateT], phi: Sequence[Tensor]) -> None:
        names = {id(weight): name for name, weight in rule.named_parameters()}
        keys = [f"rule.{names[id(weight)]}" for weight in rule.phi()]
        self._rule, self._phi = rule, dict(zip(keys, phi, strict=True))
        self.observes = known_fields(type(rule).__name__, rule.observes)
        if "evaluate" in self.observes:
            raise ConfigError(
                f"{type(rule).__name__} observes evaluate, which particles cannot have: their "
                "steps are vectorised; take estimator=replay"
            )

    def named(self, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        return self

    def blocks(self, num_functions: int, n: int, size: int = BLOCK_SIZE) -> list:
        if not self._rule.coordinatewise:
            return super().blocks(num_functions, n, size)
        columns = max(1, size // num_functions)
        rows = slice(0, num_functions)
        return [(rows, slice(i, min(i + columns, n))) for i in range(0, n, columns)]

    def initial_state(self, parameters: Tensor) -> StateT:
        def of_one(theta: Tensor) -> StateT:
            state = self._rule.initial_state(theta.unsqueeze(0))
            return counts_as_tensors(state, parameters.device)

        made: StateT = torch.vmap(of_one)(parameters)
        return made

    def step(
        self,
        gradient: Tensor,
        state: StateT,
        width: Tensor | None = None,
        seen: Observation | None = None,
    ) -> tuple[Tensor, StateT]:
        """One step of each.

        Raises:
            ConfigError: the rule branches on numbers in Python.
        """
        call, device = _Step(self._rule), gradient.device

        def of_one(
            phi: dict[str, Tensor], gradient: Tensor, state: StateT, seen: Observation | None
        ) -> tuple[Tensor, StateT]:
            if seen is not None:
                seen = seen._replace(
                    parameters=seen.parameters.unsqueeze(0), loss=seen.loss.unsqueeze(0)
                )
            arguments = gradient.unsqueeze(0), state
            update, following = functional_call(call, phi, arguments, given(seen))
            return update.squeeze(0), counts_as_tensors(following, device)

        dims = None if seen is None else seen._replace(**_dims(seen))
        # With autograd on, rules take their plain path, which vmap can follow; nothing here asks
        # for a gradient, so there is no graph.
        with torch.enable_grad(), quiet_vmap():
            try:
                found: tuple[Tensor, StateT] = torch.vmap(of_one, (0, 0, 0, dims))(
                    self._phi, gradient, state, seen
                )
            except RuntimeError as error:
                if not any(sign in str(error) for sign in ONE_NUMBER):
                    raise
                raise ConfigError(
                    f"{type(self._rule).__name__} needs a number of Python's in its step, as "
                    "`if` and float(…) do, and it is another one for each particle: a count in its "
                    "state, or t, is a tensor here. Write torch.where(…), or take estimator=replay"
                ) from error
        return found


def _dims(seen: Observation) -> dict[str, Any]:
    """The dimension of the functions in each part; None where it is one number for all."""
    parts = seen._asdict().items()
    return {name: 0 if isinstance(p, Tensor) and p.dim() else None for name, p in parts}


class _Step(nn.Module):
    """A rule whose call is its step."""

    def __init__(self, rule: LearnedRule) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, *arguments: Any, **given: Any) -> Any:
        return self.rule.step(*arguments, **given)
