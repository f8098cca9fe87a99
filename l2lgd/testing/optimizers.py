"""What must hold for an optimizer, built in float64 on the CPU."""

import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from l2lgd.errors import ConfigError
from l2lgd.meta.estimators.base import Estimator, MetaProblem
from l2lgd.meta.estimators.es import TruncatedES
from l2lgd.meta.estimators.full_es import FullES
from l2lgd.meta.estimators.pes import PersistentES
from l2lgd.meta.estimators.replay import Replay
from l2lgd.meta.estimators.textbook import Textbook
from l2lgd.meta.rollout import Position, advance, start
from l2lgd.meta.schedules import Unroll
from l2lgd.optimizers.base import LearnedRule, Optimizer, TunedOptimizer, given, tensors_of
from l2lgd.optimizers.observation import Observation
from l2lgd.optimizers.vectorised import stack
from l2lgd.pretrained.learned_optimizer import LearnedOptimizer
from l2lgd.storage import checkpoint
from l2lgd.system.ranks import Ranks
from l2lgd.tasks.base import Optimizee
from l2lgd.tasks.quadratic import QuadraticTask
from l2lgd.testing.base import (
    B,
    Failed,
    basic,
    default_type,
    distance,
    normal,
    same_random_state,
    seeded,
)

N, STEPS = 6, 5  # coordinates of the functions, and steps
ROUNDING = 1e-9
SLOPES = 1e-4  # of differences
AS_TEXTBOOK = 1e-7
AS_STACKED = 1e-7
AS_WRAPPED = 1e-6
FACTOR, SCALED = 1.5, 1e-6
ESTIMATORS: dict[str, Callable[[], Estimator]] = {
    "replay": lambda: Replay(second_derivatives=True),
    "textbook": lambda: Textbook(second_derivatives=True),
    "full_es": FullES,
    "es": TruncatedES,
    "pes": PersistentES,
}


@dataclass(frozen=True)
class OptimizerCase:
    """An optimizer and how it is built.

    Args:
        optimizer: in float64 on the CPU.
        node: its options and ``_target_``.
        allow_targets: packages that targets may come from.
    """

    optimizer: Optimizer
    node: Mapping[str, Any]
    allow_targets: Sequence[str] = ()

    @property
    def owner(self) -> Optimizer:
        """Whose code is checked."""
        return self.optimizer

    def rule(self) -> LearnedRule | None:
        """The optimizer, where it is a learned one."""
        return self.optimizer if isinstance(self.optimizer, LearnedRule) else None

    def ready(self) -> Optimizer:
        """The optimizer, with a learning rate and with φ drawn."""
        if isinstance(self.optimizer, TunedOptimizer) and self.optimizer.learning_rate is None:
            self.optimizer.learning_rate = 0.01
        if isinstance(self.optimizer, LearnedRule):
            self.optimizer.reset_parameters(seeded("phi"))
            with torch.no_grad():  # initial weights may be zero, where little can be seen
                for k, weight in enumerate(self.optimizer.phi()):
                    weight.add_(0.02 * normal(weight, "phi", k))
        return self.optimizer


def functions(count: int = B, dtype: torch.dtype = torch.float64) -> Optimizee:
    """Quadratics."""
    task = QuadraticTask(dimension=N)
    task.setup("", torch.device("cpu"), dtype)
    return task.sample("train", count, seeded("functions"))


def run(optimizer: Optimizer, own: Optimizee, steps: int = STEPS) -> Position:
    """Where an optimizer has come after some steps."""
    at = start(optimizer, own, horizon=STEPS)
    for _ in range(steps):
        at = advance(at)
    return at


@basic
def states_are_made_of_tensors(case: OptimizerCase) -> None:
    """Tensors, whole numbers that count, tuples, named tuples and dicts."""
    optimizer, own = case.ready(), functions()
    if not optimizer.differentiable:  # which may keep what it likes
        return
    optimizer = optimizer.named(own.shapes)
    state = optimizer.initial_state(own.initial_parameters)
    try:
        tensors = tensors_of(state)
    except ConfigError as error:
        raise Failed(str(error), optimizer.initial_state) from error
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.dim() and tensor.dtype != torch.float64:
            raise Failed(
                f"a state has a tensor of {tensor.dtype} for parameters of torch.float64; make it "
                "by parameters.new_zeros(…)",
                optimizer.initial_state,
            )


