"""What a rule may see besides the gradient."""

from typing import Any, NamedTuple

from torch import Tensor


class Observation(NamedTuple):
    """Where the optimization of B functions stands, before update g_t."""

    parameters: Tensor  # θ_t (B, n)
    loss: Tensor  # f(θ_t) (B,), on the minibatch of the gradient
    step: int | Tensor  # t, from 0 on; a tensor () where steps are replayed as a CUDA graph
    horizon: int | None = None  # T, the length of the trajectory, where it is known

    @property
    def number(self) -> Tensor:
        """How many steps there are with this one, t + 1, as a tensor () of the type of θ."""
        if isinstance(self.step, Tensor):
            return (self.step + 1).to(self.parameters)
        return self.parameters.new_full((), self.step + 1)

    def of(self, rows: slice, columns: Any) -> "Observation":
        """That of some functions, and of some of their coordinates."""
        part = self.parameters[rows][:, columns]
        return self._replace(parameters=part, loss=self.loss[rows])

    def with_leaves(self) -> "Observation":
        """The same numbers, as leaves of a new graph."""
        return self._replace(
            parameters=self.parameters.detach().requires_grad_(),
            loss=self.loss.detach().requires_grad_(),
        )
