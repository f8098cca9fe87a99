"""The compiled per-parameter MLP against PyTorch: ``backend=auto`` gives what ``torch`` does."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from l2lgd.kernels import mlp as kernel
from l2lgd.optimizers.accumulators import Accumulators
from l2lgd.optimizers.base import Optimizer, tensors_of
from l2lgd.optimizers.mlp import INPUTS, MLPRule
from l2lgd.optimizers.observation import Observation

if not kernel.is_available():
    pytest.skip("no C++ compiler, so nothing to compare with", allow_module_level=True)

TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}
CELO: dict[str, Any] = {
    "inputs": list(INPUTS),
    "outputs": 3,
    "time": False,
    "learned_decays": False,
    "diagonal_epsilon": 0.0,
    "gradient_clip": 1000.0,
    "scale_by_parameter": True,
}
CELO2_BASE = CELO | {
    "hidden_sizes": [8, 8],
    "vector_inputs": 15,
    "second_moment_decay": 0.95,
    "second_moment_epsilon": 1e-8,
    "normalise_over": "matrix",
    "normalisation_epsilon": 1e-9,
    "magnitude": 0.0,
    "scale_by_parameter": False,
    "normalise_update": True,
    "step_size": 1.0,
}
OTHERS = {
    "a linear one": {"hidden_sizes": [], "inputs": ["row", "inverse_root_column"]},
    "wide": {"hidden_sizes": [13], "outputs": 5, "inputs": ["factored_momentum", "column"]},
    "matrices apart": {"normalise_over": "matrix", "scale_by_parameter": True, "magnitude": 0.5},
    "size of updates": {"normalise_update": True, "inputs": ["scaled_gradient", "parameter"]},
}
RULES = {"small_fc": {}, "Celo": CELO, "Celo2-base": CELO2_BASE}
RULES |= {"Celo2": CELO2_BASE | {"orthogonalise": True}} | OTHERS
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


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    if expected.numel():
        bound = TOLERANCES[expected.dtype] * expected.abs().max()
        torch.testing.assert_close(found, expected, rtol=0, atol=float(bound))


def assert_same_steps(
    compiled: Optimizer, plain: Optimizer, count: int, dtype: torch.dtype, shapes: Any = ALL
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
                assert_close(one, other)
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
    assert_same_steps(*both(dtype, options), count, dtype)