@basic
def steps_take_all_arguments(case: OptimizerCase) -> None:
    """(gradient, state, width=None), and ``seen`` where something is observed."""
    step = type(case.optimizer).step
    parameters = list(inspect.signature(step).parameters.values())[1:]
    names = [p.name for p in parameters]
    anything = {p.kind for p in parameters} & {inspect.Parameter.VAR_KEYWORD}
    wanted = ["width", *(["seen"] if case.optimizer.observes else [])]
    missing = [name for name in wanted if name not in names and not anything]
    if missing:
        arguments = ", ".join(f"{name}=None" for name in wanted)
        raise Failed(
            f"step({', '.join(names)}) lacks {missing[0]}=None: write step(self, gradient, state, "
            f"{arguments})",
            step,
        )
    needed = [
        p.name
        for p in parameters[2:]
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "seen"
    ]
    if needed:
        raise Failed(f"step needs {needed[0]}, which may be left out; give it =None", step)


@basic
def updates_have_the_shape_of_gradients(case: OptimizerCase) -> None:
    """An update (B, n), finite, and a state like the one before; arguments stay as they are."""
    optimizer, own = case.ready(), functions()
    at = start(optimizer, own, horizon=STEPS)
    optimizer, state = at.optimizer, at.states[0]
    block = at.blocks[0]
    gradient = at.gradient[block].clone()
    seen = at.seen()
    told = given(seen and seen.of(*block))
    with torch.no_grad():
        found = optimizer.step(gradient, state, **told)
    if not isinstance(found, tuple) or len(found) != 2:
        raise Failed("step must return (update, next state)", optimizer.step)
    update, following = found
    if not isinstance(update, Tensor) or update.shape != gradient.shape:
        shape = tuple(update.shape) if isinstance(update, Tensor) else type(update).__name__
        raise Failed(
            f"the update of a gradient {tuple(gradient.shape)} is {shape}: it must be as large",
            optimizer.step,
        )
    if not update.isfinite().all():
        raise Failed("the first update is not finite", optimizer.step)
    if not gradient.equal(at.gradient[block]):
        raise Failed("step changes the gradient that it is given", optimizer.step)
    if not optimizer.differentiable:
        return
    before, after = tensors_of(state), tensors_of(following)
    if [p.shape for p in before] != [p.shape for p in after]:
        shapes = [[tuple(p.shape) for p in parts] for parts in (before, after)]
        raise Failed(
            f"the next state has tensors {shapes[1]}, and the one before {shapes[0]}; they must be "
            "of the same shapes",
            optimizer.step,
        )
    with torch.no_grad():
        again, _ = optimizer.step(gradient, state, **told)
    if not again.equal(update):
        raise Failed(
            "a second call with the same gradient and state gives another update; a step must "
            "change neither the state nor the optimizer, and draw nothing",
            optimizer.step,
        )


def stacked_functions_are_stepped_as_if_alone(case: OptimizerCase) -> None:
    """Nothing is shared between functions."""
    own = functions()
    together = run(case.ready(), own)
    for row in range(B):
        alone = run(case.ready(), own.select(slice(row, row + 1)))
        if distance(alone.parameters, together.parameters[row : row + 1]) > ROUNDING:
            raise Failed(
                "a function is optimized otherwise in a stack than alone; is there a mean over "
                "dimension 0, or something kept on the optimizer?",
                case.optimizer.step,
            )


