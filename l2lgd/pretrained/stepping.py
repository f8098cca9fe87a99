"""An optimizer's step over parameters, in blocks, so that its memory does not grow with n."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from l2lgd.optimizers.base import Optimizer, given, tensors_of
from l2lgd.optimizers.observation import Observation
from l2lgd.pretrained.layout import Entry, Layout
from l2lgd.tasks.base import inputs_and_outputs_last

Parts = Mapping[str, Tensor]  # of the state, by name: those of one parameter
Scratch = dict[tuple[str, torch.dtype], Tensor]  # by entry and type


class Stepper:
    """Steps of one function (B = 1) whose coordinates are those of some parameters.

    Args:
        optimizer: on the device of the parameters.
        device, dtype: of what it computes with.
        shapes: of the parameters that it is for, by their names; None where it does not tell
            tensors apart. One that is tensorwise has one of them, and knows weights as
            (…, inputs, outputs); PyTorch's are (outputs, inputs, …).
        scratch: memory that other steppers may use between the steps of this one.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        device: torch.device,
        dtype: torch.dtype,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        scratch: Scratch | None = None,
    ) -> None:
        self._device, self._dtype = device, dtype
        self._shape: tuple[int, ...] = ()  # of a tensor that the rule has in another order
        self._order: tuple[int, ...] = ()
        self._by_blocks = optimizer.coordinatewise and shapes is None
        self._optimizer = optimizer
        if shapes is not None:
            if optimizer.tensorwise:
                ((name, self._shape),) = shapes.items()
                self._order = inputs_and_outputs_last(len(self._shape))
                shapes = {name: tuple(self._shape[axis] for axis in self._order)}
            self._optimizer = optimizer.named(shapes)
        self._layout = Layout(optimizer, device, dtype, shapes)
        # Fresh memory for every block would cost much.
        self._scratch = {} if scratch is None else scratch

    @property
    def entries(self) -> list[Entry]:
        return self._layout.entries

    def block_size(self, wanted: int, parameters: Sequence[Tensor]) -> int:
        """Coordinates that are stepped at once: all where they share information, or have names."""
        return wanted if self._by_blocks else max(1, sum(p.numel() for p in parameters))

    def initial(
        self, parameters: Sequence[Tensor], size: int, kept_in: torch.dtype | None
    ) -> list[dict[str, Tensor]]:
        """The parts of the state before the first step, for each parameter.

        Args:
            parameters: θ_0, real.
            size: coordinates that are worked on at once.
            kept_in: type of the state; None for that of the arithmetic.
        """
        n = sum(parameter.numel() for parameter in parameters)
        states: list[dict[str, Tensor]] = [{} for _ in parameters]
        for entry in self.entries:
            dtype = kept_in if kept_in and entry.dtype.is_floating_point else entry.dtype
            for parameter, state in zip(parameters, states, strict=True):
                state[entry.name] = entry.new_part(parameter, n, dtype)
        theta = [parameter.reshape(-1) for parameter in parameters]
        kept = self._rows(parameters, states)
        for where in _blocks(n, size):
            block = self._to_rule(_cut(theta, where, self._device))
            tensors = tensors_of(self._optimizer.initial_state(block))
            for entry, parts, tensor in zip(self.entries, kept, tensors, strict=True):
                _put(entry, parts, entry.from_rule(tensor, n), where)
        return states

    def updates(
        self,
        gradient: Tensor,
        parameters: Sequence[Tensor],
        states: Sequence[Parts],
        size: int,
        skip_zeros: bool = False,
        seen: Observation | None = None,
    ) -> Iterator[tuple[slice, Tensor]]:
        """The update of each block of coordinates; leaves the next state in ``states``.

        Args:
            gradient: (n,), of all parameters one after the other.
            parameters: θ_t, real; only their shapes count.
            states: of each.
            size: coordinates that are worked on at once.
            skip_zeros: leave coordinates of zero gradient, and their states, as they are.
            seen: with θ_t (n,) and the loss (1,), where the rule observes something.
        """
        rule = self._optimizer
        n, kept = len(gradient), self._rows(parameters, states)
        # What is about all coordinates, such as a count of steps, is the same to every block.
        common = {
            entry.name: parts[0].clone()
            for entry, parts in zip(self.entries, kept, strict=True)
            if entry.axis is None
        }
        views = not skip_zeros and rule.takes_views and self._are_own(kept)
        for where in _blocks(n, size):
            block = self._to_rule(gradient[where])
            watched = given(None if seen is None else self._part(seen, where))
            if views:
                state = self._layout.state([parts[0][..., where] for parts in kept])
                yield where, rule.step_in_place(block, state, **watched).squeeze(0)
                continue
            own = [
                self._computed(common[entry.name]).clone()
                if entry.axis is None
                else self._own(entry, parts, where, n, skip_zeros)
                for entry, parts in zip(self.entries, kept, strict=True)
            ]
            state = self._layout.state(own)
            if self._layout.has_counts:  # which cannot be written over
                update, state = rule.step(block, state, **watched)
                own = tensors_of(state)
            else:
                update = rule.step_in_place(block, state, **watched)
            update = update.squeeze(0)
            zero = block.squeeze(0) == 0 if skip_zeros else None
            for entry, parts, tensor in zip(self.entries, kept, own, strict=True):
                _put(entry, parts, entry.from_rule(tensor, n), where, zero)
            yield where, self._from_rule(update if zero is None else update.masked_fill(zero, 0))

    def _part(self, seen: Observation, where: slice) -> Observation:
        """Of one block, in the type of arithmetic."""
        theta = self._to_rule(seen.parameters[where])
        return seen._replace(parameters=theta, loss=seen.loss.to(self._dtype))

    def _to_rule(self, block: Tensor) -> Tensor:
        """(n,) → (1, n), in the type of arithmetic and the order of the rule's own coordinates."""
        if self._order:
            block = block.view(self._shape).permute(self._order).reshape(-1)
        return block.to(self._dtype).unsqueeze(0)

    def _from_rule(self, update: Tensor) -> Tensor:
        """(n,), in the order of the parameter's coordinates."""
        if not self._order:
            return update
        assert self._shape is not None
        back = sorted(range(len(self._order)), key=self._order.__getitem__)
        shape = [self._shape[axis] for axis in self._order]
        return update.view(shape).permute(back).reshape(-1)

    def _are_own(self, kept: Sequence[Sequence[Tensor]]) -> bool:
        """Can the rule work on what is kept itself, or on parts of it?"""
        first = kept[0][0]
        return all(
            len(parts) == 1
            and entry.axis is not None
            and parts[0].device == self._device
            and parts[0].dtype == self._dtype
            and parts[0].data_ptr() != 0
            and parts[0].stride() == first.stride()
            and parts[0].stride(-1) == 1
            for entry, parts in zip(self.entries, kept, strict=True)
        )

    def _own(
        self, entry: Entry, parts: Sequence[Tensor], where: slice, n: int, apart: bool
    ) -> Tensor:
        """The rule's tensor for a block: what is kept itself, or a copy in the type of arithmetic.

        Args:
            apart: a copy in any case.
        """
        dtype = self._dtype if entry.dtype.is_floating_point else entry.dtype
        rows = _cut(parts, where, self._device)
        if apart or rows.dtype != dtype or not rows.is_contiguous() or not rows.data_ptr():
            size = rows.numel()
            place = entry.name, dtype
            if place not in self._scratch or self._scratch[place].numel() < size:
                self._scratch[place] = rows.new_empty(size, dtype=dtype)
            rows = self._scratch[place][:size].view(rows.shape).copy_(rows)
        return entry.to_rule(rows, n).contiguous()

    def _computed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def _rows(self, parameters: Sequence[Tensor], states: Sequence[Parts]) -> list[list[Tensor]]:
        """For each entry, what each parameter has of it."""
        return [
            [
                state[entry.name]
                if entry.axis is None
                else entry.rows(state[entry.name], parameter.shape)
                for parameter, state in zip(parameters, states, strict=True)
            ]
            for entry in self.entries
        ]


