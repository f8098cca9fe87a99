"""Optimizers whose coordinates share information: averaging cells and memories."""

import math
from typing import Any

import pytest
import torch
from helpers import quadratics, tensors_of, updates
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.meta.estimators.replay import replay
from l2lgd.meta.estimators.textbook import textbook
from l2lgd.meta.rollout import rollout, start
from l2lgd.meta.schedules import Unroll
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
from l2lgd.optimizers.ntm_bfgs import NTMBFGS

SHARING: dict[str, Any] = {
    "gac": lambda **o: CoordinatewiseLSTM(averaging_cells=2, hidden_size=5, **o),
    "dense": lambda **o: NTMBFGS(hidden_size=5, averaging_cells=2, **o),
    "factored": lambda **o: NTMBFGS(
        hidden_size=5, averaging_cells=2, memory="factored", history=3, **o
    ),
    "variants": lambda **o: NTMBFGS(
        hidden_size=5,
        averaging_cells=2,
        output="exponential",
        read_gradient=True,
        multiply_update=True,
        **o,
    ),
}
all_of_them = pytest.mark.parametrize("kind", SHARING)


def sharing(kind: str, **options: Any) -> CoordinatewiseLSTM:
    """With every weight away from zero, so that the memory is written to."""
    chosen = SHARING[kind](**options).double()
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in chosen.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=draw, dtype=weight.dtype)
    return chosen


def stream(steps: int = 6, num_functions: int = 2, n: int = 8) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(steps, num_functions, n, generator=draw, dtype=torch.float64)


@all_of_them
def test_permuting_coordinates_permutes_updates(kind: str) -> None:
    gradients, order = stream(), torch.randperm(8, generator=torch.Generator().manual_seed(1))
    straight = updates(sharing(kind), gradients)
    permuted = updates(sharing(kind), gradients[..., order])
    torch.testing.assert_close(straight[..., order], permuted, rtol=0, atol=1e-12)


@all_of_them
def test_duplicating_every_coordinate_changes_nothing(kind: str) -> None:
    gradients = stream()
    twice = updates(sharing(kind), gradients.repeat_interleave(2, -1))
    once = updates(sharing(kind), gradients)
    torch.testing.assert_close(twice, once.repeat_interleave(2, -1), rtol=0, atol=1e-12)


@all_of_them
def test_coordinates_of_a_function_hear_each_other_and_other_functions_do_not(kind: str) -> None:
    gradients = stream()
    changed = gradients.clone()
    changed[0, 0, 0] += 1
    before, after = (updates(sharing(kind), g) for g in (gradients, changed))
    assert not before[1:, 0, 1:].equal(after[1:, 0, 1:])
    assert before[:, 1].equal(after[:, 1])


def by_hand(learned: CoordinatewiseLSTM, stream: Tensor) -> Tensor:
    """LSTM+GAC on the stream (U, n) of one function: a loop over coordinates and layers."""
    n, shared = stream.shape[1], learned.averaging_cells
    size, layers = learned.hidden_size, learned.num_layers
    zeros = torch.zeros(layers, n, size, dtype=stream.dtype)
    hidden, cell = zeros.clone(), zeros.clone()
    found = torch.empty_like(stream)
    with torch.no_grad():
        for t, gradients in enumerate(stream):
            below = [learned._features(g.view(1, 1), None).view(-1) for g in gradients]
            for layer, (weight, bias) in enumerate(
                zip(learned.weights, learned.biases, strict=True)
            ):
                outgoing = []
                for k in range(n):
                    gates = weight @ torch.cat((below[k], hidden[layer, k])) + bias
                    i, f, o, candidate = gates.split(size)
                    kept = torch.sigmoid(f + learned.forget_bias) * cell[layer, k]
                    cell[layer, k] = kept + torch.sigmoid(i) * torch.tanh(candidate)
                    outgoing.append(torch.sigmoid(o) * torch.tanh(cell[layer, k]))
                means = sum(h[:shared] for h in outgoing) / n
                below = [torch.cat((means, h[shared:])) for h in outgoing]
                hidden[layer] = torch.stack(below)
            outputs = [learned.output_weight[0] @ top + learned.output_bias[0] for top in below]
            found[t] = learned.output_scale * torch.stack(outputs)
    return found


