"""An optimizer's step in blocks of coordinates, so that its memory does not grow with n.

The state of all blocks lies in a few flat tensors, one block after the other, each as the
optimizer wants it: a state belongs to one size of blocks.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from l2lgd.optimizers.base import Optimizer, State, like_state, map_state, tensors_of

NAME = "recurrent{}"  # of the flat tensors


class Blockwise:
    """Steps of one function (B = 1) of any number of coordinates.

    Args:
        optimizer: on the device of the parameters.
        dtype: what it computes in.
    """

    def __init__(self, optimizer: Optimizer, dtype: torch.dtype) -> None:
        self._optimizer, self._dtype = optimizer, dtype
        self._templates: dict[int, State] = {}  # by the size of a block; they take no memory

    def initial(
        self, parameters: Tensor, size: int, kept_in: torch.dtype | None
    ) -> dict[str, Tensor]:
        """The state before the first step, by name.

        Args:
            parameters: θ_0 (n,).
            size: of a block.
            kept_in: type of the flat tensors; None for that of the arithmetic.
        """
        types = [p.dtype for p in tensors_of(self._template(parameters[:size]))]
        flat = {}
        for index, (count, own) in enumerate(zip(self.sizes(parameters, size), types, strict=True)):
            dtype = kept_in if kept_in and own.is_floating_point else own
            flat[NAME.format(index)] = parameters.new_empty(count, dtype=dtype)
        for where, views in self._blocks(parameters, flat, size):
            block = parameters[where].to(self._dtype).unsqueeze(0)
            _write(views, self._optimizer.initial_state(block))
        return flat

    def sizes(self, parameters: Tensor, size: int) -> list[int]:
        """Numbers in each flat tensor."""
        n = len(parameters)
        blocks = [(parameters[:size], n // size), (parameters[: n % size], 1)]
        found = [
            [times * part.numel() for part in tensors_of(self._template(block))]
            for block, times in blocks
            if len(block) and times
        ]
        return [sum(parts) for parts in zip(*found, strict=True)]

    def updates(
        self, gradient: Tensor, state: Mapping[str, Tensor], size: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """The update of each block of coordinates; leaves the next state in ``state``."""
        for where, views in self._blocks(gradient, state, size):
            own = map_state(self._computed, views)
            block = gradient[where].to(self._dtype).unsqueeze(0)
            update = self._optimizer.step_in_place(block, own)
            _write(views, own)
            yield where, update.squeeze(0)

    def _computed(self, part: Tensor) -> Tensor:
        return part.to(self._dtype) if part.is_floating_point() else part

    def _blocks(
        self, flat: Tensor, state: Mapping[str, Tensor], size: int
    ) -> Iterator[tuple[slice, State]]:
        """Each block of a flat tensor (n,), and its part of the state."""
        at = [0] * len(state)
        for begin in range(0, len(flat), size):
            where = slice(begin, min(begin + size, len(flat)))
            template = self._template(flat[where])
            views = []
            for index, like in enumerate(tensors_of(template)):
                part = state[NAME.format(index)][at[index] : at[index] + like.numel()]
                views.append(part.view(like.shape))
                at[index] += like.numel()
            yield where, like_state(template, views)

    def _template(self, block: Tensor) -> State:
        """What the state of a block looks like."""
        if len(block) not in self._templates:
            state = self._optimizer.initial_state(block.to(self._dtype).unsqueeze(0))
            self._templates[len(block)] = map_state(
                lambda part: part.new_empty(()).expand(part.shape), state
            )
        return self._templates[len(block)]


def _write(into: State, state: State) -> None:
    for mine, part in zip(tensors_of(into), tensors_of(state), strict=True):
        if mine is not part:
            mine.copy_(part)
