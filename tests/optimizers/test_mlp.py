"""The per-parameter MLP against traces of the authors' programs, where these are at hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import classifiers, optimizer
from published import CELO, CELO2, CELO2_BASE
from safetensors.torch import load_file
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.optimizers.accumulators import axes
from l2lgd.optimizers.mlp import MLPRule, newton_schulz
from l2lgd.optimizers.observation import Observation

TRACES = Path(__file__).parents[3] / "shared" / "traces"


def traced(file: str) -> dict[str, Tensor]:
    path = TRACES / file
    if not path.exists():
        pytest.skip(f"no {file}")
    return load_file(path)


def rule_of(traces: dict[str, Tensor], prefix: str, **options: Any) -> MLPRule:
    rule = MLPRule(**options)
    with torch.no_grad():
        for index, (weight, bias) in enumerate(zip(rule.weights, rule.biases, strict=True)):
            weight.copy_(traces[f"{prefix}.w{index}"])
            bias.copy_(traces[f"{prefix}.b{index}"])
    return rule


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors]).unsqueeze(0)


def worst(update: Tensor, expected: list[Tensor]) -> float:
    """The largest difference, in the largest entry of its tensor."""
    pieces = update[0].split([part.numel() for part in expected])
    pairs = zip(pieces, expected, strict=True)
    return max(
        float((mine - theirs.reshape(-1)).abs().max() / theirs.abs().max().clamp(min=1e-30))
        for mine, theirs in pairs
    )


def test_the_rule_of_celo() -> None:
    traces = traced("celo.safetensors")
    names = sorted(key.removeprefix("grad.") for key in traces if key.startswith("grad."))
    rule = rule_of(traces, "mlp", **CELO)
    assert sum(weight.numel() for weight in rule.parameters()) == 159
    shapes = {name: tuple(traces[f"grad.{name}"].shape[1:]) for name in names}
    bound = rule.named(shapes)
    state = bound.initial_state(flat([traces[f"param_before.{n}"][0] for n in names]))
    for step in range(20):
        theta = flat([traces[f"param_before.{n}"][step] for n in names])
        seen = Observation(theta, torch.ones(1), step)
        gradient = flat([traces[f"grad.{n}"][step] for n in names])
        with torch.no_grad():
            update, state = bound.step(gradient, state, None, seen)
        assert worst(-update, [traces[f"step_mlp.{n}"][step] for n in names]) < 1e-5
    for name, kept in zip(names, state, strict=True):
        for mine, theirs in (("momentum", kept.momentum), ("second_moment", kept.second_moment)):
            final = traces[f"final.{mine}.{name}"].movedim(-1, 0)
            torch.testing.assert_close(theirs[0].reshape(final.shape), final, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options"),
    [("celo2_base", CELO2_BASE), ("celo2", CELO2), ("small_fc", {"step_size": 1e-3})],
)
def test_other_rules(name: str, options: dict[str, Any]) -> None:
    traces = traced("random_weight_traces.safetensors")
    names = sorted(key.removeprefix("param0.") for key in traces if key.startswith("param0."))
    rule = rule_of(traces, f"{name.removesuffix('_base')}.mlp", **options)
    gradients = {n: traces[f"grad.{n}"] for n in names}
    theta = flat([traces[f"param0.{n}"] for n in names])
    bound = rule.named({n: tuple(traces[f"param0.{n}"].shape) for n in names})
    state = bound.initial_state(theta)
    for step in range(10):
        expected = [traces[f"{name}.step.{n}"][step] for n in names]
        seen = Observation(theta, torch.ones(1), step)
        with torch.no_grad():
            update, state = bound.step(flat([gradients[n][step] for n in names]), state, None, seen)
        assert worst(-update, expected) < 1e-5
        scale = 1e-3 if options["step_size"] == 1 else 1.0
        theta = theta + scale * update
    assert worst(theta, [traces[f"{name}.param_final.{n}"] for n in names]) < 1e-5


def test_it_has_as_many_weights_as_small_fc() -> None:
    assert sum(weight.numel() for weight in MLPRule().parameters()) == 197


def test_tensors_are_normalised_apart() -> None:
    rule, functions = optimizer("mlp"), classifiers(2)
    theta = functions.initial_parameters
    _, gradient = functions.loss_and_gradient(theta, 0)
    bound = rule.named(functions.shapes)
    seen = Observation(theta, torch.ones(2), 0)
    with torch.no_grad():
        together, _ = bound.step(gradient, bound.initial_state(theta), None, seen)
    for name, part in functions.parameter_slices().items():
        alone = rule.named({name: functions.shapes[name]})
        own = Observation(theta[:, part], torch.ones(2), 0)
        with torch.no_grad():
            update, _ = alone.step(
                gradient[:, part], alone.initial_state(theta[:, part]), None, own
            )
        torch.testing.assert_close(update, together[:, part])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((5,), None), ((), None), ((4, 3), (0, 1)), ((4, 4), (1, 0)), ((3, 3, 2, 4), (3, 1))],
)
def test_the_later_of_equal_axes_is_the_largest(shape: tuple[int, ...], expected: Any) -> None:
    assert axes(shape) == expected


def test_iterations_make_matrices_nearly_orthogonal() -> None:
    matrices = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).double()
    found = torch.linalg.svdvals(newton_schulz(matrices))
    assert found.min() > 0.6
    assert found.max() < 1.3
    assert newton_schulz(matrices.mT).allclose(newton_schulz(matrices).mT)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"inputs": ["gradients"]}, "there is no gradients; choose among gradient"),
        ({"inputs": []}, "needs inputs"),
        ({"inputs": ["gradient", "gradient"]}, "each at most once"),
        ({"hidden_sizes": [0]}, "units in each layer"),
        ({"outputs": 1}, "2 outputs"),
        ({"normalise_over": "row"}, "choose one of tensor, matrix"),
        ({"step_size": 0.0}, "step_size=0.0: must be positive"),
        ({"gradient_clip": -1.0}, "gradient_clip=-1.0: must be positive"),
        ({"second_moment_decay": 1.0}, "second_moment_decay=1.0"),
        ({"backend": "cpp"}, "backend=cpp: choose one of auto, torch"),
        ({"vector_inputs": 99}, "vector_inputs=99: must be 1 to 28"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MLPRule(**options)


@pytest.mark.parametrize("inputs", [["row"], ["column"], ["inverse_root_row", "column"]])
def test_features_of_rows_and_columns_alone_make_updates_of_every_coordinate(
    inputs: list[str],
) -> None:
    rule = MLPRule(inputs=inputs, backend="torch").double()
    rule = rule.named({"matrix": (4, 3), "vector": (3,)})
    gradient = torch.randn(2, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = Observation(gradient, torch.ones(2), 0, None)
    state = rule.initial_state(gradient)
    update, _ = rule.step(gradient, state, None, seen)  # with a graph
    with torch.no_grad():
        again, _ = rule.step(gradient, state, None, seen)
    assert update.shape == gradient.shape
    torch.testing.assert_close(again, update.detach())
