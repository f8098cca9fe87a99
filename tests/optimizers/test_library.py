"""Optimizers of libraries against the libraries' own loops, one function at a time."""

import dataclasses
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from helpers import LIBRARY, classifiers, optimizer, optimizer_node, quadratics, run_steps
from torch import Tensor, nn
from torch.nn import functional

from l2lgd.errors import ConfigError
from l2lgd.meta.evaluator import Evaluator
from l2lgd.meta.rollout import Position, advance, reported_loss, reported_parameters, start
from l2lgd.optimizers.hand_designed import HandDesigned
from l2lgd.optimizers.library import LibraryOptimizer
from l2lgd.optimizers.rate_schedules import factor
from l2lgd.tasks.quadratic import QuadraticTask
from l2lgd.tracking.tracker import NullTracker

library = pytest.importorskip("pytorch_optimizer", reason="pip install 'l2lgd[baselines]'")
schedulefree = pytest.importorskip("schedulefree", reason="pip install 'l2lgd[baselines]'")

STEPS, RATE = 50, 0.01
OF_TORCH = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
}
NOT_ELEMENTWISE = ("Adafactor", "LBFGS", "Muon")
ELEMENTWISE = sorted(set(OF_TORCH) - {"Optimizer", "SparseAdam", *NOT_ELEMENTWISE})
Made = Callable[[list[nn.Parameter], float], list[torch.optim.Optimizer]]


def matrices(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.dim() == 2]


def others(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.dim() != 2]


def alone(kind: Any, **arguments: Any) -> Made:
    return lambda p, rate: [kind(p, lr=rate, **arguments)]


def muon(p: list[nn.Parameter], rate: float) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.Muon(matrices(p), lr=rate, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others(p), lr=rate),
    ]


OWN: dict[str, Made] = {
    "adafactor": alone(torch.optim.Adafactor),
    "adamw": alone(torch.optim.AdamW),
    "ademamix": alone(library.AdEMAMix, weight_decouple=True),
    "lbfgs": alone(
        torch.optim.LBFGS, max_iter=1, max_eval=20, history_size=10, line_search_fn="strong_wolfe"
    ),
    "library": alone(library.SOAP),
    "lion": alone(library.Lion),
    "muon": muon,
    "nadam": alone(torch.optim.NAdam),
    "prodigy": alone(library.Prodigy),
    "radam": alone(torch.optim.RAdam),
    "schedule_free": alone(schedulefree.AdamWScheduleFree, warmup_steps=10),
    "shampoo": alone(
        library.ScalableShampoo,
        start_preconditioning_step=10,
        preconditioning_compute_steps=10,
        graft_type=3,
    ),
    "soap": alone(library.SOAP),
    "torch": alone(torch.optim.AdamW),
    "tuned_adam": alone(torch.optim.AdamW),
}
READY = [name for name in LIBRARY if not name.startswith("untuned")]
# Muon multiplies in bfloat16, and line searches decide by differences of losses.
ROUNDING = {"muon": 1e-6, "lbfgs": 1e-6}


class Loop:
    """The library's optimizer as its user runs it, on one of the stacked classifiers."""

    def __init__(self, functions: Any, row: int, made: Made, rate: float = RATE) -> None:
        initial = functions.unpack(functions.initial_parameters)
        self.functions, self.row = functions, row
        self.parameters = [nn.Parameter(part[row].clone()) for part in initial.values()]
        self.objects = made(self.parameters, rate)
        self.switch("train")

    def switch(self, mode: str) -> None:
        for own in self.objects:
            if hasattr(own, mode):
                getattr(own, mode)()

    def loss(self, step: int) -> Tensor:
        pixels, labels = (part[self.row] for part in self.functions.minibatch(step))
        weight0, bias0, weight1, bias1 = self.parameters
        hidden = torch.sigmoid(pixels.flatten(1) @ weight0 + bias0)
        return functional.cross_entropy(hidden @ weight1 + bias1, labels)

    def step(self, step: int) -> None:
        def closure() -> Tensor:
            for parameter in self.parameters:
                parameter.grad = None
            loss = self.loss(step)
            loss.backward()
            return loss

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            needs_closure = isinstance(self.objects[0], torch.optim.LBFGS)
            if not needs_closure:
                closure()
            for own in self.objects:
                own.step(closure) if needs_closure else own.step()  # type: ignore[call-overload]

    def theta(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters])


