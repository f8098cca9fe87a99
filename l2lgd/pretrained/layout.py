"""How the state of a rule is kept with parameters, so that PyTorch treats it as Adam's.

A tensor of a state goes along the coordinates of a function. It is kept in parts, one a parameter,
of the parameter's shape with more dimensions behind: whatever shards, moves, cuts or stores a
parameter can do the same with its part. Coordinates come last in memory, as rules want them, so
that the whole of a part is what a rule works on, without a copy.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import (
    Optimizer,
    State,
    has_counts,
    keys_of,
    like_state,
    map_state,
    tensors_of,
)

SIZES = (2, 3)  # numbers of coordinates that show which dimensions go with them


@dataclass(frozen=True)
class Entry:
    """One tensor of the state of a function of n coordinates.

    "Rows" are such a tensor with the coordinates last, (…, n), and without dimensions of one.
    """

    name: str
    dtype: torch.dtype
    sizes: tuple[int, ...]  # of its dimensions, in numbers or in multiples of n
    grows: tuple[bool, ...]  # is it in multiples of n?

    @cached_property
    def axis(self) -> int | None:
        """The dimension that coordinates are along; None where the tensor is about all of them."""
        growing = [axis for axis, grows in enumerate(self.grows) if grows]
        return growing[-1] if growing else None

    def shape(self, n: int) -> tuple[int, ...]:
        """Of the rule's own tensor."""
        pairs = zip(self.sizes, self.grows, strict=True)
        return tuple(size * n if grows else size for size, grows in pairs)

    @cached_property
    def _behind_any(self) -> tuple[int, ...] | None:
        """What :meth:`behind` is for every n, where that is so."""
        return self._behind(1) if sum(self.grows) <= 1 else None

    def behind(self, n: int) -> tuple[int, ...]:
        """The dimensions behind those of a parameter."""
        return self._behind(n) if self._behind_any is None else self._behind_any

    def _behind(self, n: int) -> tuple[int, ...]:
        if self.axis is None:
            return self.shape(n)
        others = [
            size * n if grows else size
            for axis, (size, grows) in enumerate(zip(self.sizes, self.grows, strict=True))
            if axis != self.axis and (grows or size != 1)
        ]
        times = self.sizes[self.axis]
        return (*others, times) if times != 1 else tuple(others)

    def new_part(self, parameter: Tensor, n: int, dtype: torch.dtype) -> Tensor:
        """A part for a parameter of a function of n coordinates, not filled."""
        behind = self.behind(n)
        if self.axis is None:
            return parameter.new_empty(behind, dtype=dtype)
        memory = parameter.new_empty((*behind, *parameter.shape), dtype=dtype)
        return memory.permute(*range(len(behind), memory.dim()), *range(len(behind)))

    def rows(self, part: Tensor, shape: Sequence[int]) -> Tensor:
        """The rows (…, n) of the part of a parameter of that shape, a view of it."""
        flat = (torch.Size(shape).numel(), *part.shape[len(shape) :])
        try:
            rows = part.view(flat)
        except RuntimeError:  # somebody has laid it out otherwise
            part.data = part.contiguous()
            rows = part.view(flat)
        return rows.movedim(0, -1)

    def to_rule(self, rows: Tensor, n: int) -> Tensor:
        """The rule's own tensor; a view where rows are contiguous."""
        if self.axis is None:
            return rows
        others = [size for axis, size in enumerate(self.shape(n)) if axis != self.axis]
        count = rows.shape[-1]
        whole = rows.reshape(*others, self.sizes[self.axis] * count)
        return whole.movedim(-1, self.axis)

    def from_rule(self, tensor: Tensor, n: int) -> Tensor:
        """The rows of the rule's own tensor."""
        if self.axis is None:
            return tensor
        count = tensor.shape[self.axis] // self.sizes[self.axis]
        return tensor.movedim(self.axis, -1).reshape(*self.behind(n), count)


