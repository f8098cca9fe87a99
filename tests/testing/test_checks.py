"""Checks of the contracts: what ships passes, and each mistake is named in one line."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import choices, l2lgd, optimizer_node
from torch import Tensor

from l2lgd.config.building import build
from l2lgd.errors import ConfigError
from l2lgd.meta.schedules import Unroll
from l2lgd.optimizers.base import LearnedRule, Optimizer
from l2lgd.tasks.base import Optimizee, Task
from l2lgd.tasks.description import checked
from l2lgd.testing import OPTIMIZER_CHECKS, TASK_CHECKS, Failed, OptimizerCase, findings
from l2lgd.testing.base import default_type
from l2lgd.verbs.check import losses_suit_the_meta_loss, wants_second_derivatives

N = 4


class Bowls(Optimizee):
    stochastic = False

    def __init__(self, steepness: Tensor, centres: Tensor) -> None:
        self.steepness, self.centres = steepness, centres
        self.initial_parameters = torch.zeros_like(centres)
        self.shapes = {"theta": (centres.shape[1],)}

    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return (self.steepness * (parameters - self.centres).square()).sum(1)

    def select(self, rows: slice) -> Any:
        return type(self)(self.steepness[rows], self.centres[rows])


class BowlTask(Task):
    name = "bowls"
    functions: type[Optimizee] = Bowls

    def sample(self, split: Any, num_functions: int, generator: torch.Generator) -> Any:
        return self.made(*self.drawn(num_functions, generator))

    def drawn(self, count: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        steepness = 0.1 + torch.rand(count, 1, generator=generator, dtype=torch.float64)
        return steepness, torch.randn(count, N, generator=generator, dtype=torch.float64)

    def made(self, *tensors: Tensor) -> Any:
        return self.functions(*tensors)  # type: ignore[call-arg]


class MeanOverFunctions(Bowls):
    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return super().loss(parameters, step).mean()


class MeanForAll(Bowls):
    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return super().loss(parameters, step).mean().expand(len(parameters))


class Columns(Bowls):
    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return super().loss(parameters, step).unsqueeze(1)


class WithoutGradient(Bowls):
    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return super().loss(parameters.detach(), step)


class HalfDetached(Bowls):
    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return super().loss(parameters, step) + parameters.detach().square().sum(1)


class WrongShapes(Bowls):
    def __init__(self, *tensors: Tensor) -> None:
        super().__init__(*tensors)
        self.shapes = {"theta": (N - 1,)}


class WithoutShapes(Bowls):
    def __init__(self, *tensors: Tensor) -> None:
        super().__init__(*tensors)
        del self.shapes


class RandomLoss(Bowls):
    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return super().loss(parameters, step) + torch.rand(())


class SaysStochastic(Bowls):
    stochastic = True


class SelectsTheFirst(Bowls):
    def select(self, rows: slice) -> Any:
        count = len(range(len(self.centres))[rows])
        return type(self)(self.steepness[:count], self.centres[:count])


class Infinite(Bowls):
    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return super().loss(parameters, step) / parameters.abs().sum(1)


class Root(Bowls):
    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return super().loss(parameters, step) + parameters.square().sum(1).sqrt()


class WithoutStep(Bowls):
    def loss(self, parameters: Tensor) -> Tensor:  # type: ignore[override]
        return super().loss(parameters, 0)


class WithoutSelect(Optimizee):
    def __init__(self, *tensors: Tensor) -> None:
        pass

    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return parameters.sum(1)


class WithoutName(BowlTask):
    name = None  # type: ignore[assignment]


class WithoutGenerator(BowlTask):
    def sample(self, split: Any, num_functions: int) -> Any:  # type: ignore[override]
        return self.made(*self.drawn(num_functions, None))


class InfiniteInTest(BowlTask):
    def sample(self, split: Any, num_functions: int, generator: torch.Generator) -> Any:
        self.functions = Infinite if split == "test" else Bowls
        return super().sample(split, num_functions, generator)


class SeedsPyTorch(BowlTask):
    def drawn(self, count: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        assert generator is not None
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return super().drawn(count, None)


class AlwaysSeedsPyTorch(BowlTask):
    def sample(self, split: Any, num_functions: int, generator: torch.Generator) -> Any:
        torch.manual_seed(0)
        return super().sample(split, num_functions, generator)


class GlobalGenerator(BowlTask):
    def drawn(self, count: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        return super().drawn(count, None)


class AlwaysTheSame(BowlTask):
    def drawn(self, count: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        return super().drawn(count, torch.Generator().manual_seed(0))


class SingleType(BowlTask):
    def made(self, *tensors: Tensor) -> Any:
        return super().made(*(tensor.float() for tensor in tensors))


class OneFunction(BowlTask):
    def made(self, *tensors: Tensor) -> Any:
        return super().made(*(tensor[:1] for tensor in tensors))


class BadDescription(BowlTask):
    def data_description(self) -> Any:
        return {"name": "bowls", "source": "mine"}


class SplitsShareData(BowlTask):
    def data_description(self) -> Any:
        counts = {"train": 1, "validation": 1, "test": 1}
        return {"name": "bowls", "source": "mine", "num_examples": counts}


class Raises(BowlTask):
    def made(self, *tensors: Tensor) -> Any:
        raise KeyError("steepness")


class HeldOutOfOneSplit(BowlTask):
    """The same examples, whatever the split."""

    def held_out(self, functions: Any, split: Any, generator: torch.Generator) -> Any:
        return functions


class HeldOutDraws(BowlTask):
    def held_out(self, functions: Any, split: Any, generator: torch.Generator) -> Any:
        steepness = 0.1 + torch.rand(len(functions.centres), 1, dtype=torch.float64)
        return Bowls(steepness, functions.centres)


class HeldOutBeginsElsewhere(BowlTask):
    def held_out(self, functions: Any, split: Any, generator: torch.Generator) -> Any:
        others = Bowls(functions.steepness, functions.centres)
        others.initial_parameters = functions.initial_parameters + 1
        return others


class HeldOutIsALoss(BowlTask):
    def held_out(self, functions: Any, split: Any, generator: torch.Generator) -> Any:
        return functions.loss(functions.initial_parameters, 0)


def of(functions: type[Optimizee]) -> Task:
    task = BowlTask()
    task.functions = functions
    return task


def problems(task: Task) -> Iterator[str]:
    task.setup("", torch.device("cpu"), torch.float64)
    for finding in findings(TASK_CHECKS, task):
        if finding.problem is not None:
            assert "\n" not in finding.problem
            assert "test_checks.py:" in str(finding.place)
            yield finding.problem


def test_a_right_task_passes() -> None:
    assert list(problems(BowlTask())) == []


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (of(MeanOverFunctions), "one number, a sum or mean over all B functions"),
        (of(MeanForAll), "changes when another one's parameters do"),
        (of(Columns), "loss of B=3 functions is (3, 1), and must be (3,); add .squeeze(1)"),
        (of(WithoutGradient), "does not depend on the parameters by autograd"),
        (of(HalfDetached), "is something in the loss detached?"),
        (of(WrongShapes), "shapes add up to 3 coordinates, and there are n=4"),
        (of(WithoutShapes), "no attribute shapes"),
        (of(RandomLoss), "another loss the second time"),
        (of(SaysStochastic), "stochastic=True, and the loss is always the same"),
        (of(SelectsTheFirst), "by select"),
        (of(Infinite), "not finite at the initial parameters"),
        (InfiniteInTest(), "not finite at the initial parameters of test"),
        (of(Root), "the gradient is not finite at the initial parameters of train"),
        (of(WithoutStep), "WithoutStep.loss() takes 2 positional arguments"),
        (of(WithoutSelect), "abstract method"),
        (WithoutName(), "the task has no name"),
        (WithoutGenerator(), "WithoutGenerator.sample() takes 3 positional arguments"),
        (SeedsPyTorch(), "draws from PyTorch's global generator"),
        (AlwaysSeedsPyTorch(), "draws from PyTorch's global generator"),
        (GlobalGenerator(), "draws from PyTorch's global generator"),
        (AlwaysTheSame(), "another generator gives the same functions"),
        (SingleType(), "must be self.dtype"),
        (OneFunction(), "of num_functions=3 are (1, 4), and must be (3, n)"),
        (BadDescription(), "data_description has no num_examples"),
        (SplitsShareData(), "functions of train and validation are the same"),
        (HeldOutOfOneSplit(), "held_out must use the data of split"),
        (HeldOutDraws(), "held_out gives other functions the second time"),
        (HeldOutBeginsElsewhere(), "held_out has other initial_parameters"),
        (HeldOutIsALoss(), "held_out returns Tensor, not an Optimizee or None"),
        (Raises(), "KeyError: 'steepness'"),
    ],
)
def test_each_mistake_of_a_task_is_named(task: Task, message: str) -> None:
    assert any(message in problem for problem in problems(task))


def line_of(code: Any) -> str:
    return f"test_checks.py:{inspect.getsourcelines(code)[1]}"


@pytest.mark.parametrize(
    ("task", "place"),
    [
        (of(WithoutStep), WithoutStep.loss),
        (WithoutGenerator(), WithoutGenerator.sample),
        (of(WithoutShapes), WithoutShapes),
        (of(HalfDetached), HalfDetached),
        (WithoutName(), WithoutName),
    ],
)
def test_a_mistake_is_placed_in_the_code_that_has_it(task: Task, place: Any) -> None:
    task.setup("", torch.device("cpu"), torch.float64)
    found = [f for f in findings(TASK_CHECKS, task) if f.problem]
    assert all(str(finding.place).endswith(line_of(place)) for finding in found), found
    assert len(found) == 1


def test_checks_stop_where_those_that_follow_cannot_tell_more() -> None:
    def made(task: Task) -> list[str]:
        task.setup("", torch.device("cpu"), torch.float64)
        return [finding.name for finding in findings(TASK_CHECKS, task)]

    assert made(of(Columns))[-1] == "there is one loss for each function"
    assert len(made(AlwaysTheSame())) == len(TASK_CHECKS)


COUNTS = {"train": 8, "validation": 1, "test": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_examples": {**COUNTS, "test": -1}}, "num_examples of test is -1"),
        ({"num_examples": {**COUNTS, "train": 8.0}}, "num_examples of train is 8.0"),
        ({"num_examples": {**COUNTS, "train": True}}, "num_examples of train is True"),
        ({"num_examples": {**COUNTS, "train": torch.tensor(8)}}, "of train is Tensor"),
        ({"mean": torch.zeros(3)}, "mean is Tensor, which JSON has not"),
        ({"parts": [{"path": Path("a")}]}, "parts is list, which JSON has not"),
    ],
)
def test_descriptions_of_data_can_be_kept(change: dict[str, Any], message: str) -> None:
    right = {"name": "bowls", "source": "mine", "num_examples": COUNTS}
    assert checked(right) == right
    with pytest.raises(ConfigError, match=message):
        checked({**right, **change})


class Negative(Bowls):
    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return super().loss(parameters, step) - 100


def test_negative_losses_do_not_suit_their_logarithm() -> None:
    losses_suit_the_meta_loss(of(Negative), Unroll([5]))
    losses_suit_the_meta_loss(of(Bowls), Unroll([5], meta_loss="log"))
    with pytest.raises(Failed, match="needs positive ones"):
        losses_suit_the_meta_loss(of(Negative), Unroll([5], meta_loss="log"))
    with pytest.raises(Failed, match="the loss of validation is"):
        losses_suit_the_meta_loss(NegativeInValidation(), Unroll([5], meta_loss="log"))


class NegativeInValidation(BowlTask):
    def sample(self, split: Any, num_functions: int, generator: torch.Generator) -> Any:
        self.functions = Negative if split == "validation" else Bowls
        return super().sample(split, num_functions, generator)


def test_second_derivatives_are_wanted_where_the_estimator_uses_them() -> None:
    assert not wants_second_derivatives({"second_derivatives": False})
    assert wants_second_derivatives({"second_derivatives": True, "difference": 0.0})
    assert not wants_second_derivatives({"second_derivatives": True, "difference": 0.01})
    assert wants_second_derivatives({"estimator": {"second_derivatives": True}})


class Momentum(LearnedRule):
    def __init__(self) -> None:
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

    def reset_parameters(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.rate.fill_(0.1)

    def initial_state(self, parameters: Tensor) -> Any:
        return torch.zeros_like(parameters)

    def step(self, gradient: Tensor, state: Any, width: Tensor | None = None) -> tuple[Tensor, Any]:
        state = 0.9 * state + gradient
        return -self.rate * state, state


class WithoutWidth(Momentum):
    def step(self, gradient: Tensor, state: Any) -> tuple[Tensor, Any]:  # type: ignore[override]
        return super().step(gradient, state)


class WithoutSeen(Momentum):
    observes = ("parameters",)


class TextInState(Momentum):
    def initial_state(self, parameters: Tensor) -> Any:
        return {"momentum": torch.zeros_like(parameters), "name": "momentum"}


class GrowingState(Momentum):
    def step(self, gradient: Tensor, state: Any, width: Tensor | None = None) -> tuple[Tensor, Any]:
        update, state = super().step(gradient, state)
        return update, (state, state)


class OneUpdate(Momentum):
    def step(self, gradient: Tensor, state: Any, width: Tensor | None = None) -> tuple[Tensor, Any]:
        update, state = super().step(gradient, state)
        return update.mean(1), state


class DetachedRate(Momentum):
    def step(self, gradient: Tensor, state: Any, width: Tensor | None = None) -> tuple[Tensor, Any]:
        state = 0.9 * state + gradient
        return -self.rate.detach() * state - 0.0 * self.rate, state


class SharesFunctions(Momentum):
    def step(self, gradient: Tensor, state: Any, width: Tensor | None = None) -> tuple[Tensor, Any]:
        update, state = super().step(gradient, state)
        return update / gradient.norm(), state


class ClaimsCoordinates(Momentum):
    @property
    def coordinatewise(self) -> bool:
        return True

    def step(self, gradient: Tensor, state: Any, width: Tensor | None = None) -> tuple[Tensor, Any]:
        update, state = super().step(gradient, state)
        return update.cumsum(1), state


class MeanOfCoordinates(ClaimsCoordinates):
    def step(self, gradient: Tensor, state: Any, width: Tensor | None = None) -> tuple[Tensor, Any]:
        update, state = Momentum.step(self, gradient, state)
        return update - update.mean(1, keepdim=True), state


class WrongProduct(Momentum):
    def vector_jacobian_product(self, *arguments: Any) -> Sequence[Tensor]:
        return [torch.zeros_like(weight) for weight in self.phi()]


class IgnoresWeights(Momentum):
    def stacked(self, phi: Sequence[Tensor]) -> Any:
        return self


class ScalesHalf(Momentum):
    def scale_updates(self, factor: float) -> None:
        with torch.no_grad():
            self.rate.mul_((1 + factor) / 2)


class StepsWithoutState(Momentum):
    def initial_state(self) -> Any:  # type: ignore[override]
        return ()


class MakesTensors(Momentum):
    def step(self, gradient: Tensor, state: Any, width: Tensor | None = None) -> tuple[Tensor, Any]:
        update, state = super().step(gradient, state)
        return update.matmul(torch.eye(update.shape[1])), state


class Remembers(Momentum):
    calls = 0

    def step(self, gradient: Tensor, state: Any, width: Tensor | None = None) -> tuple[Tensor, Any]:
        self.calls += 1
        return -self.rate * gradient / self.calls, state


class GlobalWeights(Momentum):
    def reset_parameters(self, generator: torch.Generator) -> None:
        torch.nn.init.uniform_(self.rate, 0.05, 0.1)


class InPlace(Momentum):
    def step(self, gradient: Tensor, state: Any, width: Tensor | None = None) -> tuple[Tensor, Any]:
        return -self.rate * gradient.mul_(0.5), state


class Observing(Momentum):
    observes = ("parameters",)

    def step(
        self, gradient: Tensor, state: Any, width: Any = None, seen: Any = None
    ) -> tuple[Tensor, Any]:
        return -self.rate * (gradient + 0.1 * seen.parameters), state


def case_of(rule: Optimizer) -> OptimizerCase:
    kind = type(rule)
    return OptimizerCase(rule, {"_target_": f"test_checks.{kind.__name__}"}, ["test_checks"])


@pytest.mark.parametrize("kind", [Momentum, Observing])
def test_a_right_rule_passes(kind: Callable[[], Optimizer]) -> None:
    assert [f for f in findings(OPTIMIZER_CHECKS, case_of(kind())) if f.problem] == []


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (WithoutWidth, "step(gradient, state) lacks width=None"),
        (WithoutSeen, "lacks seen=None"),
        (TextInState, "has a part of type str"),
        (GrowingState, "they must be of the same shapes"),
        (OneUpdate, "it must be as large"),
        (DetachedRate, "along a direction of φ the meta-gradient is"),
        (SharesFunctions, "optimized otherwise in a stack than alone"),
        (ClaimsCoordinates, "permuted gradients do not have permuted updates"),
        (MeanOfCoordinates, "coordinates alone have other updates than among others"),
        (WrongProduct, "meta-gradient by vector_jacobian_product is not that of autograd"),
        (IgnoresWeights, "by stacked, a function is stepped otherwise"),
        (ScalesHalf, "after scale_updates(1.5) updates are not 1.5 times"),
        (StepsWithoutState, "StepsWithoutState.initial_state() takes 1 positional argument"),
        (Remembers, "gives another update"),
        (GlobalWeights, "reset_parameters draws from PyTorch's global generator"),
        (InPlace, "changes the gradient"),
    ],
)
def test_each_mistake_of_a_rule_is_named(kind: Callable[[], Optimizer], message: str) -> None:
    found = [f for f in findings(OPTIMIZER_CHECKS, case_of(kind())) if f.problem]
    assert any(message in str(f.problem) for f in found), found
    assert all("\n" not in str(f.problem) for f in found)
    assert all("test_checks.py:" in str(f.place) for f in found), found


def test_tensors_of_the_default_type_fit_while_checks_are_made() -> None:
    before = torch.get_default_dtype()
    with default_type(torch.float64):
        assert [f for f in findings(OPTIMIZER_CHECKS, case_of(MakesTensors())) if f.problem] == []
    assert torch.get_default_dtype() == before


@pytest.mark.parametrize("name", choices("opt"))
@pytest.mark.filterwarnings("ignore:weights .* no parameter's name fits")
def test_every_optimizer_that_ships_passes(name: str) -> None:
    node = optimizer_node(name)
    chosen: Any = build(node, "opt", kind=Optimizer)  # type: ignore[type-abstract]
    if isinstance(chosen, LearnedRule):
        chosen.double()
    found = findings(OPTIMIZER_CHECKS, OptimizerCase(chosen, node))
    assert [finding for finding in found if finding.problem] == []


def test_the_command_says_what_to_change(tmp_path: Path) -> None:
    assert l2lgd("new", "task", "bowl", "mine", cwd=tmp_path).returncode == 0
    assert l2lgd("new", "optimizer", "gru", "mine", cwd=tmp_path).returncode == 0
    own = ("--config-dir", "mine/conf", "allow_targets=[mine]", "threads=1")
    right = l2lgd("check", *own, "task=bowl", "opt=gru", cwd=tmp_path)
    assert right.returncode == 0, right.stdout + right.stderr
    assert "WRONG" not in right.stdout
    code = next(path for path in tmp_path.rglob("bowl.py"))
    text = code.read_text(encoding="utf-8")
    assert ".sum(1)" in text
    code.write_text(text.replace(".sum(1)", ".sum()"), encoding="utf-8")
    wrong = l2lgd("check", *own, "task=bowl", "opt=gru", cwd=tmp_path)
    assert wrong.returncode == 2
    line = next(line for line in wrong.stdout.splitlines() if line.startswith("WRONG"))
    assert "it must be (B,)" in line
    assert "bowl.py:" in line
    assert wrong.stdout.count("WRONG") == 1
    assert "were not made" in wrong.stderr
    assert wrong.stderr.strip().count("\n") == 0
    setup = "\n    def setup(self, *given: object) -> None:\n        {}['nothing']\n"
    code.write_text(text + setup, encoding="utf-8")
    unset = l2lgd("check", *own, "task=bowl", "opt=gru", cwd=tmp_path)
    assert "KeyError: 'nothing'" in unset.stderr
    assert f"bowl.py:{len((text + setup).splitlines())})" in unset.stderr