def assert_is_own(chosen: LibraryOptimizer, made: Made, rounding: float = 1e-9) -> None:
    functions = classifiers()
    visited = run_steps(chosen, functions, STEPS)
    for row in (0, 2):
        loop = Loop(functions, row, made)
        for step in range(STEPS):
            loop.step(step)
            found, expected = visited[step + 1, row], loop.theta()
            torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding)


def apart(chosen: LibraryOptimizer) -> LibraryOptimizer:
    """The same, one function at a time."""
    chosen._manner = dataclasses.replace(chosen._manner, elementwise=False)
    return chosen


@pytest.mark.parametrize("name", READY)
def test_a_ready_one_is_the_librarys_on_each_function(name: str) -> None:
    assert_is_own(optimizer(name), OWN[name], ROUNDING.get(name, 1e-9))


def test_untuned_ones_have_pytorchs_rate() -> None:
    functions = classifiers()
    for name, kind in (("untuned_adam", torch.optim.Adam), ("untuned_adamw", torch.optim.AdamW)):
        visited = run_steps(optimizer(name), functions, STEPS)
        loop = Loop(functions, 0, lambda parameters, _, kind=kind: [kind(parameters)])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(loop.objects[0], T_max=STEPS)
        for step in range(STEPS):
            loop.step(step)
            if name == "untuned_adamw":
                schedule.step()
        torch.testing.assert_close(visited[-1, 0], loop.theta(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("algorithm", ELEMENTWISE)
def test_elementwise_classes_are_stepped_as_one_tensor(algorithm: str) -> None:
    chosen = LibraryOptimizer(algorithm, learning_rate=RATE)
    assert chosen.coordinatewise
    assert_is_own(chosen, alone(OF_TORCH[algorithm]))


@pytest.mark.parametrize("algorithm", ELEMENTWISE)
def test_a_stack_is_stepped_as_its_functions_apart(algorithm: str) -> None:
    functions = classifiers()
    stacked = run_steps(LibraryOptimizer(algorithm, learning_rate=RATE), functions, STEPS)
    each = run_steps(apart(LibraryOptimizer(algorithm, learning_rate=RATE)), functions, STEPS)
    torch.testing.assert_close(stacked, each, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("algorithm", "package"),
    [
        *((algorithm, "torch.optim") for algorithm in NOT_ELEMENTWISE),
        # These look elementwise at first: they cut norms, switch, or begin to factor later.
        *((name, "pytorch_optimizer") for name in ("ScalableShampoo", "SWATS", "Lamb", "Prodigy")),
        *((name, "pytorch_optimizer") for name in ("SPAM", "AdaShift", "Ranger", "SM3")),
    ],
)
def test_classes_that_mix_coordinates_are_not_stacked(algorithm: str, package: str) -> None:
    assert not LibraryOptimizer(algorithm, package, RATE).coordinatewise


def test_muon_of_pytorch_optimizer_is_told_which_tensors_are_matrices() -> None:
    def made(p: list[nn.Parameter], rate: float) -> list[torch.optim.Optimizer]:
        groups = [
            {"params": matrices(p), "lr": rate, "weight_decay": 0.1, "use_muon": True},
            {"params": others(p), "lr": rate, "weight_decay": 0.1, "use_muon": False},
        ]
        return [library.Muon(groups)]

    chosen = LibraryOptimizer("Muon", "pytorch_optimizer", RATE, weight_decay=0.1)
    assert_is_own(chosen, made, 1e-6)


def test_decay_and_beta_are_those_of_the_class() -> None:
    chosen = LibraryOptimizer("AdamW", "torch.optim", RATE, weight_decay=0.3, beta2=0.5)
    assert_is_own(chosen, alone(torch.optim.AdamW, weight_decay=0.3, betas=(0.9, 0.5)))
    arguments = {"betas": [0.5, 0.6, 0.7]}
    slow = LibraryOptimizer("AdEMAMix", "pytorch_optimizer", RATE, beta2=0.99, arguments=arguments)
    assert_is_own(slow, alone(library.AdEMAMix, betas=(0.5, 0.6, 0.99)))


def test_without_a_matrix_muon_is_adamw() -> None:
    functions = quadratics()
    muon = run_steps(LibraryOptimizer("Muon", learning_rate=RATE), functions, 20)
    adamw = run_steps(LibraryOptimizer("AdamW", learning_rate=RATE), functions, 20)
    torch.testing.assert_close(muon, adamw, rtol=1e-12, atol=1e-12)


# Schedules


def with_torchs_schedule(schedule: str, own: torch.optim.Optimizer, horizon: int) -> Any:
    if schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(own, T_max=horizon)
    warm_up = horizon // 10

    def linear(step: int) -> float:
        return min((step + 1) / warm_up, (horizon - step) / (horizon - warm_up))

    return torch.optim.lr_scheduler.LambdaLR(own, linear)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("horizon", [10, 50, 100])
def test_factors_are_those_of_pytorchs_schedules(schedule: str, horizon: int) -> None:
    own = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = with_torchs_schedule(schedule, own, horizon)
    for step in range(horizon):
        rate = own.param_groups[0]["lr"]
        assert factor(schedule, step, horizon) == pytest.approx(rate, rel=1e-9)
        own.step()
        scheduler.step()
    assert factor(schedule, horizon, horizon) == 0


@pytest.mark.parametrize("horizon", [1, 2, 3, 7, 11])
def test_the_linear_schedule_rises_to_one_and_stays_positive(horizon: int) -> None:
    factors = [factor("linear", step, horizon) for step in range(horizon)]
    assert max(factors) == 1
    assert min(factors) > 0


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("algorithm", ["AdamW", "Adafactor", "Muon"])
def test_a_scheduled_run_is_that_of_pytorch(schedule: str, algorithm: str) -> None:
    functions = classifiers()
    chosen = LibraryOptimizer(algorithm, "torch.optim", RATE, schedule)
    visited = run_steps(chosen, functions, STEPS)
    made = alone(OF_TORCH[algorithm])
    if algorithm == "Muon":
        made = lambda p, rate: [  # noqa: E731
            torch.optim.Muon(matrices(p), lr=rate),
            torch.optim.AdamW(others(p), lr=rate),
        ]
    loop = Loop(functions, 1, made)
    schedulers = [with_torchs_schedule(schedule, own, STEPS) for own in loop.objects]
    for step in range(STEPS):
        loop.step(step)
        for scheduler in schedulers:
            scheduler.step()
        torch.testing.assert_close(visited[step + 1, 1], loop.theta(), rtol=1e-6, atol=1e-6)


def test_a_schedule_needs_the_horizon() -> None:
    at = start(LibraryOptimizer("SGD", "torch.optim", RATE, "cosine"), quadratics())
    with pytest.raises(ConfigError, match=r"number of steps T.*opt\.schedule=constant"):
        advance(at)
    assert LibraryOptimizer("SGD", "torch.optim", RATE).observes == ()


# Where the loss is reported


def went(at: Position, steps: int) -> Position:
    for _ in range(steps):
        at = advance(at)
    return at


@pytest.mark.parametrize("manner", [lambda chosen: chosen, apart])
def test_losses_of_schedule_free_are_those_at_its_averages(manner: Any) -> None:
    functions = classifiers()
    at = start(manner(optimizer("schedule_free")), functions)
    loops = [Loop(functions, row, OWN["schedule_free"]) for row in range(3)]
    for step in range(20):
        for loop in loops:
            loop.step(step)
            loop.switch("eval")
        at = advance(at)
        found, expected = reported_loss(at), [loop.loss(step + 1).item() for loop in loops]
        assert found.tolist() == pytest.approx(expected, rel=1e-8)
        averages = torch.stack([loop.theta() for loop in loops])
        torch.testing.assert_close(reported_parameters(at), averages, rtol=1e-8, atol=1e-10)
        assert reported_loss(at).equal(at.loss) == (step == 0)  # an average of one
        for loop in loops:
            loop.switch("train")
            torch.testing.assert_close(at.parameters[loop.row], loop.theta())


def test_to_look_at_averages_changes_nothing() -> None:
    first, second = (start(optimizer("schedule_free"), classifiers()) for _ in range(2))
    for _ in range(10):
        reported_parameters(first)
        first, second = advance(first), advance(second)
        assert first.parameters.equal(second.parameters)


@pytest.mark.parametrize("name", ["adamw", "soap", "lstm", "sgd"])
def test_others_report_the_loss_where_they_are(name: str) -> None:
    at = went(start(optimizer(name), classifiers(), horizon=5), 3)
    assert reported_parameters(at) is at.parameters
    assert reported_loss(at) is at.loss


def test_evaluations_report_it_there() -> None:
    task = QuadraticTask(dimension=4)
    task.setup("", torch.device("cpu"))
    evaluator = Evaluator(task, 0, NullTracker())
    curves = evaluator.evaluate(optimizer("schedule_free"), "test", 3, 12)
    at, reported = start(optimizer("schedule_free"), quadratics_of(task, 3), horizon=12), []
    for _ in range(12):
        reported.append(reported_loss(at))
        at = advance(at)
    reported.append(reported_loss(at))
    assert torch.as_tensor(curves.losses).equal(torch.stack(reported))


def quadratics_of(task: QuadraticTask, count: int) -> Any:
    from l2lgd.seeding import generator

    return task.sample("test", count, generator(0, "evaluate", "test"))


# Functions elsewhere


def test_functions_elsewhere_are_those_on_the_same_minibatch() -> None:
    functions = classifiers()
    at = went(start(optimizer("lbfgs"), functions), 2)
    seen = at.seen()
    assert seen is not None
    assert seen.evaluate is not None
    theta = at.parameters + 0.1
    losses, gradients = functions.loss_and_gradient(theta, 2)
    for rows in (slice(0, 3), slice(1, 2), slice(0, 3, 2)):
        found = seen.evaluate(theta[rows], rows)
        torch.testing.assert_close(found[0], losses[rows])
        torch.testing.assert_close(found[1], gradients[rows])
    # Of some coordinates; the others stay where they are.
    columns = torch.tensor([0, 5, 7])
    part = seen.of(slice(1, 3), columns)
    moved = at.parameters.clone()
    moved[2, columns] += 0.1
    losses, gradients = functions.loss_and_gradient(moved, 2)
    assert part.evaluate is not None
    found = part.evaluate(moved[2:, columns], slice(1, 2))
    torch.testing.assert_close(found[0], losses[2:])
    torch.testing.assert_close(found[1], gradients[2:, columns])


def test_only_those_who_ask_are_shown_functions_elsewhere() -> None:
    for name in ("mlp", "tuned_adam"):
        seen = start(optimizer(name), quadratics(), horizon=3).seen()
        assert seen is None or seen.evaluate is None


def test_where_functions_cannot_be_evaluated_lbfgs_says_so() -> None:
    gradient = torch.ones(1, 2)
    chosen = LibraryOptimizer("LBFGS", learning_rate=1.0)
    with pytest.raises(ConfigError, match="LBFGS evaluates functions within a step"):
        chosen.step(gradient, chosen.initial_state(gradient))


# What goes wrong


@pytest.mark.parametrize("name", ["soap", "muon", "adamw", "lbfgs", "shampoo", "prodigy"])
def test_a_function_that_diverges_leaves_the_others_alone(name: str) -> None:
    functions = quadratics()
    broken = quadratics()
    broken.initial_parameters = functions.initial_parameters.clone()
    broken.initial_parameters[1] = 1e200  # its gradient's square is not finite
    expected = went(start(optimizer(name), functions, horizon=20), 20)
    found = went(start(optimizer(name), broken, horizon=20), 20)
    assert found.parameters[[0, 2]].equal(expected.parameters[[0, 2]])
    broken.initial_parameters[1] = torch.nan
    found = went(start(optimizer(name), broken, horizon=20), 20)
    assert found.parameters[1].isnan().all()
    assert found.parameters[[0, 2]].equal(expected.parameters[[0, 2]])


def test_random_numbers_are_the_same_for_every_function_and_nobody_elses() -> None:
    def chosen() -> LibraryOptimizer:
        arguments = {"density": 0.5, "update_proj_gap": 3}
        return LibraryOptimizer("SPAM", "pytorch_optimizer", RATE, arguments=arguments)

    functions = classifiers()
    before = torch.get_rng_state()
    together = run_steps(chosen(), functions, 10)
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(5)
    alone = run_steps(chosen(), functions.select(slice(1, 2)), 10)
    torch.testing.assert_close(together[:, 1:2], alone, rtol=1e-10, atol=1e-12)


def test_a_state_is_used_once() -> None:
    chosen, gradient = optimizer("adamw"), torch.ones(2, 3)
    state = chosen.initial_state(gradient)
    chosen.step(gradient, state)
    with pytest.raises(ConfigError, match="used twice"):
        chosen.step(gradient, state)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"algorithm": "AdmW"}, "algorithm=AdmW: torch.optim has no such optimizer; did you mean"),
    ({"algorithm": "Optimizer"}, "torch.optim has no such optimizer"),
    ({"algorithm": "lr_scheduler"}, "torch.optim has no such optimizer"),
    ({"package": "pytorch-optimizer"}, "did you mean pytorch_optimizer?"),
    ({"package": "os"}, "package=os; choose one of torch.optim"),
    ({"algorithm": "SparseAdam"}, "does not support dense gradients"),
    ({"algorithm": "AdaHessian", "package": "pytorch_optimizer"}, "it needs second derivatives"),
    ({"algorithm": "AdamMini", "package": "pytorch_optimizer"}, "it wants a module"),
    ({"algorithm": "SAM", "package": "pytorch_optimizer"}, "'base_optimizer'"),
    ({"learning_rate": 0.0}, "must be positive"),
    ({"schedule": "cosin"}, "schedule=cosin; did you mean cosine?"),
    ({"weight_decay": -0.1}, "weight_decay=-0.1: must be a number that is not negative"),
    ({"algorithm": "Rprop", "weight_decay": 0.1}, "weight_decay=0.1: Rprop has none"),
    ({"beta2": 1.0}, "beta2=1.0: must be from 0 to below 1"),
    ({"algorithm": "SGD", "beta2": 0.9}, "beta2=0.9: SGD has no betas"),
    ({"arguments": {"lr": 0.1}}, "arguments.lr: give opt.learning_rate="),
    ({"arguments": {"amsgrd": True}}, "arguments.amsgrd: AdamW has none; did you mean amsgrad?"),
    ({"algorithm": "SOAP", "package": "pytorch_optimizer", "arguments": {"epss": 1}}, "has none"),
    ({"algorithm": "SGD", "arguments": {"momentum": -1.0}}, "algorithm=SGD: Invalid momentum"),
    ({"weight_decay": 0.1, "arguments": {"weight_decay": 0.2}}, "there is opt.weight_decay="),
    ({"space": {"rate": [1, 2]}}, "space.rate: cannot be tuned"),
    ({"space": {"learning_rate": [1.0, 0.1]}}, "must be [lowest, highest]"),
    ({"space": {"learning_rate": [0.0, 0.1]}}, "must be [lowest, highest]"),
    ({"space": {"learning_rate": [0.1, 0.2, 0.3]}}, "must be [lowest, highest]"),
    ({"space": {"schedule": ["constant", "cos"]}}, "space.schedule=cos; did you mean cosine?"),
    ({"space": {"schedule": "cosine"}}, "space.schedule=cosine: must be a list of values"),
    ({"space": {"weight_decay": []}}, "must be a list of values"),
    ({"space": {"weight_decay": [True]}}, "space.weight_decay=True: must be a number"),
    ({"space": {"beta2": [0.9, 1.5]}}, "space.beta2=1.5: must be from 0 to below 1"),
    ({"algorithm": "SGD", "space": {"beta2": [0.9]}}, "space.beta2: SGD has no betas"),
    ({"algorithm": "LBFGS", "space": {"weight_decay": [0.1]}}, "LBFGS has no weight_decay"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_mistakes_end_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LibraryOptimizer(**{"algorithm": "AdamW", **options})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_package_that_is_missing_has_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    with pytest.raises(ConfigError, match=r"pip install 'l2lgd\[baselines\]'"):
        LibraryOptimizer("AdamWScheduleFree", "schedulefree")


def test_hand_designed_ones_point_here() -> None:
    for algorithm in NOT_ELEMENTWISE:
        with pytest.raises(ConfigError, match=f"take opt=torch opt.algorithm={algorithm}"):
            HandDesigned(algorithm, 0.1)
    with pytest.raises(ConfigError) as caught:
        HandDesigned("SparseAdam", 0.1)
    assert "opt=torch" not in str(caught.value)


@pytest.mark.parametrize("name", READY)
def test_ready_ones_have_a_rate_to_tune_and_keep_their_space(name: str) -> None:
    chosen = optimizer(name)
    if name not in ("torch", "library"):
        assert chosen.space == optimizer_node(name)["space"]
        assert "learning_rate" in chosen.space
    chosen.learning_rate = None
    with pytest.raises(ConfigError, match="tune it first"):
        chosen.initial_state(torch.zeros(1, 2))


def test_libraries_are_imported_where_they_are_used() -> None:
    code = (
        "import sys, l2lgd.optimizers.library as l; l.LibraryOptimizer('AdamW', learning_rate=0.1);"
        "assert not {'pytorch_optimizer', 'schedulefree'} & sys.modules.keys()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