def test_averaging_cells_hand_out_their_mean_to_the_next_layer_and_the_next_step() -> None:
    """And keep their own cell states (section 7.1 of the paper's appendix as read here)."""
    learned, gradients = sharing("gac"), stream(4, num_functions=1, n=5)
    found, expected = updates(learned, gradients)[:, 0], by_hand(learned, gradients[:, 0])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("memory", ["dense", "factored"])
def test_without_averages_and_heads_it_is_the_plain_lstm(memory: str) -> None:
    options = {"averaging_cells": 0, "read_heads": 0, "write_heads": 0, "memory": memory}
    bare, plain = NTMBFGS(**options).double(), CoordinatewiseLSTM(backend="torch").double()
    assert bare.state_dict().keys() == plain.state_dict().keys()
    for learned in (bare, plain):
        learned.reset_parameters(torch.Generator().manual_seed(5))
    assert updates(bare, stream()).equal(updates(plain, stream()))


def test_the_memory_begins_as_the_identity_and_is_not_written_to_at_first() -> None:
    learned = NTMBFGS().double()
    gradients = stream()
    state = learned.initial_state(gradients[0])
    with torch.no_grad():
        for gradient in gradients:
            _, state = learned.step(gradient, state)
    assert state.memory[0].equal(torch.eye(8, dtype=torch.float64).repeat(2, 1, 1))
    assert state.read.abs().max() > 0


def test_a_multiplied_update_is_the_memory_times_the_controllers_own() -> None:
    plain, multiplied = sharing("dense"), sharing("dense", multiply_update=True)
    state, own = plain.initial_state(stream()[0]), updates(plain, stream())
    found = updates(multiplied, stream())
    with torch.no_grad():
        for gradient, update, product in zip(stream(), own, found, strict=True):
            (matrix,) = state.memory
            expected = torch.einsum("bij,bj->bi", matrix, update)
            torch.testing.assert_close(product, expected, rtol=1e-12, atol=1e-12)
            _, state = plain.step(gradient, state)
    assert found[0].equal(own[0])  # the memory begins as the identity
    assert not torch.allclose(found[-1], own[-1])


def test_the_gradients_own_product_is_one_more_input() -> None:
    """Columns of the first layer: 2 features of ∇, M r, 2 features of M∇, hidden."""
    hearing, deaf = (sharing("dense", read_gradient=True) for _ in range(2))
    without = sharing("dense")
    with torch.no_grad():
        deaf.weights[0][:, 3:5] = 0
    own = dict(deaf.state_dict())
    own["weights.0"] = torch.cat((own["weights.0"][:, :3], own["weights.0"][:, 5:]), 1)
    without.load_state_dict(own)
    assert updates(deaf, stream()).equal(updates(without, stream()))
    seen: list[Tensor] = []
    features = hearing._features

    def recorded(gradient: Tensor, width: Tensor | None) -> Tensor:
        seen.append(gradient)
        return features(gradient, width)

    hearing._features = recorded  # type: ignore[method-assign]
    state = hearing.initial_state(stream()[0])
    with torch.no_grad():
        for gradient in stream():
            (matrix,) = state.memory
            seen.clear()
            _, state = hearing.step(gradient, state)
            product = torch.einsum("bij,bj->bi", matrix, gradient)
            assert seen[0].equal(gradient)
            torch.testing.assert_close(seen[1], product, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(product, gradient)


def test_writes_are_sums_or_means() -> None:
    """A sum is a mean whose left vectors are n times as large."""
    mean, total = sharing("dense"), sharing("dense", write_scale="sum")
    left = slice(mean.read_heads, mean.read_heads + mean.write_heads)
    with torch.no_grad():
        total.head_weight[left] /= 8  # n
        total.head_bias[left] /= 8
    found, expected = updates(total, stream()), updates(mean, stream())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_what_was_read_may_be_preprocessed_like_a_gradient() -> None:
    """With the identity as memory and one read head that always asks for 0.5."""
    learned = NTMBFGS(write_heads=0, averaging_cells=0, read_preprocessing="log_sign").double()
    plain = NTMBFGS(write_heads=0, averaging_cells=0).double()
    own = dict(learned.state_dict())
    for one in (learned, plain):
        with torch.no_grad():
            one.head_weight.zero_()
            one.head_bias.fill_(0.5)
    weight = own["weights.0"]  # columns: 2 of ∇, 2 of M r, hidden
    magnitude, direction = math.log(0.5) / 10, 1.0
    constant = (weight[:, 2] * magnitude + weight[:, 3] * direction) / 0.5
    others = {k: v for k, v in own.items() if not k.startswith("head_")}
    others["weights.0"] = torch.cat((weight[:, :2], constant.unsqueeze(1), weight[:, 4:]), 1)
    plain.load_state_dict(others, strict=False)
    states = []
    for one in (learned, plain):
        begin = one.initial_state(stream()[0])
        states.append(begin._replace(read=torch.full_like(begin.read, 0.5)))
    with torch.no_grad():
        for gradient in stream():
            first, states[0] = learned.step(gradient, states[0])
            second, states[1] = plain.step(gradient, states[1])
            torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


def test_a_factored_memory_is_linear_in_the_number_of_coordinates() -> None:
    learned = NTMBFGS(memory="factored")
    sizes = [
        sum(t.numel() for t in tensors_of(learned.initial_state(torch.zeros(1, n)))) / n
        for n in (10, 1_000, 100_000)
    ]
    assert sizes == [sizes[0]] * 3


def test_a_dense_memory_that_cannot_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="n=15,910 coordinates would take"):
        NTMBFGS().initial_state(torch.zeros(1, 15910))