class Layout:
    """The entries of an optimizer's states.

    Args:
        optimizer: on that device, in that type.
        device, dtype: of what it computes with.
        shapes: of the tensors that it is to be bound to, by name; None where it does not tell
            tensors apart.

    Raises:
        ConfigError: its state is not made of tensors, or not of such as grow with n.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        device: torch.device,
        dtype: torch.dtype,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self._kind = type(optimizer).__name__

        def of(rule: Optimizer, n: int) -> State:
            state: State = rule.initial_state(torch.zeros(1, n, device=device, dtype=dtype))
            return state

        if shapes is None:
            state = of(optimizer, SIZES[0])
            self.entries = self._growing(state, of(optimizer, SIZES[1]))
        else:
            n = sum(torch.Size(shape).numel() for shape in shapes.values())
            state, found = of(optimizer.named(shapes), n), []
            if not optimizer.tensorwise:
                with contextlib.suppress(Exception):  # it need not have a state without names
                    found = self._growing(*(of(optimizer, size) for size in SIZES))
            known = {entry.name: entry for entry in found}
            # What a rule keeps of one tensor goes with none of its dimensions in particular.
            n = 0 if optimizer.tensorwise else n
            self.entries = [
                _of_bound(name, tensor, n, known.get(name))
                for name, tensor in self._parts(state).items()
            ]
        self.has_counts = has_counts(state)
        # Only its kind counts, and a whole state would be kept for nothing.
        self._structure = map_state(lambda tensor: tensor.new_empty(0), state)

    def state(self, tensors: Sequence[Tensor]) -> State:
        """The rule's state, of its own tensors."""
        made: State = like_state(self._structure, tensors)
        return made

    def _growing(self, state: State, larger: State) -> list[Entry]:
        """The entries of states of ``SIZES`` coordinates."""
        pairs = zip(self._parts(state).items(), tensors_of(larger), strict=True)
        return [self._entry(name, one, other) for (name, one), other in pairs]

    def _parts(self, state: State) -> dict[str, Tensor]:
        """The tensors of a state by their names."""
        tensors, names = tensors_of(state), list(_names(state))
        found = dict(zip(names, tensors, strict=True))
        if len(found) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(
                f"the state of {self._kind} has two parts that would be called {twice}; give its "
                "dicts or named tuples other names"
            )
        return found

    def _entry(self, name: str, one: Tensor, other: Tensor) -> Entry:
        sizes, grows = [], []
        for a, b in zip(one.shape, other.shape, strict=True):
            sizes.append(a if a == b else b - a)
            grows.append(a != b)
            if (sizes[-1] * SIZES[0] if grows[-1] else a) != a:
                raise ConfigError(
                    f"the state of {self._kind} has a tensor of {a} rows for {SIZES[0]} "
                    f"coordinates and of {b} for {SIZES[1]}: they must be multiples of them"
                )
        return Entry(name, one.dtype, tuple(sizes), tuple(grows))


def _of_bound(name: str, tensor: Tensor, n: int, known: Entry | None) -> Entry:
    """The entry of a tensor of the state of a rule that is bound to n coordinates.

    Args:
        n: 0 where nothing goes along coordinates.
        known: what it is to the rule before, if that has one of that name.
    """
    shape = tuple(tensor.shape)
    if known is not None and (known.shape(n), known.dtype) == (shape, tensor.dtype):
        return known
    # A number for each tensor belongs to no coordinate; a dimension of n is along them.
    along = [axis for axis, size in enumerate(shape) if size == n > 1][-1:]
    sizes = tuple(1 if axis in along else size for axis, size in enumerate(shape))
    return Entry(name, tensor.dtype, sizes, tuple(axis in along for axis in range(len(shape))))


def _names(state: State, name: str = "") -> Iterator[str]:
    """Of each tensor, in the order of :func:`tensors_of`."""
    known: Any = state
    if isinstance(known, Tensor | int):
        yield name or "state"
        return
    if isinstance(known, dict):
        parts = [(key, known[key]) for key in keys_of(known)]
    else:
        fields = getattr(known, "_fields", range(len(known)))
        parts = list(zip(fields, known, strict=True))
    for field, part in parts:
        yield from _names(part, f"{name}_{field}" if name else str(field))
