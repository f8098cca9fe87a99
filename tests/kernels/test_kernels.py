"""Compiled code against PyTorch: ``backend=auto`` gives the numbers of ``backend=torch``."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from l2lgd.kernels import coordinatewise as kernel
from l2lgd.optimizers.base import map_state, tensors_of
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM

if not kernel.is_available():
    pytest.skip("no C++ compiler, so nothing to compare with", allow_module_level=True)

TOLERANCES = {torch.float32: 2e-4, torch.float64: 1e-11}


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def both(dtype: torch.dtype, **options: object) -> tuple[CoordinatewiseLSTM, CoordinatewiseLSTM]:
    compiled, plain = (
        CoordinatewiseLSTM(**options, backend=backend).to(dtype) for backend in ("auto", "torch")
    )
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight, same in zip(compiled.parameters(), plain.parameters(), strict=True):
            weight += 0.3 * torch.randn(weight.shape, generator=draw).to(dtype)
            same.copy_(weight)
    return compiled, plain


def gradients(num_steps: int, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Of all magnitudes between 1e-9 and 10, with a few exact zeros."""
    draw = torch.Generator().manual_seed(1)
    drawn = torch.randn(num_steps, *shape, generator=draw)
    drawn *= 10.0 ** torch.randint(-9, 2, drawn.shape, generator=draw)
    drawn[:, :, 0] = 0
    return drawn.to(dtype)


def assert_close(found: Tensor, expected: Tensor) -> None:
    bound = TOLERANCES[expected.dtype] * expected.norm()
    assert (found - expected).norm() <= bound, f"{(found - expected).norm() / expected.norm():.1e}"


shapes = pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 67), (1, 9001)])
dtypes = pytest.mark.parametrize("dtype", TOLERANCES)
networks = pytest.mark.parametrize(
    "options",
    [
        {},
        {"preprocessing": "none"},
        {"num_layers": 1, "hidden_size": 3, "p": 4.0, "forget_bias": 0.0},
        {"num_layers": 3, "hidden_size": 13, "output_scale": 2.0},
    ],
    ids=["the paper's", "no preprocessing", "small", "deep"],
)