def test_dense_and_factored_agree_while_nothing_is_forgotten() -> None:
    dense = sharing("dense")
    factored = NTMBFGS(hidden_size=5, averaging_cells=2, memory="factored", history=6).double()
    factored.load_state_dict(dense.state_dict())
    found, expected = updates(factored, stream()), updates(dense, stream())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("second_derivatives", "smoothing"), [(False, 0.0), (True, 0.0), (True, 1.0)]
)
@all_of_them
def test_replay_is_the_textbook_loop(kind: str, second_derivatives: bool, smoothing: float) -> None:
    learned, same = sharing(kind), sharing(kind)
    objective = Unroll([5]).objective(5)
    at = start(learned, quadratics())
    record, _ = rollout(at, 5, keep_path=second_derivatives)
    replay(record, objective, smoothing)
    textbook(start(same, quadratics()), 5, objective, second_derivatives, smoothing)
    for (name, mine), theirs in zip(learned.named_parameters(), same.parameters(), strict=True):
        scale = theirs.grad.norm()
        assert scale > 0, name
        assert (mine.grad - theirs.grad).norm() <= 1e-10 * scale, name


@pytest.mark.parametrize("kind", ["dense", "factored"])
def test_the_meta_gradient_through_a_write_and_a_read_is_that_of_finite_differences(
    kind: str,
) -> None:
    """Four steps: the pair that is written in the first is read in the third, after r is known."""
    learned, gradients = sharing(kind, output_scale=10.0), stream(4)
    cotangents = torch.zeros_like(gradients)
    cotangents[-1] = stream(1)[0]  # only what the last update says

    def last_update() -> Tensor:
        return (updates(learned, gradients)[-1] * cotangents[-1]).sum()

    state = learned.initial_state(gradients[0])
    found = learned.vector_jacobian_product(gradients, state, cotangents)
    by_name = dict(zip(dict(learned.named_parameters()), found, strict=True))
    for name in ("head_weight", "head_bias", "weights.0"):
        weight, step = learned.get_parameter(name).data.view(-1), 1e-5
        for index in range(0, weight.numel(), 7):
            kept = weight[index].item()
            weight[index] = kept + step
            above = last_update()
            weight[index] = kept - step
            below = last_update()
            weight[index] = kept
            difference = ((above - below) / (2 * step)).item()
            exact = by_name[name].view(-1)[index].item()
            assert exact == pytest.approx(difference, rel=1e-5, abs=1e-8), f"{name}[{index}]"
    left = slice(learned.read_heads, learned.read_heads + learned.write_heads)
    assert by_name["head_weight"][left].abs().max() > 1e-3, "nothing was written that was read"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "sparse"}, "memory=sparse: choose one of dense, factored"),
        ({"write_scale": "half"}, "write_scale=half"),
        ({"read_preprocessing": "log"}, "read_preprocessing=log"),
        ({"read_heads": -1}, "read_heads=-1: must be at least 0"),
        ({"history": 0}, "history=0: must be at least 1"),
        ({"averaging_cells": 21}, "averaging_cells=21: must be from 0 to hidden_size=20"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NTMBFGS(**options)