def coordinates_may_be_stepped_apart(case: OptimizerCase) -> None:
    """Where the optimizer says that it is coordinatewise: in another order, and only some."""
    if not case.optimizer.coordinatewise:
        return
    optimizer, order = case.ready(), torch.randperm(N, generator=seeded("order"))
    together = updates(optimizer)
    if distance(updates(optimizer, order), together[:, :, order]) > ROUNDING:
        raise Failed(
            "coordinatewise is True, and permuted gradients do not have permuted updates",
            case.optimizer.step,
        )
    half = torch.arange(N // 2)
    if distance(updates(optimizer, half), together[:, :, half]) > ROUNDING:
        raise Failed(
            "coordinatewise is True, and coordinates alone have other updates than among others; "
            "is there a mean or a norm over dimension 1?",
            case.optimizer.step,
        )


def updates(
    optimizer: Optimizer, of: Tensor | None = None, row: int | None = None, apart: bool = False
) -> Tensor:
    """The updates (steps, functions, coordinates) by gradients that do not depend on them.

    Args:
        of: coordinates; None for all of them.
        row: the only function; None for all of them.
        apart: has each function a step and a horizon of its own, as particles have?
    """
    rows, columns = slice(None) if row is None else slice(row, row + 1), slice(None)
    theta = normal(torch.zeros(B, N, dtype=torch.float64), "theta")[rows]
    theta = theta[:, columns if of is None else of]
    bound = optimizer.named({"theta": tuple(theta.shape[1:])})
    state, found = bound.initial_state(theta), []
    for step in range(3):
        gradient = normal(torch.zeros(B, N, dtype=torch.float64), "gradient", step)[rows]
        gradient = gradient[:, columns if of is None else of]
        seen = None
        if optimizer.observes:
            seen = Observation(theta, theta.new_ones(len(theta)), step, STEPS)
            if apart:
                each = [torch.full((len(theta),), number) for number in (step, STEPS)]
                seen = seen._replace(step=each[0], horizon=each[1])
        with torch.no_grad():
            update, state = bound.step(gradient, state, **given(seen))
        found.append(update)
    return torch.stack(found)


def functions_may_have_weights_of_their_own(case: OptimizerCase) -> None:
    """``stacked(phi)`` steps each function as the rule with these weights does."""
    rule = case.rule()
    if rule is None or not rule.phi():
        return
    case.ready()
    weights = rule.phi()
    begin = [weight.detach().clone() for weight in weights]
    phi = [
        torch.stack([w + 0.02 * normal(w, "weights", k, row) for row in range(B)])
        for k, w in enumerate(begin)
    ]
    try:
        found = updates(stack(rule.named({"theta": (N,)}), phi), apart=True)
    except ConfigError:  # every_estimator_runs says so
        return
    for row in range(B):
        with torch.no_grad():
            for weight, own in zip(weights, phi, strict=True):
                weight.copy_(own[row])
        if distance(found[:, row : row + 1], updates(rule, row=row)) > AS_STACKED:
            raise Failed(
                "with weights of its own for each function, by stacked, a function is stepped "
                "otherwise than by the rule with these weights",
                rule.stacked,
            )


def updates_can_be_scaled(case: OptimizerCase) -> None:
    """By ``scale_updates``, where there is a way to."""
    rule = case.rule()
    if rule is None:
        return
    case.ready()
    before = updates(rule)
    try:
        rule.scale_updates(FACTOR)
    except ConfigError:
        return
    if distance(updates(rule), FACTOR * before) > SCALED:
        raise Failed(
            f"after scale_updates({FACTOR}) updates are not {FACTOR} times what they were; where "
            "there is no way to, leave it out",
            rule.scale_updates,
        )


def the_generator_decides_the_initial_weights(case: OptimizerCase) -> None:
    """The same seed, the same φ."""
    rule = case.rule()
    if rule is None:
        return

    def drawn(seed: int) -> list[Tensor]:
        rule.reset_parameters(seeded("phi", seed))
        return [weight.detach().clone() for weight in rule.phi()]

    first, untouched = same_random_state(lambda: drawn(0))
    if not untouched:
        raise Failed(
            "reset_parameters draws from PyTorch's global generator; hand it generator=generator",
            rule.reset_parameters,
        )
    if not all(a.equal(b) for a, b in zip(first, drawn(0), strict=True)):
        raise Failed("reset_parameters gives other weights each time", rule.reset_parameters)


def meta_gradients_are_those_of_differences(case: OptimizerCase) -> None:
    """Replay against textbook, of both orders, and against differences of the meta-loss."""
    rule = case.rule()
    if rule is None or not rule.phi():
        return
    case.ready()
    own = functions()
    first, ours = (_meta_gradient(rule, own, made()) for made in (Textbook, Replay))
    if distance(first, ours) > AS_TEXTBOOK:
        raise Failed(
            "the first-order meta-gradient by vector_jacobian_product is not that of autograd "
            "through the loop; is something detached, or vector_jacobian_product wrong?",
            rule.vector_jacobian_product,
        )
    second, ours = (_meta_gradient(rule, own, ESTIMATORS[n]()) for n in ("textbook", "replay"))
    if distance(second, ours) > AS_TEXTBOOK:
        raise Failed(
            "the meta-gradient by step_back is not that of autograd through the loop; is "
            "something detached, or step_back wrong?",
            rule.step_back,
        )
    begin = [weight.detach().clone() for weight in rule.phi()]
    direction = normal(ours, "direction")
    direction /= direction.norm()

    def meta_loss(size: float) -> float:
        with torch.no_grad():
            pieces = direction.split([weight.numel() for weight in begin])
            for weight, old, piece in zip(rule.phi(), begin, pieces, strict=True):
                weight.copy_(old + size * piece.view_as(old))
        at, total = start(rule, own, horizon=STEPS), 0.0
        for _ in range(STEPS):
            at = advance(at)
            total += at.loss.mean().item()
        return total

    size = 1e-5
    slope = (meta_loss(size) - meta_loss(-size)) / (2 * size)
    meta_loss(0.0)
    said = float(ours @ direction)
    least = 1e-9 * max(1.0, float(ours.norm()))
    if abs(said - slope) > SLOPES * max(abs(slope), abs(said)) + least:
        raise Failed(
            f"along a direction of φ the meta-gradient is {said:.6g}, and the meta-loss changes by "
            f"{slope:.6g}; is something in step detached, or not differentiable?",
            rule.step,
        )


def _meta_gradient(rule: LearnedRule, own: Optimizee, estimator: Estimator) -> Tensor:
    """All weights', flat."""
    rule.zero_grad()
    estimator.begin(_problem(rule, own)).unroll(0.0)
    pieces = [(w.grad if w.grad is not None else torch.zeros_like(w)) for w in rule.phi()]
    return torch.cat([piece.flatten() for piece in pieces])


def every_estimator_runs(case: OptimizerCase) -> None:
    """Two unrolls of each, with finite meta-gradients."""
    rule = case.rule()
    if rule is None or not rule.phi():
        return
    for name, made in ESTIMATORS.items():
        case.ready()
        rule.zero_grad()
        length = STEPS if name == "full_es" else 2
        course = made().begin(_problem(rule, functions(), length))
        for _ in range(2):
            try:
                course.unroll(0.0)
            except Exception as error:
                raise Failed(
                    f"estimator={name}: {type(error).__name__}: {error}".splitlines()[0], rule.step
                ) from error
        if not all(w.grad is None or w.grad.isfinite().all() for w in rule.phi()):
            raise Failed(f"estimator={name}: a meta-gradient is not finite", rule.step)


def pytorch_steps_as_meta_training_does(case: OptimizerCase) -> None:
    """``LearnedOptimizer`` on the parameter of a function, to 1e-6."""
    rule = case.rule()
    if rule is None:
        return
    case.ready()
    rule.float()
    try:
        with default_type(torch.float32):  # as it is where nobody checks
            _as_wrapped(case, rule)
    finally:
        rule.double()


def _as_wrapped(case: OptimizerCase, rule: LearnedRule) -> None:
    own = functions(1, torch.float32)
    expected = run(rule, own).parameters
    theta = nn.Parameter(own.initial_parameters[0].clone())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        checkpoint.save(path, rule.state_dict(), {"opt": dict(case.node)})
        wrapped = LearnedOptimizer(
            [("theta", theta)],
            weights=str(path),
            horizon=STEPS,
            allow_targets=case.allow_targets,
        )
    for step in range(STEPS):
        wrapped.zero_grad()
        loss = own.loss(theta.unsqueeze(0), step).sum()
        loss.backward()
        wrapped.step(loss=loss.detach())
    if distance(theta.detach(), expected[0]) > AS_WRAPPED:
        raise Failed(
            "LearnedOptimizer takes other steps than meta-training; does step use what is "
            "neither its argument nor in the state?",
            rule.step,
        )


class _OneDraw(QuadraticTask):
    """A task that always draws the same functions."""

    def __init__(self, own: Optimizee) -> None:
        super().__init__(dimension=N)
        self._own = own

    def sample(self, split: Any, num_functions: int, generator: torch.Generator) -> Any:
        return self._own.select(slice(0, num_functions))


def _problem(rule: LearnedRule, own: Optimizee, length: int = STEPS) -> MetaProblem:
    return MetaProblem(rule, _OneDraw(own), Unroll([length]), B, STEPS, 0, Ranks())


OPTIMIZER_CHECKS: tuple[Callable[[OptimizerCase], None], ...] = (
    states_are_made_of_tensors,
    steps_take_all_arguments,
    updates_have_the_shape_of_gradients,
    stacked_functions_are_stepped_as_if_alone,
    coordinates_may_be_stepped_apart,
    the_generator_decides_the_initial_weights,
    meta_gradients_are_those_of_differences,
    functions_may_have_weights_of_their_own,
    every_estimator_runs,
    pytorch_steps_as_meta_training_does,
    updates_can_be_scaled,
)
