"""The GPU's kernels against those of the CPU; without a GPU, in Triton's interpreter."""

import pytest
import torch
from torch import Tensor

from l2lgd.kernels import coordinatewise, coordinatewise_triton
from l2lgd.kernels.coordinatewise import Settings
from l2lgd.optimizers.base import tensors_of
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM

if not coordinatewise_triton.is_available():
    pytest.skip("there is no Triton for this platform", allow_module_level=True)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
N = 70  # coordinates: a whole block and a part of one
networks = pytest.mark.parametrize(
    "settings",
    [
        Settings(2, 20, "log_sign", 10.0, 0.1, 1.0),
        Settings(1, 5, "none", 10.0, 1.0, 1.0),
        Settings(3, 17, "log_sign", 4.0, 2.0, 0.0),
    ],
    ids=["the paper's", "no preprocessing", "deep"],
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(num_steps: int) -> Tensor:
    """Of many magnitudes, with exact zeros."""
    draw = torch.Generator().manual_seed(1)
    found = drawn(num_steps, N) * 10.0 ** torch.randint(-9, 2, (num_steps, N), generator=draw)
    found[:, :3] = 0
    return found


def state(settings: Settings, seed: int) -> list[list[Tensor]]:
    shape, draws = (settings.hidden_size, N), range(seed, seed + 2 * settings.num_layers)
    tensors = [drawn(*shape, seed=draw) for draw in draws]
    return [tensors[: settings.num_layers], tensors[settings.num_layers :]]


def on_device(given: object) -> object:
    if isinstance(given, Tensor):
        return given.to(DEVICE, copy=True)
    return [on_device(part) for part in given] if isinstance(given, list) else given


def on_both(name: str, *given: object) -> tuple[list[Tensor], list[Tensor]]:
    """What a kernel returns, and its arguments, which it may have written to."""
    if not coordinatewise.is_available():
        pytest.skip("no C++ compiler, so nothing to compare with")
    found = []
    for module, own in ((coordinatewise_triton, on_device), (coordinatewise, lambda x: x)):
        arguments = [own(part) for part in given]
        returned = getattr(module, name)(*arguments)
        every = ([] if returned is None else [returned], arguments[1:])
        found.append([tensor.cpu() for tensor in tensors_of(every)])
    return found[0], found[1]


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        assert (mine - theirs).norm() <= 1e-5 * theirs.norm()


@networks
def test_steps_are_those_of_the_cpu(settings: Settings) -> None:
    weights = 0.3 * drawn(settings.num_weights)
    given = (settings, weights, gradients(1)[0], state(settings, 1))
    assert_close(*on_both("step", *given))


@pytest.mark.parametrize("slice_size", [64, 128])
@networks
def test_replays_are_those_of_the_cpu(
    settings: Settings, slice_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinatewise_triton, "SLICE", 3 * slice_size)
    weights = 0.3 * drawn(settings.num_weights)
    into = drawn(settings.num_weights, seed=20)
    given = (settings, weights, gradients(3), drawn(3, N, seed=30), state(settings, 1), into)
    assert_close(*on_both("replay", *given))


@networks
def test_steps_back_are_those_of_the_cpu(settings: Settings) -> None:
    weights = 0.3 * drawn(settings.num_weights)
    gradient, cotangent = gradients(1)[0], drawn(N, seed=30)
    into = drawn(settings.num_weights, seed=20)
    given = (settings, weights, gradient, cotangent, state(settings, 1), state(settings, 40), into)
    assert_close(*on_both("step_back", *given))


@pytest.mark.filterwarnings("ignore:invalid value")  # the interpreter is NumPy
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_function_neither_passes_for_a_finite_one_nor_spreads(value: float) -> None:
    learned = CoordinatewiseLSTM()
    weights = learned._phi().to(DEVICE)
    zeros = [torch.zeros(20, 2, device=DEVICE) for _ in range(2)]
    gradient = torch.tensor([0.5, value], device=DEVICE)
    found, _ = coordinatewise_triton.step(learned._settings, weights, gradient, (zeros, zeros))
    with torch.no_grad():
        plain = CoordinatewiseLSTM(backend="torch")
        expected, _ = plain.step(
            torch.tensor([[0.5, value]]), plain.initial_state(torch.zeros(1, 2))
        )
    assert found.cpu().isfinite().equal(expected[0].isfinite())
    torch.testing.assert_close(found.cpu()[0], expected[0, 0], rtol=1e-4, atol=1e-5)
