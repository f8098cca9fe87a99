"""Rules that use all of the contract."""

import copy
from collections.abc import Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from l2lgd.optimizers.base import LearnedRule
from l2lgd.optimizers.observation import Observation


class Kept(NamedTuple):
    means: dict[str, Tensor]
    count: int


class Watchful(LearnedRule[Kept]):
    """Uses all that can be seen; its state has a dict and a count."""

    observes = ("parameters", "loss", "step", "horizon")

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.05, 0.1, 0.2, 0.3, 0.4]))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        self.weight.copy_(0.1 * torch.rand(5, generator=generator))

    def initial_state(self, parameters: Tensor) -> Kept:
        return Kept({"m": torch.zeros_like(parameters), "a": torch.ones_like(parameters)}, 0)

    def step(
        self,
        gradient: Tensor,
        state: Kept,
        width: Tensor | None = None,
        seen: Observation | None = None,
    ) -> tuple[Tensor, Kept]:
        assert seen is not None
        assert state.count == seen.step
        theta, loss, step, horizon = seen[:4]
        rate, decay, by_theta, by_loss, by_time = self.weight
        mean = decay * state.means["m"] + torch.tanh(gradient)
        kept = torch.cos(theta * state.means["a"])
        part = 1 + by_loss * torch.tanh(loss).unsqueeze(1) + by_time * step / (horizon or 100)
        update = -rate * part * (mean + by_theta * kept)
        return update, Kept({"a": kept, "m": mean}, state.count + 1)


class Apart(Watchful):
    """Every coordinate is treated apart."""

    @property
    def coordinatewise(self) -> bool:
        return True


class PerTensor(LearnedRule[Tensor]):
    """g = −rate · ∇ / its root mean square over each tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.05))
        self._sizes: list[int] | None = None

    def named(self, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        bound = copy.copy(self)
        bound._sizes = [torch.Size(shape).numel() for shape in shapes.values()]
        return bound

    def reset_parameters(self, generator: torch.Generator) -> None:
        pass

    def initial_state(self, parameters: Tensor) -> Tensor:
        return torch.zeros_like(parameters)

    def step(
        self, gradient: Tensor, state: Tensor, width: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        tensors = gradient.split(self._sizes or [gradient.shape[1]], 1)
        scaled = [part / part.square().mean(1, keepdim=True).sqrt() for part in tensors]
        return -self.rate * torch.cat(scaled, 1), state + 1


class ByName(LearnedRule[dict[str, Tensor]]):
    """g = −rate · ∇ / a running root mean square of its tensor; those of a bias are half as large.

    Its state has a number for each tensor, by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.05))
        self.shapes: dict[str, tuple[int, ...]] = {}

    def named(self, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        bound = copy.copy(self)
        bound.shapes = dict(shapes)
        return bound

    def reset_parameters(self, generator: torch.Generator) -> None:
        pass

    def initial_state(self, parameters: Tensor) -> dict[str, Tensor]:
        return {name: parameters.new_ones(len(parameters), 1) for name in self.shapes}

    def step(
        self, gradient: Tensor, state: dict[str, Tensor], width: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        tensors = gradient.split([torch.Size(shape).numel() for shape in self.shapes.values()], 1)
        updates, following = [], {}
        for name, own in zip(self.shapes, tensors, strict=True):
            following[name] = 0.9 * state[name] + 0.1 * own.square().mean(1, keepdim=True)
            size = 0.5 if name.endswith("bias") else 1.0
            updates.append(-size * self.rate * own / following[name].sqrt())
        return torch.cat(updates, 1), following


class ByNameAlone(ByName):
    """Every tensor is treated apart."""

    @property
    def tensorwise(self) -> bool:
        return True


class Rows(ByName):
    """The same in one tensor (B, number of tensors)."""

    def initial_state(self, parameters: Tensor) -> Tensor:  # type: ignore[override]
        return parameters.new_ones(len(parameters), len(self.shapes))

    def step(  # type: ignore[override]
        self, gradient: Tensor, state: Tensor, width: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        parts = dict(zip(self.shapes, state.split(1, 1), strict=True))
        update, following = super().step(gradient, parts, width)
        return update, torch.cat(list(following.values()), 1)


class ByNameEverywhere(ByName):
    """The same for every coordinate alone: a running mean of each of them, in a dict by name."""

    @property
    def coordinatewise(self) -> bool:
        return True

    def initial_state(self, parameters: Tensor) -> dict[str, Tensor]:
        sizes = [torch.Size(shape).numel() for shape in self.shapes.values()]
        parts = torch.ones_like(parameters).split(sizes, 1)
        return dict(zip(self.shapes, parts, strict=True))

    def step(
        self, gradient: Tensor, state: dict[str, Tensor], width: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        tensors = gradient.split([part.shape[1] for part in state.values()], 1)
        updates, following = [], {}
        for name, own in zip(self.shapes, tensors, strict=True):
            following[name] = 0.9 * state[name] + 0.1 * own.square()
            size = 0.5 if name.endswith("bias") else 1.0
            updates.append(-size * self.rate * own / following[name].sqrt())
        return torch.cat(updates, 1), following


class WithMomentum(ByName):
    """The same with a momentum, which goes along the coordinates."""

    def initial_state(self, parameters: Tensor) -> dict:
        return {"sizes": super().initial_state(parameters), "momentum": 0 * parameters}

    def step(  # type: ignore[override]
        self, gradient: Tensor, state: dict, width: Tensor | None = None
    ) -> tuple[Tensor, dict]:
        momentum = 0.9 * state["momentum"] + gradient
        update, sizes = super().step(momentum, state["sizes"], width)
        return update, {"sizes": sizes, "momentum": momentum}


class Counting(LearnedRule[Kept]):
    """Momentum with a rate that falls by the number of steps, which it counts itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.2, 0.8]))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        self.weight.copy_(torch.rand(2, generator=generator))

    def initial_state(self, parameters: Tensor) -> Kept:
        return Kept({"m": torch.zeros_like(parameters)}, 0)

    def step(
        self, gradient: Tensor, state: Kept, width: Tensor | None = None
    ) -> tuple[Tensor, Kept]:
        rate, decay = self.weight
        mean, count = decay * state.means["m"] + gradient, state.count + 1
        return -rate / count * mean, Kept({"m": mean}, count)


class Falling(ByName):
    """−rate · ∇ · (1 − t/T), which observes the horizon alone."""

    observes = ("horizon",)

    def initial_state(self, parameters: Tensor) -> Tensor:  # type: ignore[override]
        return parameters.new_zeros(())

    def step(  # type: ignore[override]
        self,
        gradient: Tensor,
        state: Tensor,
        width: Tensor | None = None,
        seen: Observation | None = None,
    ) -> tuple[Tensor, Tensor]:
        assert seen is not None
        assert seen.length is not None
        return -self.rate * gradient * (1 - (seen.number - 1) / seen.length), state


class Misled(Falling):
    observes = ("horizon", "gradient_norm")