@shapes
@dtypes
@networks
def test_steps_are_those_of_pytorch(
    options: dict, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    compiled, plain = both(dtype, **options)
    stream = gradients(5, shape, dtype)
    states = [m.initial_state(stream[0]) for m in (compiled, plain)]
    with torch.no_grad():
        for gradient in stream:
            update, states[0] = compiled.step(gradient, states[0])
            expected, states[1] = plain.step(gradient, states[1])
            assert update.shape == gradient.shape
            assert_close(update, expected)
    for found, expected in zip(states[0], states[1], strict=True):
        for mine, theirs in zip(found, expected, strict=True):
            assert_close(mine, theirs)


@shapes
@dtypes
@networks
def test_products_with_the_jacobian_are_those_of_pytorch(
    options: dict, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    compiled, plain = both(dtype, **options)
    stream = gradients(7, shape, dtype)
    cotangents = gradients(7, shape, dtype).flip(0) + 0.1
    state = plain.initial_state(stream[0])
    with torch.no_grad():  # not from zero: the second unroll of a trajectory
        _, state = plain.step(stream[0], state)
    found = compiled.vector_jacobian_product(stream, state, cotangents)
    expected = plain.vector_jacobian_product(stream, state, cotangents)
    for mine, theirs, weight in zip(found, expected, plain.parameters(), strict=True):
        assert mine.shape == weight.shape
        assert_close(mine, theirs)


@pytest.mark.parametrize("last", [False, True], ids=["in the middle", "last step"])
@pytest.mark.parametrize("smoothed", [False, True])
@shapes
@dtypes
@networks
def test_steps_back_are_those_of_pytorch(
    options: dict, dtype: torch.dtype, shape: tuple[int, int], smoothed: bool, last: bool
) -> None:
    compiled, plain = both(dtype, **options)
    gradient, cotangent, width = gradients(3, shape, dtype)
    state = plain.initial_state(gradient)
    with torch.no_grad():
        _, state = plain.step(cotangent, state)
    d_state = None if last else map_state(lambda part: part.flip(1) + 0.1, state)
    found, expected = (
        chosen.step_back(
            gradient,
            state,
            cotangent,
            d_state and map_state(torch.clone, d_state),  # which may be written over
            width.abs() if smoothed else None,
        )
        for chosen in (compiled, plain)
    )
    for mine, theirs in zip(tensors_of(found[:3]), tensors_of(expected[:3]), strict=True):
        assert mine.shape == theirs.shape
        assert_close(mine, theirs)


def test_steps_back_give_the_same_bits_on_any_number_of_threads() -> None:
    compiled, _ = both(torch.float32)
    gradient, cotangent = gradients(2, (1, 5003), torch.float32)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(
            compiled.step_back(gradient, compiled.initial_state(gradient), cotangent, None)[:3]
        )
    torch.set_num_threads(1)
    for one, two in zip(*map(tensors_of, results), strict=True):
        assert one.equal(two)


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_same_numbers() -> None:
    compiled, plain = both(torch.float64)
    stream = gradients(4, (1, 5003), torch.float64)
    state = plain.initial_state(stream[0])
    with torch.no_grad():
        update, _ = compiled.step(stream[0], state)
        assert_close(update, plain.step(stream[0], state)[0])
    found = compiled.vector_jacobian_product(stream, state, stream.flip(0))
    expected = plain.vector_jacobian_product(stream, state, stream.flip(0))
    for mine, theirs in zip(found, expected, strict=True):
        assert_close(mine, theirs)


@pytest.mark.parametrize("preprocessing", ["log_sign", "none"])
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 1e30, -3e38])
def test_extreme_gradients_are_treated_as_pytorch_treats_them(
    value: float, preprocessing: str
) -> None:
    compiled, plain = both(torch.float32, preprocessing=preprocessing)
    gradient = torch.full((1, 5), value)
    with torch.no_grad():
        update, _ = compiled.step(gradient, compiled.initial_state(gradient))
        expected, _ = plain.step(gradient, plain.initial_state(gradient))
    torch.testing.assert_close(update, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_function_does_not_pass_for_a_finite_one(value: float) -> None:
    # Divergence is found by looking for what is not finite, so it must not be swallowed, and
    # must not spread to the functions that share the stack.
    compiled, plain = both(torch.float32)
    gradient = torch.tensor([[0.5, 1.0], [value, 1.0]])
    with torch.no_grad():
        update, _ = compiled.step(gradient, compiled.initial_state(gradient))
        expected, _ = plain.step(gradient, plain.initial_state(gradient))
    assert update.isfinite().equal(expected.isfinite())
    torch.testing.assert_close(update[0], expected[0], rtol=1e-4, atol=1e-5)


def test_a_step_changes_neither_gradient_nor_state() -> None:
    compiled, _ = both(torch.float32)
    gradient = gradients(1, (2, 9), torch.float32)[0]
    with torch.no_grad():
        _, state = compiled.step(gradient, compiled.initial_state(gradient))
        before = [part.clone() for part in (gradient, *state.hidden, *state.cell)]
        compiled.step(gradient, state)
    after = (gradient, *state.hidden, *state.cell)
    assert all(old.equal(new) for old, new in zip(before, after, strict=True))


def test_a_step_in_place_is_the_step() -> None:
    gradient = gradients(1, (2, 9), torch.float32)[0]
    for learned in both(torch.float32):
        with torch.no_grad():
            _, state = learned.step(gradient, learned.initial_state(gradient))
            update, following = learned.step(gradient, state)
            own = map_state(torch.clone, state)
            assert learned.step_in_place(gradient, own).equal(update)
        for old, new in zip(tensors_of(following), tensors_of(own), strict=True):
            assert old.equal(new)


@pytest.mark.parametrize("shape", [(1, 9), (2, 70), (3, 1)])
def test_a_step_in_place_works_on_columns_of_wider_states(shape: tuple[int, int]) -> None:
    compiled, _ = both(torch.float32)
    functions, n = shape
    gradient = gradients(1, shape, torch.float32)[0]
    with torch.no_grad():
        _, state = compiled.step(gradient, compiled.initial_state(gradient))
        update, following = compiled.step(gradient, state)
    wide = map_state(lambda part: torch.full((len(part), functions, n + 5), 7.0), state)
    views = map_state(lambda part: part[:, :, 2 : n + 2], wide)
    for view, part in zip(tensors_of(views), tensors_of(state), strict=True):
        view.copy_(part.unflatten(1, shape))
    assert compiled.takes_views
    assert_close(compiled.step_in_place(gradient, views), update)
    for view, part, whole in zip(*map(tensors_of, (views, following, wide)), strict=True):
        assert_close(view.flatten(1), part)
        assert (whole[:, :, :2] == 7).all(), "what is beside them is not written"
        assert (whole[:, :, n + 2 :] == 7).all()


def test_states_of_several_widths_are_refused() -> None:
    compiled, _ = both(torch.float32)
    gradient = gradients(1, (1, 9), torch.float32)[0]
    state = map_state(torch.clone, compiled.initial_state(gradient))
    cell = torch.zeros(20, 30)[:, :9]
    with pytest.raises(ValueError, match="columns of states of one width"):
        compiled.step_in_place(gradient, state._replace(cell=(cell, cell)))


def test_gradients_need_not_be_contiguous() -> None:
    compiled, plain = both(torch.float64)
    gradient = gradients(1, (6, 4), torch.float64)[0].T
    with torch.no_grad():
        update, _ = compiled.step(gradient, compiled.initial_state(gradient))
        expected, _ = plain.step(gradient, plain.initial_state(gradient))
    torch.testing.assert_close(update, expected)