def _blocks(n: int, size: int) -> list[slice]:
    return [slice(begin, min(begin + size, n)) for begin in range(0, n, size)]


def _cut(rows: Sequence[Tensor], where: slice, device: torch.device) -> Tensor:
    """A block of rows (…, n), which lie in one piece, or the block is all of them."""
    if len(rows) == 1:
        return rows[0][..., where]
    return torch.cat([part.to(device) for part in rows], -1)[..., where]


def _put(
    entry: Entry,
    kept: Sequence[Tensor],
    rows: Tensor,
    where: slice,
    zero: Tensor | None = None,
) -> None:
    """Write a block of rows to where its parts are kept, but for coordinates where ``zero`` is."""
    if entry.axis is None:  # each parameter has one for itself
        for part in kept:
            part.copy_(rows)
        return
    if len(kept) == 1:
        pieces, into, zeros = [rows], [kept[0][..., where]], [zero]
    else:
        sizes = [part.shape[-1] for part in kept]
        pieces, into = list(rows.split(sizes, -1)), list(kept)
        zeros = [None] * len(kept) if zero is None else list(zero.split(sizes))
    for part, piece, nothing in zip(into, pieces, zeros, strict=True):
        if nothing is not None:
            piece = torch.where(nothing.to(part.device), part, piece.to(part))
        if not part.numel() or part.data_ptr() != piece.data_ptr() or not part.data_ptr():
            part.copy_(piece)
