"""The contract of every optimizer in conf/opt; a new YAML file is tested without an edit here."""

from pathlib import Path

import pytest
import torch
from helpers import (
    LEARNED,
    OPTIMIZEES,
    OPTIMIZERS,
    classifiers,
    optimizer,
    quadratics,
    run_steps,
    updates,
)

from l2lgd.data.sources import DataConfig
from l2lgd.errors import ConfigError
from l2lgd.meta.estimators.replay import Replay, replay
from l2lgd.meta.rollout import rollout, start
from l2lgd.meta.schedules import Unroll
from l2lgd.meta.trainer import MetaSettings, Trainer
from l2lgd.seeding import generator
from l2lgd.tasks.classification import ClassificationTask
from l2lgd.tracking.tracker import NullTracker

all_of_them = pytest.mark.parametrize("name", OPTIMIZERS)
BOUNDED = ("rnnprop",)  # updates cannot grow beyond a bound
learned_ones = pytest.mark.parametrize("name", LEARNED)


def gradients(steps: int = 4, num_functions: int = 3, n: int = 6) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(steps, num_functions, n, generator=draw, dtype=torch.float64)


@all_of_them
@pytest.mark.parametrize("optimizee", OPTIMIZEES)
def test_stacked_functions_are_optimized_as_if_alone(name: str, optimizee: str) -> None:
    functions = OPTIMIZEES[optimizee]()
    together = run_steps(optimizer(name), functions, 5)
    for row in range(len(functions.initial_parameters)):
        alone = run_steps(optimizer(name), functions.select(slice(row, row + 1)), 5)
        torch.testing.assert_close(together[:, row : row + 1], alone, rtol=1e-10, atol=1e-13)


@all_of_them
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-6, 1.0, 1e6, 1e18])
def test_updates_have_the_shape_of_the_gradient_and_are_finite(name: str, scale: float) -> None:
    stream = scale * gradients().float()
    proposed = updates(optimizer(name, torch.float32), stream)
    assert proposed.shape == stream.shape
    assert proposed.dtype == stream.dtype
    assert proposed.isfinite().all()


@all_of_them
def test_a_step_leaves_the_gradient_as_it_was(name: str) -> None:
    stream = gradients()
    before = stream.clone()
    updates(optimizer(name), stream)
    assert stream.equal(before)


@all_of_them
def test_a_run_does_not_leak_into_the_next_one(name: str) -> None:
    chosen, functions = optimizer(name), quadratics()
    initial = functions.initial_parameters.clone()
    first, second = run_steps(chosen, functions, 5), run_steps(chosen, functions, 5)
    assert first.equal(second)
    assert functions.initial_parameters.equal(initial)
    assert not first[-1].equal(first[0])


@all_of_them
def test_permuting_coordinates_permutes_updates(name: str) -> None:
    stream, order = gradients(), torch.tensor([3, 0, 5, 1, 4, 2])
    straight, permuted = (
        updates(optimizer(name), stream),
        updates(optimizer(name), stream[..., order]),
    )
    torch.testing.assert_close(straight[..., order], permuted, rtol=1e-10, atol=1e-13)


@all_of_them
@pytest.mark.parametrize("size", [1, 4, 6, 13, 1000])
def test_blocks_hold_every_coordinate_once_and_give_the_same_updates(name: str, size: int) -> None:
    stream = gradients()
    blocks = optimizer(name).blocks(*stream.shape[1:], size)
    times_seen = torch.zeros(stream.shape[1:])
    for block in blocks:
        times_seen[block] += 1
    assert times_seen.equal(torch.ones_like(times_seen))
    together = updates(optimizer(name), stream)
    for rows, columns in blocks:
        apart = updates(optimizer(name), stream[:, rows, columns])
        torch.testing.assert_close(together[:, rows, columns], apart, rtol=1e-10, atol=1e-13)


@learned_ones
def test_every_weight_gets_a_meta_gradient(name: str) -> None:
    learned = optimizer(name)
    draw = torch.Generator().manual_seed(1)
    reached = {key: torch.zeros_like(weight) for key, weight in learned.named_parameters()}
    for _ in range(20):  # a ReLU may hide a weight from a trajectory
        learned.reset_parameters(draw)
        with torch.no_grad():  # a weight that starts at zero may hide another one's meta-gradient
            for weight in learned.parameters():
                weight += 0.1 * torch.randn(weight.shape, generator=draw, dtype=weight.dtype)
        record, _ = rollout(start(learned, classifiers(), horizon=5), 5)
        replay(record, Unroll([5]).objective(5))
        for key, weight in learned.named_parameters():
            assert weight.grad.isfinite().all(), key
            reached[key] += weight.grad.abs()
        if all((found != 0).all() for found in reached.values()):
            break
    for key, found in reached.items():
        assert (found != 0).all(), key


@learned_ones
def test_every_weight_changes_in_one_meta_step(
    name: str, picture_folder: Path, tmp_path: Path
) -> None:
    learned, untrained = optimizer(name, torch.float32), optimizer(name, torch.float32)
    untrained.reset_parameters(generator(0, "phi"))
    settings = MetaSettings(1, 0.01, "constant", None, 4, 5, 1, 2, 1)
    data = DataConfig(source="folder", root=str(picture_folder))
    task = ClassificationTask("tiny", data, [2])
    task.setup("", torch.device("cpu"))
    trainer = Trainer(task, 0, NullTracker())
    trainer.meta_train(learned, Unroll([5]), Replay(), settings, tmp_path, {})
    for (key, after), before in zip(
        learned.state_dict().items(), untrained.state_dict().values(), strict=True
    ):
        assert not after.equal(before), key


@learned_ones
def test_all_updates_of_a_learned_optimizer_can_be_scaled(name: str) -> None:
    chosen = optimizer(name)
    before = updates(chosen, gradients())
    if name in BOUNDED:
        with pytest.raises(ConfigError, match="no weights that all its updates scale with"):
            chosen.scale_updates(1.5)
        return
    chosen.scale_updates(1.5)
    torch.testing.assert_close(updates(chosen, gradients()), 1.5 * before)


@learned_ones
def test_the_seed_decides_the_initial_weights(name: str) -> None:
    first, same, other = optimizer(name), optimizer(name), optimizer(name)
    draws = False
    for learned, seed in ((first, 1), (same, 1), (other, 2)):
        generator = torch.Generator().manual_seed(seed)
        before = generator.get_state()
        learned.reset_parameters(generator)
        draws = not generator.get_state().equal(before)
    torch.testing.assert_close(first.state_dict(), same.state_dict(), rtol=0, atol=0)
    assert draws == any(
        not mine.equal(theirs)
        for mine, theirs in zip(first.parameters(), other.parameters(), strict=True)
    )
