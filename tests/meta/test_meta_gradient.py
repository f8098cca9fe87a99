"""The meta-gradient: replay against the textbook loop and against finite differences."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import (
    LEARNED,
    OPTIMIZEES,
    classifiers,
    optimizer,
    optimizer_node,
    quadratics,
    run_steps,
    tensors_of,
    thinned,
)
from torch import Tensor

from l2lgd.config.building import build
from l2lgd.meta.estimators.replay import replay
from l2lgd.meta.estimators.textbook import textbook
from l2lgd.meta.rollout import Position, Record, rollout, start
from l2lgd.meta.schedules import LOSS_WEIGHTS, META_LOSSES, Unroll
from l2lgd.optimizers.base import BLOCK_SIZE, given
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM

T, U = 8, 5  # the second unroll has only 3 steps
Gradients = dict[str, Tensor]


def make(name: str) -> Any:
    if name == "lstm, no preprocessing":
        return CoordinatewiseLSTM(preprocessing="none", output_scale=1.0).double()
    if name == "lstm, backend torch":  # block by block, and where there is no compiler
        return CoordinatewiseLSTM(backend="torch").double()
    if name == "celo":  # whose steps from θ = 0 are as small as that
        options = optimizer_node(name)
        options["rule"]["scale_by_parameter"] = False
        made = build(options, "opt").double()
        made.scale_updates(10.0)
    else:
        made = optimizer(name)
    if name in ("mlp", "celo"):  # away from the kinks of its ReLUs
        draw, rule = torch.Generator().manual_seed(0), getattr(made, "rule", made)
        with torch.no_grad():
            for bias in rule.biases:
                bias += 0.1 * torch.randn(bias.shape, generator=draw, dtype=bias.dtype)
    return made


MAKES = [*LEARNED, "lstm, no preprocessing", "lstm, backend torch"]


def gradients_of(learned: Any) -> Gradients:
    return {  # autograd leaves None where a weight has had no say
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
        for name, weight in learned.named_parameters()
    }


def unrolls_of_a_trajectory(
    learned: Any,
    at: Position,
    objective: Callable[[Tensor, range], Tensor],
    way: str,
    second_derivatives: bool = False,
    smoothing: float = 0.0,
) -> list[tuple[Tensor, Gradients, Record]]:
    found = []
    for length in (U, T - U):
        learned.zero_grad(set_to_none=True)
        if way == "replay":
            record, at = rollout(at, length, second_derivatives)
            meta_loss = replay(record, objective, smoothing)
        else:
            meta_loss, record, at = textbook(at, length, objective, second_derivatives, smoothing)
        found.append((meta_loss, gradients_of(learned), record))
    return found


def assert_same_trajectory(
    learned: Any, optimizee: Any, block_size: int, unroll: Unroll, *options: Any
) -> None:
    objective = unroll.objective(T)
    fast, slow = (
        unrolls_of_a_trajectory(
            learned, start(learned, optimizee, block_size, horizon=T), objective, way, *options
        )
        for way in ("replay", "textbook")
    )
    for (loss, gradients, record), (true_loss, true_gradients, true_record) in zip(
        fast, slow, strict=True
    ):
        torch.testing.assert_close(loss, true_loss, rtol=1e-12, atol=0)
        assert record.steps == true_record.steps
        torch.testing.assert_close(record.losses, true_record.losses, rtol=1e-12, atol=0)
        torch.testing.assert_close(record.gradients, true_record.gradients, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(record.update_size, true_record.update_size)
        for name, true in true_gradients.items():
            difference = (gradients[name] - true).norm()
            # Some meta-gradients are zero: those of softmax weights add up to it.
            least = 1e-14 * torch.stack([g.norm() for g in true_gradients.values()]).max()
            assert difference <= 1e-10 * true.norm() + least, (
                f"{name}: {difference / true.norm():.1e}"
            )


# Parts of a function, all of one, several functions, everything; for each rule, one and the last.
BLOCK_SIZES = (3, 7, 10, 25, BLOCK_SIZE)
BLOCKS = thinned(
    [(name, size) for name in MAKES for size in BLOCK_SIZES],
    [("lstm", size) for size in BLOCK_SIZES]
    + [(name, size) for name in MAKES if name != "lstm" for size in (7, BLOCK_SIZE)],
)


@pytest.mark.parametrize(("name", "block_size"), BLOCKS)
@pytest.mark.parametrize("optimizee", OPTIMIZEES)
def test_replay_equals_the_textbook_loop_whatever_the_blocks(
    name: str, optimizee: str, block_size: int
) -> None:
    assert_same_trajectory(make(name), OPTIMIZEES[optimizee](), block_size, Unroll([U]))


@pytest.mark.parametrize(
    ("block_size", "smoothing"),
    thinned(
        [(7, 0.0), (7, 1.0), (BLOCK_SIZE, 0.0), (BLOCK_SIZE, 1.0)], [(7, 1.0), (BLOCK_SIZE, 0.0)]
    ),
)
@pytest.mark.parametrize("optimizee", OPTIMIZEES)
@pytest.mark.parametrize("name", MAKES)
def test_replay_with_second_derivatives_equals_the_textbook_loop(
    name: str, optimizee: str, block_size: int, smoothing: float
) -> None:
    assert_same_trajectory(
        make(name), OPTIMIZEES[optimizee](), block_size, Unroll([U]), True, smoothing
    )


@pytest.mark.parametrize("meta_loss", META_LOSSES)
@pytest.mark.parametrize("loss_weights", LOSS_WEIGHTS)
@pytest.mark.parametrize("optimizee", OPTIMIZEES)
def test_replay_equals_the_textbook_loop_for_every_meta_loss(
    optimizee: str, loss_weights: str, meta_loss: str
) -> None:
    unroll = Unroll([T], loss_weights=loss_weights, meta_loss=meta_loss)
    assert_same_trajectory(make("lstm"), OPTIMIZEES[optimizee](), 7, unroll)


def test_replay_stays_close_to_the_textbook_loop_in_single_precision() -> None:
    learned, optimizee = optimizer("lstm", torch.float32), classifiers(dtype=torch.float32)
    objective = Unroll([U]).objective(T)
    fast, slow = (
        unrolls_of_a_trajectory(learned, start(learned, optimizee, horizon=T), objective, way)
        for way in ("replay", "textbook")
    )
    for (_, gradients, _), (_, true_gradients, _) in zip(fast, slow, strict=True):
        for name, true in true_gradients.items():
            assert (gradients[name] - true).norm() <= 1e-3 * true.norm(), name


@pytest.mark.parametrize("optimizee", OPTIMIZEES)
@pytest.mark.parametrize("name", MAKES)
def test_rollout_records_the_plain_loop(name: str, optimizee: str) -> None:
    learned, functions = make(name), OPTIMIZEES[optimizee]()
    visited = run_steps(learned, functions, T)
    expected = [functions.loss_and_gradient(visited[step], step) for step in range(T + 1)]
    at = start(learned, functions, block_size=7, horizon=T)
    torch.testing.assert_close(at.loss, expected[0][0])
    for first, length in ((0, U), (U, T - U)):
        record, at = rollout(at, length)
        assert record.steps == range(first + 1, first + length + 1)
        losses, gradients = zip(*expected[first : first + length + 1], strict=True)
        torch.testing.assert_close(record.losses, torch.stack(losses[1:]))
        torch.testing.assert_close(record.gradients, torch.stack(gradients))
        sizes = visited[first + 1 : first + length + 1] - visited[first : first + length]
        torch.testing.assert_close(record.update_size, sizes.square().mean().sqrt())
    assert at.step == T
    torch.testing.assert_close(at.parameters, visited[-1])


def directions(learned: Any) -> list[dict[str, Tensor]]:
    """Random directions in φ: one within each weight tensor, and one across all of them."""
    draw = torch.Generator().manual_seed(0)
    weights = dict(learned.named_parameters())
    drawn = {
        name: torch.randn(weight.shape, generator=draw, dtype=weight.dtype)
        for name, weight in weights.items()
    }
    return [*({name: direction} for name, direction in drawn.items()), drawn]


def assert_gradient(learned: Any, gradients: Gradients, meta_loss: Callable[[], float]) -> None:
    """``gradients`` against central differences of ``meta_loss`` along random directions."""
    weights, step = dict(learned.named_parameters()), 1e-6
    for direction in directions(learned):

        def shifted(by: float, along: dict[str, Tensor] = direction) -> float:
            with torch.no_grad():
                for name, part in along.items():
                    weights[name].add_(part, alpha=by)
                value = meta_loss()
                for name, part in along.items():
                    weights[name].sub_(part, alpha=by)
            return value

        difference = (shifted(step) - shifted(-step)) / (2 * step)
        slope = sum(float((gradients[name] * part).sum()) for name, part in direction.items())
        assert slope == pytest.approx(difference, rel=1e-5, abs=1e-8), list(direction)


@pytest.mark.parametrize(
    ("optimizee", "loss_weights"),
    thinned(
        [(optimizee, weights) for optimizee in OPTIMIZEES for weights in ("uniform", "linear")],
        list(zip(OPTIMIZEES, ("uniform", "linear"), strict=True)),
    ),
)
@pytest.mark.parametrize("name", MAKES)
def test_replay_is_the_derivative_with_the_recorded_gradients_frozen(
    name: str, optimizee: str, loss_weights: str
) -> None:
    learned, functions = make(name), OPTIMIZEES[optimizee]()
    objective = Unroll([U], loss_weights=loss_weights).objective(U)
    record, _ = rollout(start(learned, functions, horizon=T), U)
    replay(record, objective)

    def meta_loss() -> float:
        parameters, own = functions.initial_parameters, learned.named(functions.shapes)
        state = own.initial_state(parameters)
        losses = []
        for step in record.steps:
            seen = record.seen[step - 1] if record.seen else None
            update, state = own.step(record.gradients[step - 1], state, **given(seen))
            parameters = parameters + update
            losses.append(functions.loss(parameters, step))
        return float(objective(torch.stack(losses), record.steps).mean(1).sum())

    assert_gradient(learned, gradients_of(learned), meta_loss)


@pytest.mark.parametrize(
    ("optimizee", "meta_loss_kind"),
    thinned(
        [(optimizee, kind) for optimizee in OPTIMIZEES for kind in META_LOSSES],
        list(zip(OPTIMIZEES, META_LOSSES, strict=True)),
    ),
)
@pytest.mark.parametrize("name", MAKES)
def test_second_derivatives_give_the_derivative_of_the_whole_loop(
    name: str, optimizee: str, meta_loss_kind: str
) -> None:
    learned, functions = make(name), OPTIMIZEES[optimizee]()
    objective = Unroll([U], meta_loss=meta_loss_kind).objective(U)
    textbook(start(learned, functions, horizon=T), U, objective, second_derivatives=True)
    whole = gradients_of(learned)

    def meta_loss() -> float:
        record, _ = rollout(start(learned, functions, horizon=T), U)
        return float(objective(record.losses, record.steps).mean(1).sum())

    assert_gradient(learned, whole, meta_loss)
    # Not the same number as without them, or the option would do nothing.
    learned.zero_grad(set_to_none=True)
    textbook(start(learned, functions, horizon=T), U, objective)
    first_order = gradients_of(learned)
    assert any((whole[key] - first_order[key]).norm() > 1e-4 * whole[key].norm() for key in whole)


def test_second_derivatives_end_where_the_rollout_ends() -> None:
    learned, functions = make("lstm"), classifiers()
    objective = Unroll([U]).objective(T)
    whole = unrolls_of_a_trajectory(
        learned,
        start(learned, functions, horizon=T),
        objective,
        "textbook",
        second_derivatives=True,
    )
    plain = unrolls_of_a_trajectory(
        learned, start(learned, functions, horizon=T), objective, "replay"
    )
    for (loss, _, record), (plain_loss, _, plain_record) in zip(whole, plain, strict=True):
        torch.testing.assert_close(loss, plain_loss)
        torch.testing.assert_close(record.losses, plain_record.losses)
        torch.testing.assert_close(record.gradients, plain_record.gradients)


@pytest.mark.parametrize("optimizee", OPTIMIZEES)
@pytest.mark.parametrize("name", MAKES)
def test_stacked_functions_give_the_mean_of_their_own_meta_gradients(
    name: str, optimizee: str
) -> None:
    learned, functions = make(name), OPTIMIZEES[optimizee]()
    objective = Unroll([U]).objective(T)
    count = len(functions.initial_parameters)
    together = unrolls_of_a_trajectory(
        learned, start(learned, functions, horizon=T), objective, "replay"
    )
    apart = [
        unrolls_of_a_trajectory(
            learned,
            start(learned, functions.select(slice(row, row + 1)), horizon=T),
            objective,
            "replay",
        )
        for row in range(count)
    ]
    for unroll, (meta_loss, gradients, _) in enumerate(together):
        own = [alone[unroll] for alone in apart]
        torch.testing.assert_close(meta_loss, torch.stack([loss for loss, _, _ in own]).mean())
        least = 1e-14 * max(float(gradient.norm()) for gradient in gradients.values())
        for key, gradient in gradients.items():
            mean = torch.stack([part[key] for _, part, _ in own]).mean(0)
            assert (gradient - mean).norm() <= 1e-10 * mean.norm() + least, key


@pytest.mark.parametrize("num_steps", [1, 2, 7, 10])
@pytest.mark.parametrize("name", MAKES)
def test_states_that_take_too_much_memory_are_computed_again(name: str, num_steps: int) -> None:
    learned, objective = make(name), Unroll([num_steps]).objective(num_steps)
    at = start(learned, classifiers(), block_size=25, horizon=T)
    found, kept = [], []
    for state_bytes in (2**40, 0):
        learned.zero_grad(set_to_none=True)
        record, _ = rollout(at, num_steps, keep_path=True, state_bytes=state_bytes)
        replay(record, objective, smoothing=1.0)
        found.append(gradients_of(learned))
        kept.append(sum(bool(position.states) for position in record.path or []))
    assert kept == [num_steps, {1: 1, 2: 1, 7: 3, 10: 3}[num_steps]]
    assert all(gradient.equal(found[1][key]) for key, gradient in found[0].items())


def test_replay_adds_to_the_gradient_that_is_there() -> None:
    learned = make("lstm")
    objective = Unroll([U]).objective(U)
    record, _ = rollout(start(learned, quadratics(), horizon=T), U)
    replay(record, objective)
    once = gradients_of(learned)
    replay(record, objective)
    for name, twice in gradients_of(learned).items():
        torch.testing.assert_close(twice, 2 * once[name])


@pytest.mark.parametrize("way", ["rollout", "path", "textbook", "second derivatives"])
@pytest.mark.parametrize("name", MAKES)
def test_no_graph_is_kept_from_one_unroll_to_the_next(name: str, way: str) -> None:
    at = start(make(name), classifiers(), horizon=T)
    objective = Unroll([U]).objective(T)
    if way in ("rollout", "path"):
        record, at = rollout(at, U, keep_path=way == "path")
        replay(record, objective, smoothing=1.0)
    else:
        _, record, at = textbook(at, U, objective, way == "second derivatives")
    kept = [at.parameters, at.loss, at.gradient, record.losses, record.gradients]
    kept += tensors_of(at.states) + tensors_of(record.states)
    assert len(kept) > 5, "the state must hold tensors, or this test sees nothing of it"
    assert not any(tensor.requires_grad or tensor.grad_fn for tensor in kept)


@pytest.mark.parametrize("keep_path", [False, True])
def test_the_number_of_live_tensors_stays_the_same_over_many_steps(keep_path: bool) -> None:
    learned, functions = make("lstm"), classifiers()
    objective = Unroll([U]).objective(1000)
    at = start(learned, functions, horizon=T)
    alive = []
    for unroll in range(40):
        record, at = rollout(at, U, keep_path)
        replay(record, objective)
        if unroll in (2, 39):  # the first unrolls fill caches
            gc.collect()
            alive.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))
    assert alive[0] == alive[1]
