"""Any optimizer of torch.optim and of two other libraries, as a user of those runs it."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from l2lgd.errors import ConfigError, is_out_of_memory, one_line
from l2lgd.optimizers.base import TunedOptimizer
from l2lgd.optimizers.library_classes import blueprint_of, class_of, manner_of
from l2lgd.optimizers.observation import Observation
from l2lgd.optimizers.rate_schedules import factor, known_schedule, one_for_all
from l2lgd.optimizers.search_space import SearchSpace, known_beta, known_decay, known_space
from l2lgd.optimizers.solver import FunctionElsewhere, Solver, flat, pieces, reseed, undisturbed


class LibraryState(NamedTuple):
    """Before a step. Optimizer objects are changed in place, so each state may be used once."""

    solvers: list[Solver]  # one for all functions, or one a function
    reached: Tensor  # θ_t (B, n) as the updates have led there
    steps: int  # done


class LibraryOptimizer(TunedOptimizer[LibraryState]):
    """An optimizer of a library, the object itself, on parameters with the functions' shapes.

    Functions are optimized one by one, as if each had a process of its own. Where a class treats
    every coordinate alike and apart, which is found by trial, one object steps all of them as a
    tensor (B, n), which is much faster and gives the same numbers.

    Some classes want more than gradients:

    * Muon takes matrices alone. All other tensors go to AdamW with the same learning rate and
      schedule; its weight decay is AdamW's own where none is given. Embeddings and output layers
      are matrices here, which its authors give to AdamW. The Muon of
      ``pytorch_optimizer`` has both within it, and is told by ``use_muon`` which tensors are
      whose; tensors of more than two dimensions are then matrices, too.
    * LBFGS evaluates the function several times within a step, on one minibatch, and each function
      has a line search of its own.
    * Schedule-Free asks for gradients at one point and answers with another: the loss is reported
      at the one that ``optimizer.eval()`` leads to, see :meth:`evaluated`.
    * Where random numbers are drawn, they depend on the step, and are the same for each function.

    A function whose gradient is not finite has diverged, and has updates that are NaN from then on.

    Args:
        algorithm: a class of the package.
        package: ``torch.optim``, ``pytorch_optimizer`` or ``schedulefree``.
        learning_rate: None until it is tuned.
        schedule: ``constant``; ``cosine``, to 0 over the horizon; or ``linear``, up over the first
            tenth of the horizon, then down to 0. The last two need the horizon to be known.
        weight_decay: None for the library's default.
        beta2: the last of the class's ``betas``; None for the library's default.
        arguments: further arguments of the class.
        space: what a search may try, see :func:`~l2lgd.optimizers.search_space.known_space`. It
            is checked and kept as ``space``.

    Raises:
        ConfigError: no such package or class, or the class does not run with these arguments.
    """

    differentiable = False

    def __init__(
        self,
        algorithm: str,
        package: str = "torch.optim",
        learning_rate: float | None = None,
        schedule: str = "constant",
        weight_decay: float | None = None,
        beta2: float | None = None,
        arguments: dict[str, Any] | None = None,
        space: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(learning_rate)
        self.schedule = known_schedule(schedule)
        known_decay("weight_decay", weight_decay)
        known_beta("beta2", beta2)
        self.space: SearchSpace | None = known_space(space)
        kind = class_of(package, algorithm)
        blueprint = blueprint_of(kind, arguments or {}, weight_decay, beta2)
        for name, needed in (("weight_decay", "weight_decay"), ("beta2", "betas")):
            if self.space and name in self.space and blueprint.argument(needed) is None:
                raise ConfigError(f"space.{name}: {algorithm} has no {needed}; leave it out")
        self.algorithm = algorithm
        self._manner = manner_of(blueprint)
        self._shapes: list[tuple[int, ...]] | None = None  # None for one tensor

    @property
    def observes(self) -> tuple[str, ...]:  # type: ignore[override]
        scheduled = () if self.schedule == "constant" else ("step", "horizon")
        return (*scheduled, *(("loss", "evaluate") if self._manner.closure else ()))

    @property
    def coordinatewise(self) -> bool:
        return self._manner.elementwise

    def named(self, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        bound = copy.copy(self)
        bound._shapes = [tuple(shape) for shape in shapes.values()]
        return bound

    def initial_state(self, parameters: Tensor) -> LibraryState:
        rate = self.tuned_rate()  # fails now rather than in the first step
        reached = parameters.detach().clone()
        tensors = [[reached]]
        if not self._manner.elementwise:
            tensors = [self._pieces(row) for row in reached]
        solvers = []
        for own in tensors:
            with undisturbed(parameters.device, 0):
                solvers.append(Solver(self._manner.blueprint, own, rate))
        return LibraryState(solvers, reached, 0)

    def step(
        self,
        gradient: Tensor,
        state: LibraryState,
        width: Tensor | None = None,
        seen: Observation | None = None,
    ) -> tuple[Tensor, LibraryState]:
        """One step of the library's.

        Raises:
            ConfigError: the state was used before, or the horizon or the function is not known
                where it is needed, or the library refuses to step.
        """
        _check_first_use(state)
        rate, device = self._rate(seen), gradient.device
        with undisturbed(device, state.steps):
            if self._manner.elementwise:
                (solver,) = state.solvers
                self._advance(solver, [gradient], rate, None)
                own = solver.parameters[0].detach()
            else:
                finite = gradient.isfinite().all(1).tolist()
                for row, solver in enumerate(state.solvers):
                    reseed(device, state.steps)
                    solver.lost |= not finite[row]
                    elsewhere = self._elsewhere(seen, row, gradient, state)
                    self._advance(solver, self._pieces(gradient[row]), rate, elsewhere)
                own = torch.stack([flat(solver.parameters) for solver in state.solvers])
        update = own - state.reached
        # The sum rounds as the caller's does: differences do not add up.
        following = LibraryState(state.solvers, state.reached + update, state.steps + 1)
        return update, following

    def evaluated(self, parameters: Tensor, state: LibraryState) -> Tensor:
        """Where ``optimizer.eval()`` of Schedule-Free and the like leads; θ_t of all others."""
        if not self._manner.averages:
            return parameters
        _check_first_use(state)
        if self._manner.elementwise:
            return state.solvers[0].averaged()[0]
        rows = [
            torch.full_like(parameters[row], torch.nan) if solver.lost else flat(solver.averaged())
            for row, solver in enumerate(state.solvers)
        ]
        return torch.stack(rows)

    def _rate(self, seen: Observation | None) -> float:
        if self.schedule == "constant":
            return self.tuned_rate()
        if seen is None or seen.horizon is None:
            raise ConfigError(
                f"schedule={self.schedule} needs the number of steps T, which is not known here; "
                "take opt.schedule=constant"
            )
        step, horizon = one_for_all(seen.step), one_for_all(seen.horizon)
        return self.tuned_rate() * factor(self.schedule, step, horizon)

    def _elsewhere(
        self, seen: Observation | None, row: int, gradient: Tensor, state: LibraryState
    ) -> FunctionElsewhere | None:
        """A function, for its line search; what is known of θ_t is not evaluated again."""
        if not self._manner.closure:
            return None
        if seen is None or seen.evaluate is None:
            raise ConfigError(
                f"{self.algorithm} evaluates functions within a step, which cannot be done here"
            )
        evaluate, here, loss = seen.evaluate, state.reached[row], seen.loss[row]

        def found(tensors: Any) -> tuple[Tensor, list[Tensor]]:
            theta = flat(tensors)
            if theta.equal(here):
                return loss.detach(), self._pieces(gradient[row])
            losses, gradients = evaluate(theta.unsqueeze(0), slice(row, row + 1))
            return losses[0], self._pieces(gradients[0])

        return found

    def _advance(
        self,
        solver: Solver,
        gradients: list[Tensor],
        rate: float,
        elsewhere: FunctionElsewhere | None,
    ) -> None:
        """A step, or NaN; a function whose numbers a decomposition cannot take has diverged.

        Raises:
            ConfigError: the library refuses to.
        """
        if solver.lost:
            solver.give_up()
            return
        try:
            solver.step(gradients, rate, elsewhere)
        except (LinAlgError, ArithmeticError):
            solver.give_up()
        except Exception as error:  # each class has its own ways of refusing tensors
            if isinstance(error, OSError | ConfigError) or is_out_of_memory(error):
                raise
            shapes = ", ".join(str(tuple(p.shape)) for p in solver.parameters)
            raise ConfigError(
                f"algorithm={self.algorithm} cannot step tensors of shapes {shapes}: "
                f"{one_line(error)}"
            ) from error

    def _pieces(self, row: Tensor) -> list[Tensor]:
        return pieces(row, [tuple(row.shape)] if self._shapes is None else self._shapes)


def _check_first_use(state: LibraryState) -> None:
    if any(solver.steps != state.steps for solver in state.solvers):
        raise ConfigError(
            "a state of a library's optimizer was used twice; a step changes it, so that there is "
            "no asking for another one from the same state"
        )
