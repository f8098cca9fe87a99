"""The contract between a task and everything else.

A task is a distribution over optimizees. It hands them out stacked: B independent functions of n
coordinates each, with parameters (B, n), losses (B,) and gradients (B, n).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from l2lgd.data.splits import Split as Split


def inputs_and_outputs_last(rank: int) -> tuple[int, ...]:
    """The order in which a rule has the axes of a PyTorch weight of that rank.

    PyTorch's are (outputs, inputs, …), a rule's (…, inputs, outputs).
    """
    return (*range(2, rank), 1, 0) if rank > 1 else tuple(range(rank))


class Optimizee(ABC):
    """B independent functions f_1 … f_B, stacked.

    A function is the same whenever and wherever it is evaluated: ``loss`` depends on its
    parameters and on the step alone, since the minibatch of step t belongs to the function. All
    optimizers can therefore be compared on the same functions and the same minibatches.
    """

    initial_parameters: Tensor  # (B, n)
    shapes: Mapping[str, tuple[int, ...]]  # named parameter tensors, in the order of coordinates
    stochastic: bool  # does the loss depend on a minibatch?

    @abstractmethod
    def loss(self, parameters: Tensor, step: int) -> Tensor:
        """f(θ) on the minibatch of ``step``, differentiable twice.

        ``((self.matrix @ parameters.unsqueeze(2)).squeeze(2) - self.target).square().sum(1)``, for
        example.

        Args:
            parameters: θ (B, n).
            step: t, which names the minibatch; 0 is that of the initial parameters.

        Returns:
            One loss for each function (B,), which depends on that function's row of θ alone.
        """

    @abstractmethod
    def select(self, rows: slice) -> Self:
        """The same functions, only those of ``rows``.

        ``type(self)(self.matrix[rows], self.target[rows], self.initial_parameters[rows])``, for
        example.

        Args:
            rows: of the B functions.

        Returns:
            Optimizees whose losses are the same numbers as here.
        """

    def joined(self, parts: Sequence[Self], begun: Sequence[int]) -> "Optimizee | None":
        """The functions of several draws in one stack, each at a step of its own.

        ``type(self)(torch.cat([part.matrix for part in parts]), …)``, for example, where the loss
        is the same at every step. By default None: each part is then evaluated by itself, which
        takes longer.

        Args:
            parts: stacks of functions of this class, with the same parameter tensors.
            begun: the step of the new stack at which each part is at its step 0.
        """
        return None

    def prefetch(self, steps: range) -> None:  # noqa: B027
        """Have what the losses of these steps need besides θ drawn, and on the device.

        It changes no number. It is called before an unroll, so that none of its steps waits for
        the CPU; a task that draws minibatches on the CPU does so here, in one transfer.
        """

    def inputs(self, step: int) -> tuple[Tensor, ...] | None:
        """What the loss of a step depends on besides θ, of the same shapes at every step.

        Steps are replayed as a CUDA graph where this is known. It is nothing, by default, where
        the loss is the same at every step, and None, unknown, where it is not.
        """
        return None if self.stochastic else ()

    def on(self, inputs: tuple[Tensor, ...]) -> "Optimizee":
        """These functions at the step that has ``inputs``, whatever the step is said to be."""
        return self

    def loss_and_gradient(self, parameters: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Losses (B,) and ∇f (B, n), both without a graph.

        The functions are independent, so the gradient of the sum is each one's own gradient.
        """
        leaf = parameters.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.loss(leaf, step)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        return loss.detach(), gradient

    def hessian_product(self, parameters: Tensor, step: int, vector: Tensor) -> Tensor:
        """∇²f(θ) v of each function: (B, n) for a vector (B, n), without a graph."""
        leaf = parameters.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.loss(leaf, step).sum()
            (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
            if not gradient.requires_grad:  # linear functions
                return torch.zeros_like(vector)
            return torch.autograd.grad(gradient, leaf, vector, materialize_grads=True)[0]

    def parameter_slices(self) -> dict[str, slice]:
        """Where each named parameter tensor lies among the n coordinates."""
        slices, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + torch.Size(shape).numel()
            slices[name] = slice(start, stop)
            start = stop
        return slices

    def unpack(self, parameters: Tensor) -> dict[str, Tensor]:
        """Views of ``parameters`` (B, n) under their names, each (B, *shape)."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes.values()]
        pieces = parameters.split(sizes, dim=1)
        return {
            name: piece.unflatten(1, shape) if shape else piece.squeeze(1)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }


class Task(ABC):
    """A distribution over optimizees. The constructor takes options only, and is cheap."""

    name: str
    not_in_keys: tuple[str, ...] = ()  # options that say where data is, or are about meta-training
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32

    def setup(
        self, data_dir: str, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        """Load what the task needs; called once, before the first ``sample``.

        Raises:
            DataUnavailable: a data set could neither be found nor downloaded.
        """
        self.device, self.dtype = device, dtype

    @abstractmethod
    def sample(self, split: Split, num_functions: int, generator: torch.Generator) -> Optimizee:
        """Draw optimizees, with their initial parameters and minibatches.

        ``Quadratics(torch.rand(num_functions, n, n, generator=generator).to(self.device), …)``,
        for example.

        Args:
            split: whose data they are made of; splits never share data.
            num_functions: B.
            generator: on the CPU, the only source of randomness, so that every device has the
                same functions.

        Returns:
            B stacked functions on ``self.device``, of type ``self.dtype``.
        """

    def held_out(
        self, functions: Optimizee, split: Split, generator: torch.Generator
    ) -> Optimizee | None:
        """The same functions on the examples of another split.

        What was trained on one split's examples is judged by another's. The functions keep their
        parameter tensors and all that is theirs alone, such as the entries of a matrix; the
        minibatches are as large as in training, so that batch normalisation is the same, or all
        examples where a step has all. By default None: the functions are not made of examples.

        Args:
            functions: B of them, that this task has sampled, of any split, or ``select`` has.
            split: whose examples they are given; that of the functions gives other minibatches of
                the same examples.
            generator: on the CPU, the only source of randomness.

        Returns:
            B stacked functions, whose steps are minibatches of ``split``; None where there are
            none, or the functions are not this task's.
        """
        return None

    def data_description(self) -> dict[str, object] | None:
        """Name, source and size of the data in use, or None for a task without data.

        ``{"name": "digits", "source": "scikit-learn", "num_examples": {"train": 1400, "validation":
        200, "test": 197}}``, for example. Other entries, of what JSON has, are kept with results;
        ``note`` is put into captions.
        """
        return None

    def parts(self) -> Mapping[str, "TaskPart"]:
        """The tasks that this one consists of, by name; by default it is the only one.

        Each meta-step is on functions of one part, drawn by weight. ``sample`` of a task with
        several parts is never called in a meta-training.
        """
        return {getattr(self, "name", type(self).__name__): TaskPart(self)}


@dataclass(frozen=True)
class TaskPart:
    """One of the tasks that a task consists of.

    Args:
        task: has been set up.
        weight: how often it is drawn, in proportion to those of the others.
        num_steps: T of its trajectories; None for that of the run.
    """

    task: Task
    weight: float = 1.0
    num_steps: int | None = None
