"""The compiled per-parameter MLP against PyTorch: ``backend=auto`` gives what ``torch`` does."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from published import CELO, CELO2, CELO2_BASE
from torch import Tensor

from l2lgd.kernels import mlp as kernel
from l2lgd.optimizers.accumulators import Accumulators
from l2lgd.optimizers.base import Optimizer, tensors_of
from l2lgd.optimizers.mlp import MLPRule
from l2lgd.optimizers.observation import Observation

if not kernel.is_available():
    pytest.skip("no C++ compiler, so nothing to compare with", allow_module_level=True)

TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}
OTHERS = {
    "a linear one": {"hidden_sizes": [], "inputs": ["row", "inverse_root_column"]},
    "wide": {"hidden_sizes": [13], "outputs": 5, "inputs": ["factored_momentum", "column"]},
    "matrices apart": {"normalise_over": "matrix", "scale_by_parameter": True, "magnitude": 0.5},
    "size of updates": {"normalise_update": True, "inputs": ["scaled_gradient", "parameter"]},
}
RULES = {"small_fc": {}, "Celo": CELO, "Celo2-base": CELO2_BASE}
RULES |= {"Celo2": CELO2} | OTHERS
SHAPES = ((), (5,), (7, 3), (4, 4), (3, 3, 2, 4), (64, 32), (6, 5, 3, 3), (1, 6), (300,), (9, 1))
ALL = {str(k): shape for k, shape in enumerate(SHAPES)}

rules = pytest.mark.parametrize("options", RULES.values(), ids=RULES)
dtypes = pytest.mark.parametrize("dtype", TOLERANCES)


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def both(
    dtype: torch.dtype, options: dict[str, Any], shapes: dict[str, tuple[int, ...]] = ALL
) -> list[MLPRule]:
    """The rule with weights that are drawn, compiled and not."""
    made = []
    for backend in ("auto", "torch"):
        rule = MLPRule(**options, backend=backend).to(dtype)
        draw = torch.Generator().manual_seed(0)
        rule.reset_parameters(draw)
        with torch.no_grad():
            for bias in rule.biases:
                bias += 0.3 * torch.randn(bias.shape, generator=draw).to(dtype)
            if hasattr(rule, "decay_shifts"):
                rule.decay_shifts += 0.05 * torch.randn(7, generator=draw).to(dtype)
        made.append(rule.named(shapes))
    return made


def numbers(seed: int, count: int, dtype: torch.dtype, shapes: Any = ALL) -> Tensor:
    """(B, n) of all magnitudes from 1e-4 to 10, with some zeros."""
    draw = torch.Generator().manual_seed(seed)
    n = sum(torch.Size(shape).numel() for shape in shapes.values())
    drawn = torch.randn(count, n, generator=draw)
    drawn *= 10.0 ** torch.randint(-4, 2, (count, 1), generator=draw)
    drawn[:, ::7] = 0
    return drawn.to(dtype)


def assert_close(found: Tensor, expected: Tensor, times: float = 1.0) -> None:
    """To the tolerance, so many times, of the largest entry."""
    assert found.shape == expected.shape
    if expected.numel():
        bound = times * TOLERANCES[expected.dtype] * expected.abs().max()
        torch.testing.assert_close(found, expected, rtol=0, atol=float(bound))


def assert_same_steps(
    compiled: Optimizer,
    plain: Optimizer,
    count: int,
    dtype: torch.dtype,
    shapes: Any = ALL,
    times: float = 1.0,
) -> None:
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    theta = numbers(100, count, dtype, shapes)
    states = [rule.initial_state(theta) for rule in (compiled, plain)]
    for t in range(4):
        gradient = numbers(t, count, dtype, shapes)
        # Functions of which some have taken more steps.
        steps = t if count == 1 else torch.arange(count) * 7 + t
        seen = Observation(theta, torch.ones(count).to(dtype), steps)
        with torch.no_grad():
            update, states[0] = compiled.step(gradient, states[0], None, seen)
            expected, states[1] = plain.step(gradient, states[1], None, seen)
        for mine, theirs in zip(update.split(sizes, 1), expected.split(sizes, 1), strict=True):
            for one, other in zip(mine, theirs, strict=True):
                assert_close(one, other, times)
        assert all(isinstance(kept, Accumulators) for kept in states[0])
        for mine, theirs in zip(*map(tensors_of, states), strict=True):
            assert mine.is_contiguous()
            assert_close(mine, theirs)
        theta = theta + expected


@pytest.mark.parametrize("count", [1, 3])
@dtypes
@rules
def test_steps_are_those_of_pytorch(
    options: dict[str, Any], dtype: torch.dtype, count: int
) -> None:
    # Newton–Schulz iterations make what is small in a matrix up to 500 times as large.
    times = 10 if options.get("orthogonalise") else 1
    assert_same_steps(*both(dtype, options), count, dtype, times=times)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@dtypes
def test_a_tensor_alone(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    assert_same_steps(*both(dtype, CELO, {"": shape}), 1, dtype, {"": shape})


@dtypes
@rules
def test_functions_with_weights_of_their_own(options: dict[str, Any], dtype: torch.dtype) -> None:
    compiled, plain = both(dtype, options)
    draw = torch.Generator().manual_seed(5)
    phi = []
    for weight in plain.phi():
        noise = torch.randn(3, *weight.shape, generator=draw).to(dtype)
        phi.append(weight.detach() + 0.01 * noise)
    times = 10 if options.get("orthogonalise") else 1
    assert_same_steps(compiled.stacked(phi), plain.stacked(phi), 3, dtype, times=times)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("options", [{}, CELO2_BASE], ids=["small_fc", "Celo2-base"])
def test_large_tensors_on_two_threads(options: dict[str, Any]) -> None:
    shapes = {"wide": (130, 520), "long": (70_000,), "small": (40, 30), "deep": (3, 15, 16)}
    compiled, plain = both(torch.float64, options, shapes)
    assert_same_steps(compiled, plain, 1, torch.float64, shapes)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    shapes = {"": (300, 400)}
    compiled, _ = both(torch.float32, {}, shapes)
    gradient = numbers(1, 1, torch.float32, shapes)
    seen = Observation(gradient, torch.ones(1), 0)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with torch.no_grad():
            found.append(compiled.step(gradient, compiled.initial_state(gradient), None, seen))
    torch.set_num_threads(1)
    for one, two in zip(*map(tensors_of, found), strict=True):
        assert one.equal(two)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 1e15, -1e18, 1e30, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["small_fc", "Celo", "Celo2-base"])
def test_extreme_gradients_are_treated_as_pytorch_treats_them(name: str, value: float) -> None:
    compiled, plain = both(torch.float32, RULES[name])
    gradient = numbers(1, 2, torch.float32)
    gradient[0] = value
    seen = Observation(numbers(100, 2, torch.float32), torch.ones(2), 0)
    with torch.no_grad():
        update, _ = compiled.step(gradient, compiled.initial_state(gradient), None, seen)
        expected, _ = plain.step(gradient, plain.initial_state(gradient), None, seen)
    assert update.isfinite().equal(expected.isfinite())
    for one, other in zip(update, expected, strict=True):
        assert_close(one.nan_to_num(0, 0, 0), other.nan_to_num(0, 0, 0))


def test_gradients_need_not_be_contiguous() -> None:
    compiled, plain = both(torch.float64, {})
    gradient = numbers(1, 3, torch.float64).T.contiguous().T
    assert not gradient.is_contiguous()
    seen = Observation(gradient + 1, torch.ones(3).double(), 0)
    with torch.no_grad():
        update, _ = compiled.step(gradient, compiled.initial_state(gradient), None, seen)
        expected, _ = plain.step(gradient, plain.initial_state(gradient), None, seen)
    assert_close(update, expected)


def test_a_step_changes_nothing_and_a_step_in_place_is_the_step() -> None:
    gradient = numbers(1, 2, torch.float32)
    seen = Observation(gradient + 1, torch.ones(2), 0)
    for rule in both(torch.float32, CELO):
        with torch.no_grad():
            _, state = rule.step(gradient, rule.initial_state(gradient), None, seen)
            given = [gradient, seen.parameters, *tensors_of(state)]
            before = [part.clone() for part in given]
            update, following = rule.step(gradient, state, None, seen)
            assert all(old.equal(new) for old, new in zip(before, given, strict=True))
            assert rule.step_in_place(gradient, state, seen).equal(update)
        for new, kept in zip(*map(tensors_of, (following, state)), strict=True):
            assert new.equal(kept)


def test_steps_with_autograd_are_those_of_pytorch() -> None:
    compiled, _ = both(torch.float32, {})
    gradient = numbers(1, 1, torch.float32)
    seen = Observation(gradient + 1, torch.ones(1), 0)
    update, _ = compiled.step(gradient, compiled.initial_state(gradient), None, seen)
    assert update.requires_grad


def test_what_the_kernel_cannot_read_goes_the_other_way() -> None:
    compiled, plain = both(torch.float32, {}, {"": (4, 3)})
    gradient = torch.arange(24.0).view(2, 12)
    seen = Observation(gradient + 1, torch.ones(2), 0)
    with torch.no_grad():
        state = tuple(
            kept._replace(momentum=kept.momentum.transpose(2, 3).contiguous().transpose(2, 3))
            for kept in compiled.initial_state(gradient)
        )
        update, _ = compiled.step(gradient, state, None, seen)
        assert update.equal(plain.step(gradient, state, None, seen)[0])
    empty, _ = both(torch.float32, {}, {"": (0, 3), "b": (2,)})
    seen = Observation(torch.ones(1, 2), torch.ones(1), 0)
    with torch.no_grad():
        empty.step(torch.ones(1, 2), empty.initial_state(seen.parameters), None, seen)


def test_the_log_names_what_runs() -> None:
    compiled, plain = both(torch.float32, {})
    assert (compiled.implementation(), plain.implementation()) == ("C++", "PyTorch")
