"""Estimators with particles: they estimate what they say, and a course is the plain loops."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import optimizer
from observers import Counting, Watchful
from safetensors.torch import load_file
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.meta.estimators.base import MetaProblem
from l2lgd.meta.estimators.es import TruncatedES
from l2lgd.meta.estimators.full_es import FullES
from l2lgd.meta.estimators.particles import Differences, Particles
from l2lgd.meta.estimators.pes import PersistentES
from l2lgd.meta.estimators.textbook import textbook
from l2lgd.meta.rollout import start
from l2lgd.meta.schedules import Unroll
from l2lgd.meta.trainer import MetaSettings, Trainer
from l2lgd.optimizers.base import LearnedRule, given
from l2lgd.optimizers.nn_adam import NNAdam
from l2lgd.optimizers.observation import Observation
from l2lgd.seeding import generator
from l2lgd.storage import checkpoint
from l2lgd.system.ranks import Ranks
from l2lgd.tasks.base import Task
from l2lgd.tasks.quadratic import QuadraticTask
from l2lgd.tracking.tracker import NullTracker

TRACES = Path(__file__).parents[3] / "shared" / "traces" / "random_weight_traces.safetensors"
HORIZON, PAIRS = 64, 4000
KINDS = {"full_es": FullES, "es": TruncatedES, "pes": PersistentES}


class OneQuadratic(QuadraticTask):
    """The same function in every draw."""

    def sample(self, split: Any, num_functions: int, generator: torch.Generator) -> Any:
        one = super().sample(split, 1, torch.Generator().manual_seed(1))
        return one.joined([one] * num_functions, [0] * num_functions)


def task(kind: type[QuadraticTask] = QuadraticTask) -> Any:
    made = kind(dimension=5)
    made.setup("", torch.device("cpu"), torch.float64)
    return made


def problem(rule: LearnedRule, unroll: Unroll, **changes: Any) -> MetaProblem:
    known = {"task": task(), "num_functions": 4, "num_steps": 12, "seed": 0, "ranks": Ranks()}
    return MetaProblem(rule=rule, unroll=unroll, **(known | changes))


def gradient_of(rule: LearnedRule) -> Tensor:
    return torch.cat([weight.grad.flatten() for weight in rule.phi()])  # type: ignore[union-attr]


def nn_adam() -> NNAdam:
    return NNAdam(learning_rate=0.05, beta1=0.8, beta2=0.95, epsilon=1.0).double()


def exact_gradient() -> Tensor:
    """Of a whole trajectory, with second derivatives."""
    rule = nn_adam()
    functions = task(OneQuadratic).sample("train", 1, generator(0))
    textbook(start(rule, functions), HORIZON, Unroll([HORIZON]).objective(HORIZON), True)
    return gradient_of(rule)


def mean_estimate(
    kind: Any, length: int, unrolls: int, trajectories: int = 1, estimates: int = 20_000
) -> tuple[Tensor, Tensor]:
    """Of a trajectory's gradient: the mean of pairs' estimates, and its standard errors."""

    class Noting(kind):
        staggered = False

        def credit(self, *arguments: Any) -> Tensor:
            found: Tensor = super().credit(*arguments)
            noted.append(found / (2 * self.sigma**2))
            return found

    every = []
    for seed in range(estimates // PAIRS):
        noted: list[Tensor] = []
        own = problem(
            nn_adam(),
            Unroll([length]),
            task=task(OneQuadratic),
            num_functions=PAIRS,
            num_steps=HORIZON,
            seed=seed,
        )
        course = Noting(sigma=1e-3, largest_loss=None).begin(own)
        for _ in range(unrolls):
            course.unroll(0.0)
        every.append(torch.stack(noted).sum(0) / trajectories)
    pairs = torch.cat(every)
    return pairs.mean(0), pairs.std(0) / math.sqrt(len(pairs))


@pytest.mark.parametrize(
    ("arguments", "unbiased"),
    [
        ((PersistentES, 8, 8), True),
        ((PersistentES, 24, 8, 3, 4000), True),  # trajectories begin within unrolls
        ((FullES, 8, 1), True),
        ((TruncatedES, 8, 8), False),
    ],
)
def test_estimates_are_of_the_exact_gradient_but_for_truncation(
    arguments: Any, unbiased: bool
) -> None:
    mean, errors = mean_estimate(*arguments)
    exact = exact_gradient()
    assert (exact.abs() > 0).all()
    within = (mean - exact).abs() <= 3 * errors
    assert within.all() if unbiased else not within.any(), (mean, errors, exact)


def test_truncated_backpropagation_is_off_as_truncated_es_is() -> None:
    rule, exact = nn_adam(), exact_gradient()
    at = start(rule, task(OneQuadratic).sample("train", 1, generator(0)))
    for _ in range(HORIZON // 8):
        _, _, at = textbook(at, 8, Unroll([8]).objective(HORIZON), True)
    mean, errors = mean_estimate(TruncatedES, 8, 8, estimates=4000)
    truncated = gradient_of(rule)
    assert ((truncated - exact).abs() > 3 * errors).all()
    assert ((truncated - mean).abs() <= 4 * errors).all()


def test_a_window_of_persistent_es_is_that_of_the_trace() -> None:
    if not TRACES.exists():
        pytest.skip(f"no {TRACES.name}")
    found = {k.removeprefix("pes."): v for k, v in load_file(TRACES).items() if "pes." in k}
    counts = found["mask"].float()
    # There, the loss of the step that ends a trajectory counts for the next one already.
    new = found["done"].cumsum(0) > 0
    summands = (found["loss_plus"] - found["loss_minus"]) * counts / counts.sum(0)
    own = Differences(summands.where(~new, 0.0).sum(0), summands.where(new, 0.0).sum(0))
    estimator = PersistentES(sigma=found["sigma"].item())
    credit = estimator.credit(own, found["perturbation"], found["accumulator_before"])
    gradient = (credit / (2 * estimator.sigma**2)).mean(0)
    error = (gradient - found["gradient"]).abs().max() / found["gradient"].abs().max()
    assert error < 1e-6


def by_plain_loops(
    kind: str, rule: Any, own: MetaProblem, unrolls: int, length: int
) -> tuple[list[Tensor], Tensor]:
    """Meta-gradients of unrolls, one particle and one step after the other; and where they end."""
    estimator = KINDS[kind](sigma=0.05, largest_loss=None)
    ends = [-(-own.num_steps * (p + 1) // own.num_functions) for p in range(own.num_functions)]
    flat = torch.cat([weight.detach().flatten() for weight in rule.phi()])
    places: dict[tuple[int, int], Any] = {}
    drawn, began = [0] * own.num_functions, [0] * own.num_functions
    xi = torch.zeros(own.num_functions, len(flat), dtype=flat.dtype)

    def functions(p: int) -> Any:
        return own.task.sample("train", 1, generator(own.seed, "train", p, drawn[p]))

    def place(p: int) -> None:
        for sign in (1, -1):
            theta = functions(p).initial_parameters
            places[p, sign] = theta, rule.initial_state(theta)

    for p in range(own.num_functions):
        place(p)
    gradients = []
    for number in range(unrolls):
        draw = generator(own.seed, "perturbations", number * length)
        shape = (own.num_functions, len(flat))
        epsilon = 0.05 * torch.randn(shape, generator=draw, dtype=flat.dtype)
        old, new = torch.zeros(2, own.num_functions, dtype=flat.dtype)
        fresh = [False] * own.num_functions
        for p in range(own.num_functions):
            if kind == "full_es" and number:
                drawn[p], began[p] = drawn[p] + 1, number * length
                place(p)
            if kind == "es":
                places[p, -1] = places[p, 1]
        for step in range(number * length + 1, (number + 1) * length + 1):
            for p in range(own.num_functions):
                t = step - began[p]
                for sign in (1, -1):
                    moved = flat + sign * epsilon[p]
                    torch.nn.utils.vector_to_parameters(moved, rule.phi())
                    theta, state = places[p, sign]
                    loss, gradient = functions(p).loss_and_gradient(theta, t - 1)
                    seen = Observation(theta, loss, t - 1, own.num_steps)
                    with torch.no_grad():
                        seen_by = given(seen) if rule.observes else {}
                        update, state = rule.step(gradient, state, **seen_by)
                    theta = theta + update
                    places[p, sign] = theta, state
                    loss, _ = functions(p).loss_and_gradient(theta, t)
                    into = new if fresh[p] else old
                    into[p] += sign * 2 * t / own.num_steps * loss.item()
                if kind != "full_es" and t == (own.num_steps if drawn[p] else ends[p]):
                    drawn[p], began[p], fresh[p] = drawn[p] + 1, step, True
                    place(p)
        credit = estimator.credit(Differences(old, new), epsilon, xi)
        gradients.append((credit / (2 * 0.05**2)).mean(0))
        for p in range(own.num_functions):
            since = (number + 1) * length - began[p]
            xi[p] = xi[p] + epsilon[p] if not fresh[p] else epsilon[p] * (since > 0)
    torch.nn.utils.vector_to_parameters(flat, rule.phi())
    parameters = [places[p, sign][0] for sign in (1, -1) for p in range(own.num_functions)]
    return gradients, torch.cat(parameters)


@pytest.mark.parametrize("name", ["lstm", "nn_adam", "mlp", "rnnprop", "counting"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_course_is_that_of_plain_loops(kind: str, name: str) -> None:
    rule = Counting().double() if name == "counting" else optimizer(name)
    length = 12 if kind == "full_es" else 5
    unroll = Unroll([length], loss_weights="linear")
    own = problem(rule, unroll)
    course = KINDS[kind](sigma=0.05, largest_loss=None).begin(own)
    found = []
    for _ in range(4):
        told = course.unroll(0.0)
        found.append(gradient_of(rule))
        assert told.count == own.num_functions
        assert told.diverged == 0
        assert told.coordinate_steps == 2 * length * 4 * 5
    gradients, parameters = by_plain_loops(kind, rule, own, 4, length)
    torch.testing.assert_close(torch.stack(found), torch.stack(gradients), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(course.tensors()["parameters"], parameters)


def test_first_trajectories_end_one_after_the_other() -> None:
    for kind, phases in (("pes", 4), ("es", 4), ("full_es", 1)):
        course = KINDS[kind]().begin(problem(nn_adam(), Unroll([3]), num_steps=12))
        assert isinstance(course, Particles)
        for _ in range(5):
            course.unroll(0.0)
        begun = course.tensors()["trips"][:, 1]
        assert len(set(begun.tolist())) == phases, kind


def test_horizons_are_drawn_log_uniformly() -> None:
    own = problem(nn_adam(), Unroll([3]), num_functions=400, num_steps=999)
    course = PersistentES(shortest_horizon=10).begin(own)
    horizons = course.tensors()["trips"][:, 2].double()
    assert horizons.min() >= 10
    assert horizons.max() <= 999
    shares = [(horizons < bound).double().mean() for bound in (10 * 10**0.5, 100, 100 * 10**0.5)]
    for share, expected in zip(shares, (0.25, 0.5, 0.75), strict=True):
        assert abs(share - expected) < 0.08
    with pytest.raises(ConfigError, match=r"shortest_horizon=10 is above the horizon of 9"):
        PersistentES(shortest_horizon=10).begin(problem(nn_adam(), Unroll([3]), num_steps=9))


class Explosive(NNAdam):
    """It diverges where its first weight is above its start."""

    def step(self, *arguments: Any, **observed: Any) -> Any:
        update, state = super().step(*arguments, **observed)
        wild = self._weights()[..., :1] > math.log(0.05)
        return update.where(~wild, math.nan), state


@pytest.mark.parametrize("largest_loss", [None, 2.0])
def test_pairs_that_diverge_are_left_out_or_bounded_and_replaced(
    largest_loss: float | None,
) -> None:
    rule = Explosive(learning_rate=0.05).double()
    course = PersistentES(largest_loss=largest_loss).begin(problem(rule, Unroll([3])))
    told = course.unroll(0.0)
    assert told.diverged == 4  # one particle of each pair
    assert told.count == (0 if largest_loss is None else 4)
    tensors = course.tensors()
    assert tensors["parameters"].isfinite().all()
    assert (tensors["trips"][:, 0] == 1).all()
    assert (tensors["accumulated"] == 0).all()
    if largest_loss is not None:
        assert gradient_of(rule)[0] > 0  # away from where it diverges
        assert told.numbers["mean_loss"] < 3 * float(tensors["initial"].max())


class Ascending(NNAdam):
    """Both its particles go up without end, by steps that do not depend on φ much."""

    def step(self, *arguments: Any, **observed: Any) -> Any:
        update, state = super().step(*arguments, **observed)
        return -100 * update, state


def test_pairs_above_the_bound_are_counted_and_replaced() -> None:
    rule = Ascending(learning_rate=0.05).double()
    course = PersistentES(largest_loss=2.0).begin(problem(rule, Unroll([3])))
    told = course.unroll(0.0)
    assert (told.diverged, told.count) == (4, 4)
    tensors = course.tensors()
    assert (tensors["trips"][:, 0] == 1).all()
    assert tensors["loss"].equal(tensors["initial"])


class Below(Task):
    """Quadratics, lowered."""

    name = "below"

    def __init__(self, depth: float) -> None:
        self.depth = depth

    def sample(self, split: Any, num_functions: int, generator: torch.Generator) -> Any:
        functions = task().sample(split, num_functions, generator)
        loss = functions.loss
        functions.loss = lambda parameters, step: loss(parameters, step) - self.depth
        functions.select = lambda rows: functions
        return functions


@pytest.mark.parametrize("depth", [0.0, 1000.0])
def test_negative_losses_have_a_bound_above_them(depth: float) -> None:
    rule = nn_adam()
    own = problem(rule, Unroll([3]), task=Below(depth), num_functions=1)
    told = PersistentES(largest_loss=2.0).begin(own).unroll(0.0)
    assert told.diverged == 0
    assert gradient_of(rule).abs().max() > 0


@pytest.mark.parametrize("name", ["lstm", "counting"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_to_the_same_bits(kind: str, name: str, tmp_path: Path) -> None:
    ends = []
    for stops in ([9], [4, 9]):
        folder = tmp_path / str(len(stops))
        rule = Counting() if name == "counting" else optimizer(name, torch.float32)
        folder.mkdir()
        estimator = KINDS[kind](shortest_horizon=4)
        for index, stop in enumerate(stops):
            settings = MetaSettings(stop, 0.01, "constant", None, 3, 10, 100, 2, 1)
            trainer = Trainer(QuadraticTask(dimension=3), 0, NullTracker())
            arguments = (rule, Unroll([4]), estimator, settings, folder, {})
            trainer.meta_train(*arguments, resume=index > 0)
        tensors = checkpoint.load(folder / "last.safetensors")[0]
        ends.append({k: v for k, v in tensors.items() if not k.startswith("average")})
    assert ends[0].keys() == ends[1].keys()
    assert all(ends[0][key].equal(ends[1][key]) for key in ends[0])


def test_what_lasts_between_unrolls_does_not_grow_with_the_horizon() -> None:
    sizes = []
    for horizon in (100, 10_000):
        own = problem(nn_adam(), Unroll([20]), num_steps=horizon)
        course = PersistentES().begin(own)
        course.unroll(0.0)
        sizes.append({name: part.nbytes for name, part in course.tensors().items()})
    assert sizes[0] == sizes[1]


def test_only_the_last_loss_counts_for_persistent_but_not_for_truncated_es() -> None:
    unroll = Unroll([4], loss_weights="last")
    own = problem(nn_adam(), unroll)
    course = PersistentES().begin(own)
    found = []
    for _ in range(6):
        course.unroll(0.0)
        found.append(gradient_of(own.rule).abs().sum())
    assert found[0] == 0
    assert found[3] > 0  # the first pair, whose first trajectory was cut short, is at its end
    with pytest.raises(ConfigError, match="loss_weights=last needs"):
        TruncatedES().begin(own).unroll(0.0)


class Growing(QuadraticTask):
    """Every function has another number of coordinates."""

    def sample(self, split: Any, num_functions: int, generator: torch.Generator) -> Any:
        self.dimension += 1
        return super().sample(split, num_functions, generator)


@pytest.mark.parametrize("num_functions", [1, 3])
def test_functions_of_other_shapes_are_refused_at_once(num_functions: int) -> None:
    own = problem(nn_adam(), Unroll([4]), task=task(Growing), num_functions=num_functions)
    with pytest.raises(ConfigError, match="task=quadratic differ in their parameter tensors"):
        PersistentES().begin(own)


def test_rules_that_branch_on_a_count_are_refused() -> None:
    course = PersistentES().begin(problem(Watchful().double(), Unroll([4])))
    with pytest.raises(ConfigError, match="Watchful needs a number of Python's"):
        course.unroll(0.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("sigma", 0.0), ("sigma", math.inf), ("largest_loss", 0.5), ("shortest_horizon", 0)],
)
def test_options_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{name}="):
        PersistentES(**{name: value})
