"""Optimizers for groups of parameters (section 3.3 of the paper).

The paper's convnet has one LSTM for the weights of convolutions and another for all else,
meta-trained together. Here any optimizers, learned or hand-designed, can share the parameters of
any optimizee; which parameters are whose follows from their names.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import BLOCK_SIZE, Cotangents, LearnedRule, Optimizer, State, given
from l2lgd.optimizers.observation import Observation

Columns = slice | Tensor  # the coordinates of a group, a slice where they lie together


@dataclass
class Group:
    """The parameters whose names fit the pattern ``match`` (``*``, ``?``, ``[…]``)."""

    match: str
    use: str  # name of their optimizer


class Part(NamedTuple):
    """Coordinates of some functions that an optimizer treats apart from all others."""

    optimizer: Optimizer
    rows: slice
    columns: Columns

    def of(self, tensor: Tensor) -> Tensor:
        """What it has of a tensor (…, B, n)."""
        return tensor[..., self.rows, :][..., self.columns]

    def put(self, into: Tensor, value: Tensor) -> None:
        """Make ``value`` this part of a tensor (B, n)."""
        into[self.rows, self.columns] = value

    def sees(self, seen: Observation) -> Observation:
        """What it has of an observation."""
        return seen.of(self.rows, self.columns)

    def given(self, seen: Observation | None) -> dict[str, Any]:
        """What its optimizer gets of an observation."""
        return given(self.sees(seen)) if seen and self.optimizer.observes else {}


class Grouped(LearnedRule[tuple[State, ...]]):
    """Several optimizers, each for its own parameters of an optimizee.

    An optimizer that is used by several groups has the same weights for all of them, and their
    coordinates are to it those of one function, of tensors with the names that they have.

    Args:
        optimizers: by name; at least one is learned.
        groups: the first one whose pattern fits a parameter's name counts.

    Raises:
        ConfigError: a group uses an optimizer that is not there, or none of them can be
            meta-trained.
    """

    def __init__(self, optimizers: dict[str, Optimizer], groups: list[Group]) -> None:
        super().__init__()
        for name, member in optimizers.items():
            if not isinstance(member, Optimizer):
                raise ConfigError(f"optimizers.{name}: needs the _target_ of an optimizer")
            if not member.differentiable:
                raise ConfigError(
                    f"optimizers.{name}: {type(member).__name__} cannot be in a group"
                )
        for group in groups:
            if group.use not in optimizers:
                raise ConfigError(
                    f"groups: {group.match} uses {group.use}, and optimizers has only "
                    f"{', '.join(optimizers)}"
                )
        learned = {n: m for n, m in optimizers.items() if isinstance(m, LearnedRule)}
        if not learned:
            raise ConfigError("optimizers: none of them is a learned one")
        self.learned = nn.ModuleDict(learned)
        self._members, self._groups = dict(optimizers), list(groups)
        self._bound: dict[str, Optimizer] = {}  # members for tensors of known names and shapes
        self._known: dict[str, Columns] | None = None  # where the coordinates have names
        self._moved: dict[torch.device, dict[str, Columns]] = {}  # the same, on other devices

    def named(self, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        bound = copy.copy(self)  # shallow: meta-training has to change the same weights
        bound._known, bound._moved = self._shared_out(shapes), {}
        tensors: dict[str, dict[str, tuple[int, ...]]] = {}
        for name, shape in shapes.items():  # in the order of a member's coordinates
            tensors.setdefault(self.member_of(name), {})[name] = shape
        bound._bound = {use: self._members[use].named(own) for use, own in tensors.items()}
        return bound

    def reset_parameters(self, generator: torch.Generator) -> None:
        for member in self._learned():
            member.reset_parameters(generator)

    def scale_updates(self, factor: float) -> None:
        """Those of the learned optimizers; a hand-designed one has its learning rate."""
        for member in self._learned():
            member.scale_updates(factor)

    def initial_state(self, parameters: Tensor) -> tuple[State, ...]:
        return tuple(
            part.optimizer.initial_state(part.of(parameters)) for part in self._parts(parameters)
        )

    @property
    def smooths(self) -> bool:  # type: ignore[override]
        return all(member.smooths for member in self._members.values())

    @property
    def observes(self) -> tuple[str, ...]:  # type: ignore[override]
        wanted = (name for member in self._members.values() for name in member.observes)
        return tuple(dict.fromkeys(wanted))

    def step(
        self,
        gradient: Tensor,
        state: tuple[State, ...],
        width: Tensor | None = None,
        seen: Observation | None = None,
    ) -> tuple[Tensor, tuple[State, ...]]:
        update, following = torch.empty_like(gradient), []
        for part, own in zip(self._parts(gradient), state, strict=True):
            near = None if width is None else part.of(width)
            proposed, after = part.optimizer.step(part.of(gradient), own, near, **part.given(seen))
            part.put(update, proposed)
            following.append(after)
        return update, tuple(following)

    def vector_jacobian_product(
        self,
        gradients: Tensor,
        state: tuple[State, ...],
        cotangents: Tensor,
        seen: Sequence[Observation] = (),
    ) -> Sequence[Tensor]:
        total = _Sum(self.phi())  # groups may share an optimizer, and so its weights
        for part, own in zip(self._parts(gradients[0]), state, strict=True):
            # A hand-designed member has no φ; first order, its updates are constants.
            if isinstance(part.optimizer, LearnedRule):
                product = part.optimizer.vector_jacobian_product
                watched = [part.sees(each) for each in seen] if part.optimizer.observes else []
                found = product(part.of(gradients), own, part.of(cotangents), **given(watched))
                total.add(part.optimizer, found)
        return total.values

    def step_back(
        self,
        gradient: Tensor,
        state: tuple[State, ...],
        cotangent: Tensor,
        state_cotangent: tuple[State, ...] | None,
        width: Tensor | None = None,
        seen: Observation | None = None,
    ) -> Cotangents[tuple[State, ...]]:
        # Here hand-designed members count, too: what they see depends on θ, which φ has moved.
        total, d_gradient, d_state = _Sum(self.phi()), torch.empty_like(gradient), []
        d_theta, d_loss = torch.zeros_like(gradient), gradient.new_zeros(len(gradient))
        for k, part in enumerate(self._parts(gradient)):
            found = part.optimizer.step_back(
                part.of(gradient),
                state[k],
                part.of(cotangent),
                None if state_cotangent is None else state_cotangent[k],
                None if width is None else part.of(width),
                **part.given(seen),
            )
            part.put(d_gradient, found.gradient)
            if found.parameters is not None:
                part.put(d_theta, found.parameters)
            if found.loss is not None:
                d_loss[part.rows] += found.loss
            total.add(part.optimizer, found.weights)
            d_state.append(found.state)
        observed = () if seen is None else (d_theta, d_loss)
        return Cotangents(total.values, d_gradient, tuple(d_state), *observed)

    @property
    def coordinatewise(self) -> bool:
        return all(member.coordinatewise for member in self._members.values())

    def implementation(self) -> str:
        names = (member.implementation() for member in self._learned())
        return ", ".join(dict.fromkeys(names))

    def input_statistics(self, gradient: Tensor) -> dict[str, float]:
        """Those of each learned optimizer, with its name before them."""
        found: dict[str, float] = {}
        for name, columns in self._columns(gradient).items():
            member = self._ready(name)
            if isinstance(member, LearnedRule):
                own = member.input_statistics(gradient[..., columns])
                found |= {f"{name}_{key}": value for key, value in own.items()}
        return found

    def members(self) -> dict[str, LearnedRule]:
        """The learned ones, by name."""
        return {n: m for n, m in self._members.items() if isinstance(m, LearnedRule)}

    def member(self, name: str) -> Optimizer:
        """The optimizer of that name."""
        found: Optimizer = self._members[name]
        return found

    def patterns(self) -> list[tuple[str, str]]:
        """Patterns of names, and whose parameters those are that fit; the first one counts."""
        return [(group.match, group.use) for group in self._groups]

    def member_of(self, parameter: str) -> str:
        """The name of the optimizer of a parameter, by that one's name.

        Raises:
            ConfigError: no pattern fits it.
        """
        use = next((use for match, use in self.patterns() if fnmatchcase(parameter, match)), None)
        if use is None:
            patterns = ", ".join(group.match for group in self._groups)
            raise ConfigError(
                f"opt.groups: {parameter or 'a parameter without a name'} fits none of {patterns}; "
                'end them with {match: "*", use: …}'
            )
        return use

    def _ready(self, name: str) -> Optimizer:
        """A member, for its tensors where they are known."""
        return self._bound.get(name, self._members[name])

    def _learned(self) -> Iterator[LearnedRule]:
        return (m for m in self._members.values() if isinstance(m, LearnedRule))

    def _parts(self, like: Tensor) -> list[Part]:
        """All of (B, n), cut as the optimizers want it."""
        num_functions, parts = len(like), []
        for name, columns in self._columns(like).items():
            member, size = self._ready(name), _size(columns)
            for rows, inner in member.blocks(num_functions, size, BLOCK_SIZE):
                parts.append(Part(member, rows, _within(columns, inner)))
        return parts

    def _columns(self, like: Tensor) -> dict[str, Columns]:
        """The coordinates of each optimizer that has any, of those of a tensor (…, n)."""
        if self._known is None:
            return self._shared_out({"": (like.shape[-1],)})
        if like.device not in self._moved:  # once: a copy to the device would wait for it
            self._moved[like.device] = {
                name: own.to(like.device) if isinstance(own, Tensor) else own
                for name, own in self._known.items()
            }
        return self._moved[like.device]

    def _shared_out(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Columns]:
        """The coordinates of each optimizer that has any, by the names of their tensors.

        Raises:
            ConfigError: no pattern fits a parameter.
        """
        pieces: dict[str, list[tuple[int, int]]] = {}
        start = 0
        for name, shape in shapes.items():
            stop = start + torch.Size(shape).numel()
            use = self.member_of(name)
            known = pieces.setdefault(use, [])
            if known and known[-1][1] == start:
                known[-1] = (known[-1][0], stop)
            else:
                known.append((start, stop))
            start = stop
        return {use: _joined(found) for use, found in pieces.items()}


class _Sum:
    """Sums of tensors, one a weight; several parts may have the same weights."""

    def __init__(self, weights: Sequence[nn.Parameter]) -> None:
        self.values = [torch.zeros_like(weight) for weight in weights]
        self._place = {id(weight): index for index, weight in enumerate(weights)}

    def add(self, optimizer: Optimizer, found: Sequence[Tensor]) -> None:
        for weight, value in zip(optimizer.phi(), found, strict=True):
            self.values[self._place[id(weight)]] += value


def _joined(pieces: Sequence[tuple[int, int]]) -> Columns:
    if len(pieces) == 1:
        return slice(*pieces[0])
    return torch.cat([torch.arange(*piece) for piece in pieces])


def _size(columns: Columns) -> int:
    return len(columns) if isinstance(columns, Tensor) else columns.stop - columns.start


def _within(columns: Columns, inner: slice) -> Columns:
    """Part ``inner`` of ``columns``."""
    if isinstance(columns, Tensor):
        return columns[inner]
    return slice(columns.start + inner.start, columns.start + inner.stop)
