"""Which examples of a data set are in the minibatches of B functions."""

from collections.abc import Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

from l2lgd.seeding import generator


class Streams(Protocol):
    """The examples in the minibatches of B functions at each step."""

    def index(self, step: int) -> Tensor:
        """Of the examples of a step, (B, batch), on the device."""

    def prefetch(self, steps: Sequence[int]) -> None:
        """Have the indices of these steps, and no others, on the device."""

    def select(self, rows: slice) -> "Streams":
        """The streams of some of the functions."""


class Minibatches:
    """B streams of minibatches, drawn with replacement, the same on every device.

    Args:
        count: examples of the data set.
        batch_size: of them in a minibatch.
        seed: of the streams.
        stacked: how many functions that seed has.
        rows: which of them these B are.
        examples: how many of the data set each function has, drawn at random; None for all.
        device: where indices are wanted.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        stacked: int,
        rows: slice = slice(None),
        examples: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.stacked, self.rows, self.examples, self.device = stacked, rows, examples, device
        self._own: Tensor | None = None  # what each function has (B, examples), on the CPU
        if examples is not None and examples < count:
            drawn = range(stacked)[rows]
            self._own = torch.stack([self._draw_examples(function) for function in drawn])
        self._ahead: dict[int, Tensor] = {}  # by step

    def _draw_examples(self, function: int) -> Tensor:
        draw = generator(self.seed, "examples", function)
        return torch.randperm(self.count, generator=draw)[: self.examples]

    def index(self, step: int) -> Tensor:
        """Of the examples of a step, (B, batch), on the device."""
        ready = self._ahead.get(step)
        return self._moved([step])[0] if ready is None else ready

    def prefetch(self, steps: Sequence[int]) -> None:
        """Have the indices of these steps, and no others, on the device."""
        if any(step not in self._ahead for step in steps):
            self._ahead = dict(zip(steps, self._moved(steps), strict=True))

    def select(self, rows: slice) -> Self:
        """The streams of some of the functions."""
        chosen = range(self.stacked)[self.rows][rows]
        return type(self)(
            self.count,
            self.batch_size,
            self.seed,
            self.stacked,
            slice(chosen.start, chosen.stop, chosen.step),
            self.examples,
            self.device,
        )

    def _moved(self, steps: Sequence[int]) -> Tensor:
        """Of several steps (U, B, batch), in one transfer."""
        drawn = torch.stack([self._draw(step) for step in steps])
        if torch.device(self.device).type == "cuda":
            return drawn.pin_memory().to(self.device, non_blocking=True)
        return drawn.to(self.device)

    def _draw(self, step: int) -> Tensor:
        draw = generator(self.seed, "minibatch", step)
        count = self.count if self._own is None else self._own.shape[1]
        index = torch.randint(count, (self.stacked, self.batch_size), generator=draw)[self.rows]
        return index if self._own is None else self._own.gather(1, index)


class OneMinibatch:
    """The same minibatch at every step.

    Args:
        index: of its examples (B, batch).
    """

    def __init__(self, index: Tensor) -> None:
        self._index = index

    def index(self, step: int) -> Tensor:
        """As for :class:`Minibatches`."""
        return self._index

    def prefetch(self, steps: Sequence[int]) -> None:
        """As for :class:`Minibatches`."""

    def select(self, rows: slice) -> "OneMinibatch":
        """As for :class:`Minibatches`."""
        return OneMinibatch(self._index[rows])


class JoinedMinibatches:
    """The streams of several draws, each at a step of its own.

    Args:
        parts: some may be there twice.
        begun: the step at which each is at its step 0.
    """

    def __init__(self, parts: Sequence[Streams], begun: Sequence[int]) -> None:
        self._parts, self._begun = list(parts), list(begun)

    def index(self, step: int) -> Tensor:
        """As for :class:`Minibatches`."""
        found: dict[int, Tensor] = {}
        for part, begun in zip(self._parts, self._begun, strict=True):
            if id(part) not in found:
                found[id(part)] = part.index(step - begun)
        return torch.cat([found[id(part)] for part in self._parts])

    def prefetch(self, steps: Sequence[int]) -> None:
        """As for :class:`Minibatches`."""
        for part, begun in zip(self._parts, self._begun, strict=True):
            part.prefetch([step - begun for step in steps if step >= begun])

    def select(self, rows: slice) -> "JoinedMinibatches":
        """As for :class:`Minibatches`."""
        each = [
            (part.select(slice(row, row + 1)), begun)
            for part, begun in zip(self._parts, self._begun, strict=True)
            for row in range(len(part.index(0)))
        ]
        parts, begun = zip(*each[rows], strict=True)
        return JoinedMinibatches(parts, begun)
