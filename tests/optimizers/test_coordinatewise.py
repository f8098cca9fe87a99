"""The LSTM optimizer against plain loops over coordinates, units and weights."""

import math

import pytest
import torch

from l2lgd.errors import ConfigError
from l2lgd.optimizers.coordinatewise import BACKENDS, CoordinatewiseLSTM


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def features(gradient: float, preprocessing: str, p: float) -> list[float]:
    if preprocessing == "none":
        return [gradient]
    if abs(gradient) >= math.exp(-p):
        return [math.log(abs(gradient)) / p, math.copysign(1.0, gradient)]
    return [-1.0, math.exp(p) * gradient]


def affine(weight: list[list[float]], bias: list[float], x: list[float]) -> list[float]:
    return [
        start + sum(w * v for w, v in zip(row, x, strict=True))
        for row, start in zip(weight, bias, strict=True)
    ]


def plain_updates(learned: CoordinatewiseLSTM, stream: list[float]) -> list[float]:
    """The updates of one coordinate, as the paper's section 2.1 has them."""
    phi = {name: weight.tolist() for name, weight in learned.state_dict().items()}
    size = learned.hidden_size
    h = [[0.0] * size for _ in range(learned.num_layers)]
    c = [[0.0] * size for _ in range(learned.num_layers)]
    updates = []
    for gradient in stream:
        x = features(gradient, learned.preprocessing, learned.p)
        for layer in range(learned.num_layers):
            gates = affine(phi[f"weights.{layer}"], phi[f"biases.{layer}"], x + h[layer])
            i, f, o, candidate = (gates[k * size : (k + 1) * size] for k in range(4))
            for unit in range(size):
                kept = sigmoid(f[unit] + learned.forget_bias) * c[layer][unit]
                c[layer][unit] = kept + sigmoid(i[unit]) * math.tanh(candidate[unit])
                h[layer][unit] = sigmoid(o[unit]) * math.tanh(c[layer][unit])
            x = h[layer]
        (output,) = affine(phi["output_weight"], phi["output_bias"], x)
        updates.append(learned.output_scale * output)
    return updates


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("preprocessing", ["log_sign", "none"])
def test_every_coordinate_has_an_lstm_of_its_own(
    preprocessing: str, num_layers: int, backend: str
) -> None:
    learned = CoordinatewiseLSTM(
        *(num_layers, 3, preprocessing),
        p=4.0,
        output_scale=0.3,
        forget_bias=0.7,
        backend=backend,
    ).double()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():  # biases start at zero, where a forgotten one would not be seen
        for bias in (*learned.biases, learned.output_bias):
            bias.copy_(torch.randn(bias.shape, generator=draw))
    # Gradients on both sides of e^-p, of both signs.
    stream = torch.randn(6, 2, 4, generator=draw, dtype=torch.float64)
    stream *= 10.0 ** torch.randint(-4, 2, stream.shape, generator=draw)
    state = learned.initial_state(stream[0])
    for step, gradient in enumerate(stream):
        with torch.no_grad():
            update, state = learned.step(gradient, state)
        for function in range(2):
            for coordinate in range(4):
                own = stream[: step + 1, function, coordinate].tolist()
                expected = plain_updates(learned, own)[-1]
                assert update[function, coordinate].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("preprocessing", "count"), [("log_sign", 5141), ("none", 5061)])
def test_the_papers_network_has_the_papers_number_of_weights(
    preprocessing: str, count: int
) -> None:
    learned = CoordinatewiseLSTM(preprocessing=preprocessing)
    assert sum(weight.numel() for weight in learned.parameters()) == count


def test_initial_weights_are_truncated_normal_and_biases_zero() -> None:
    learned = CoordinatewiseLSTM(hidden_size=50)
    for weight in (*learned.weights, learned.output_weight):
        std = 1 / math.sqrt(weight.shape[1])
        assert weight.abs().max() <= 2 * std
    large = learned.weights[1]
    # A normal cut at two standard deviations keeps 0.880 of its standard deviation.
    assert large.std().item() * math.sqrt(large.shape[1]) == pytest.approx(0.880, abs=0.02)
    assert all((bias == 0).all() for bias in (*learned.biases, learned.output_bias))


def test_initial_output_scales_the_first_updates_only_through_the_output_layer() -> None:
    plain = CoordinatewiseLSTM().double()
    small = CoordinatewiseLSTM(initial_output=0.01).double()
    gradient = torch.tensor([[0.5, -2.0, 1e-6]], dtype=torch.float64)
    first, second = (m.step(gradient, m.initial_state(gradient))[0] for m in (plain, small))
    torch.testing.assert_close(second, 0.01 * first)


def test_an_exponential_output_begins_as_a_linear_one_and_scales_by_its_second_number() -> None:
    learned, linear = (
        CoordinatewiseLSTM(output="exponential").double(),
        CoordinatewiseLSTM().double(),
    )
    own = dict(learned.state_dict())
    for name in ("output_weight", "output_bias"):
        own[name] = own[name][:1]
    linear.load_state_dict(own)
    gradient = torch.tensor([[0.5, -2.0, 1e-6]], dtype=torch.float64)
    first, second = (m.step(gradient, m.initial_state(gradient))[0] for m in (linear, learned))
    torch.testing.assert_close(second, first, rtol=1e-12, atol=0)
    with torch.no_grad():
        learned.output_bias[1] = math.log(3)
    third, _ = learned.step(gradient, learned.initial_state(gradient))
    torch.testing.assert_close(third, 3 * first, rtol=1e-12, atol=0)
    with torch.no_grad():
        learned.output_bias[1] = 1e4
    assert (
        learned.float()
        .step(gradient.float(), learned.initial_state(gradient.float()))[0]
        .isfinite()
        .all()
    )


@pytest.mark.parametrize(
    "options",
    [
        {"preprocessing": "logsign"},
        {"backend": "cuda"},
        {"output": "quadratic"},
        {"num_layers": 0},
        {"hidden_size": 0},
        {"p": 0.0},
        {"output_scale": -1.0},
    ],
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        CoordinatewiseLSTM(**options)
