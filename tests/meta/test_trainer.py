"""The trainer: meta-training learns, and the same seed gives the same bits."""

import itertools
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import optimizer

from l2lgd.errors import CheckpointError, ConfigError, Diverged, UserError
from l2lgd.meta.estimators.base import Estimator
from l2lgd.meta.estimators.replay import Replay
from l2lgd.meta.rollout import rollout, start
from l2lgd.meta.schedules import Unroll
from l2lgd.meta.state import can_go_on, load_weights, read_last
from l2lgd.meta.trainer import MetaSettings, Trainer
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
from l2lgd.optimizers.hand_designed import HandDesigned
from l2lgd.seeding import generator
from l2lgd.storage import checkpoint
from l2lgd.tasks.quadratic import QuadraticTask

SETTINGS = {
    "meta_steps": 30,
    "meta_learning_rate": 0.01,
    "meta_decay": "constant",
    "meta_clip": 1.0,
    "meta_average": 0.0,
    "num_functions": 8,
    "num_steps": 10,
    "validate_every": 10,
    "validation_functions": 5,
    "checkpoint_every": 10,
}


class Notebook:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def log(self, step: int, values: Any) -> None:
        self.lines.append((step, dict(values)))

    def steps(self, done: int, total: int) -> None:
        pass

    def flush(self) -> None:
        pass

    def progress(self, done: int, total: int, inner: int, inner_total: int, note: str = "") -> None:
        pass

    def values(self, name: str) -> list[float]:
        return [values[name] for _, values in self.lines if name in values]


def small_lstm() -> CoordinatewiseLSTM:
    return CoordinatewiseLSTM(hidden_size=5)


def meta_trained(
    folder: Path,
    learned: Any = None,
    unroll: Unroll | None = None,
    seed: int = 0,
    estimator: Estimator | None = None,
    **changes: Any,
) -> tuple[Any, Any, Notebook]:
    learned, notebook = learned or small_lstm(), Notebook()
    trainer = Trainer(QuadraticTask(), seed, notebook)
    settings = MetaSettings(**{**SETTINGS, **changes})
    unroll, estimator = unroll or Unroll([5]), estimator or Replay()
    progress = trainer.meta_train(learned, unroll, estimator, settings, folder, {"x": 1})
    return learned, progress, notebook


def test_a_few_hundred_meta_steps_improve_the_validation_loss_threefold(tmp_path: Path) -> None:
    learned, progress, notebook = meta_trained(
        tmp_path,
        optimizer("lstm", torch.float32),
        Unroll([20]),
        meta_steps=300,
        meta_learning_rate=0.003,
        num_functions=16,
        num_steps=100,
        validate_every=100,
        validation_functions=20,
    )
    untrained = optimizer("lstm", torch.float32)
    untrained.reset_parameters(generator(0, "phi"))
    trainer = Trainer(QuadraticTask(), 0, notebook)
    before, after = (
        trainer.evaluate(m, "validation", 20, 100).final_loss() for m in (untrained, learned)
    )
    assert after < before / 3
    assert after == progress.best_validation_loss


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    runs = [meta_trained(tmp_path / name, seed=int(name[0])) for name in ("1a", "1b", "2")]
    first, same, other = (run[0].state_dict() for run in runs)
    assert all(first[name].equal(same[name]) for name in first)
    assert not any(first[name].equal(other[name]) for name in ("weights.0", "output_weight"))
    assert runs[0][2].lines == runs[1][2].lines


def test_what_is_selected_is_what_is_saved_and_what_evaluation_measures(tmp_path: Path) -> None:
    learned, progress, notebook = meta_trained(tmp_path, meta_learning_rate=0.1)
    stored = small_lstm()
    found = load_weights(tmp_path / "best.safetensors", stored)
    losses = notebook.values("validation_loss")
    assert found["validation_loss"] == min(losses) == progress.best_validation_loss
    assert found["x"] == 1
    # The weights left in the optimizer are the best ones, though the last ones may be worse.
    assert all(
        mine.equal(theirs)
        for mine, theirs in zip(learned.parameters(), stored.parameters(), strict=True)
    )
    trainer = Trainer(QuadraticTask(), 0, Notebook())
    measured = trainer.evaluate(stored, "validation", 5, 10).final_loss()
    assert measured == found["validation_loss"]


def test_the_running_mean_of_the_weights_is_what_is_kept(tmp_path: Path) -> None:
    visited = []

    class Recording(Notebook):
        def log(self, step: int, values: Any) -> None:
            if "mean_loss" in values:
                visited.append(learned.output_weight.detach().clone())

    learned, settings = small_lstm(), {**SETTINGS, "meta_steps": 5, "meta_average": 0.6}
    trainer = Trainer(QuadraticTask(), 0, Recording())
    trainer.meta_train(learned, Unroll([5]), Replay(), MetaSettings(**settings), tmp_path, {})
    mean = visited[0]
    for weight in visited[1:]:
        mean = 0.6 * mean + 0.4 * weight
    torch.testing.assert_close(learned.output_weight.detach(), mean)


def test_validation_and_checkpoints_come_as_often_as_asked(tmp_path: Path) -> None:
    _, progress, notebook = meta_trained(tmp_path, meta_steps=25, validate_every=10)
    assert [step for step, values in notebook.lines if "validation_loss" in values] == [10, 20, 25]
    assert [step for step, values in notebook.lines if "meta_loss" in values] == [*range(1, 26)]
    _, metadata = checkpoint.load(tmp_path / "last.safetensors")
    assert metadata["progress"]["meta_step"] == progress.meta_step == 25


class Stop(Exception):
    """Ends a meta-training from outside."""


class Interrupting(Notebook):
    """Stops the meta-training at meta-step 17."""

    def log(self, step: int, values: Any) -> None:
        if step == 17:
            raise Stop
        super().log(step, values)


def test_going_on_from_a_checkpoint_gives_the_numbers_of_one_run(tmp_path: Path) -> None:
    # The last checkpoint before the stop, at 14, is in the middle of a trajectory.
    unroll = Unroll([4], restart_above=1.001)
    changes = {"checkpoint_every": 7, "num_steps": 20, "meta_average": 0.9}
    once = meta_trained(tmp_path / "once", unroll=unroll, **changes)[2]
    settings = MetaSettings(**{**SETTINGS, **changes})

    def go(notebook: Notebook, resume: bool) -> None:
        trainer = Trainer(QuadraticTask(), 0, notebook)
        trainer.meta_train(small_lstm(), unroll, Replay(), settings, tmp_path / "twice", {}, resume)

    with pytest.raises(Stop):
        go(Interrupting(), resume=False)
    second = Notebook()
    go(second, resume=True)
    assert second.lines == [line for line in once.lines if line[0] > 14]
    for name in ("last", "best"):
        resumed, uninterrupted = (
            checkpoint.load(tmp_path / run / f"{name}.safetensors")[0] for run in ("twice", "once")
        )
        assert resumed.keys() == uninterrupted.keys()
        assert all(resumed[key].equal(uninterrupted[key]) for key in resumed)


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"checkpoint_every": 7}
    expected = meta_trained(tmp_path / "once", **changes)[2]
    settings = MetaSettings(**{**SETTINGS, **changes})

    def go(notebook: Notebook, resume: bool) -> None:
        trainer = Trainer(QuadraticTask(), 0, notebook)
        trainer.meta_train(
            small_lstm(), Unroll([5]), Replay(), settings, tmp_path / "twice", {}, resume
        )

    with pytest.raises(Stop):
        go(Interrupting(), resume=False)
    last = tmp_path / "twice" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-5])  # that of meta-step 14
    second = Notebook()
    with caplog.at_level(logging.WARNING):
        go(second, resume=True)
    assert "going on from previous.safetensors, the one before it" in caplog.text
    assert second.lines == [line for line in expected.lines if line[0] > 7]


PROGRESS = {"meta_step": 1, "ratios": [0.5]}
WHOLE = {"progress": PROGRESS, "step": 3, "marks": {}}
DAMAGED = [
    {"progress": [1]},
    {"progress": {}},
    {"progress": {**PROGRESS, "unknown": 1}},
    {"progress": {**PROGRESS, "meta_step": "1"}},
    {"progress": {**PROGRESS, "ratios": 0.5}},
    {"step": None},
    {"marks": [1]},
]


@pytest.mark.parametrize("changes", DAMAGED)
def test_a_checkpoint_that_says_what_none_does_is_damaged_whatever_its_hash(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    last = tmp_path / "last.safetensors"
    checkpoint.save(last, {}, WHOLE | changes)
    with pytest.raises(CheckpointError, match="its progress cannot be read, and there is no"):
        read_last(last)
    checkpoint.save(checkpoint.previous(last), {}, WHOLE)
    assert read_last(last)[1:] == (WHOLE, False)


@pytest.mark.parametrize("gone", [False, True], ids=["damaged", "deleted"])
def test_the_one_before_stays_until_there_is_another(
    gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = MetaSettings(**{**SETTINGS, "checkpoint_every": 7})

    def go(notebook: Notebook, resume: bool) -> None:
        trainer = Trainer(QuadraticTask(), 0, notebook)
        trainer.meta_train(small_lstm(), Unroll([5]), Replay(), settings, tmp_path, {}, resume)

    with pytest.raises(Stop):
        go(Interrupting(), resume=False)
    last, before = tmp_path / "last.safetensors", tmp_path / "previous.safetensors"
    good = before.read_bytes()
    if gone:
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[:-5])
    assert can_go_on(last)

    def full(path: Path, *others: Any) -> None:
        raise UserError(f"the disk is full: could not write {path}")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        with pytest.raises(UserError, match="disk is full"):
            go(Notebook(), resume=True)
    assert before.read_bytes() == good
    go(Notebook(), resume=True)
    assert checkpoint.load(last)[1]["progress"]["meta_step"] == 30
    assert checkpoint.load(before)[1]["progress"]["meta_step"] == 28


@pytest.mark.parametrize("finished", [False, True])
def test_best_weights_that_are_damaged_are_written_anew(
    finished: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = MetaSettings(**{**SETTINGS, "checkpoint_every": 7})

    def go(notebook: Notebook, resume: bool) -> Any:
        learned = small_lstm()
        trainer = Trainer(QuadraticTask(), 0, notebook)
        trainer.meta_train(learned, Unroll([5]), Replay(), settings, tmp_path, {}, resume)
        return learned

    if finished:
        go(Notebook(), resume=False)
    else:
        with pytest.raises(Stop):
            go(Interrupting(), resume=False)
    best = tmp_path / "best.safetensors"
    best.write_bytes(best.read_bytes()[:-5])
    with caplog.at_level(logging.WARNING):
        learned = go(Notebook(), resume=True)
    assert "missing or damaged" in caplog.text
    again = small_lstm()
    told = load_weights(best, again)
    assert again.output_weight.equal(learned.output_weight)
    trainer = Trainer(QuadraticTask(), 0, Notebook())  # what it goes on from may say otherwise
    progress = trainer.meta_train(small_lstm(), Unroll([5]), Replay(), settings, tmp_path, {}, True)
    assert progress.best_validation_loss == told["validation_loss"]
    assert progress.best_meta_step == told["meta_step"]


def test_a_run_goes_on_where_there_is_no_compiler_or_another_device(tmp_path: Path) -> None:
    # There the coordinates, 5,000 of them here, may be cut into other blocks.
    settings = MetaSettings(**{**SETTINGS, "num_functions": 100, "checkpoint_every": 3})

    def go(notebook: Notebook, backend: str, folder: Path, resume: bool) -> None:
        learned = CoordinatewiseLSTM(hidden_size=2, backend=backend, output_scale=0.01)
        trainer = Trainer(QuadraticTask(dimension=50), 0, notebook)
        trainer.meta_train(learned, Unroll([4]), Replay(), settings, folder, {}, resume)

    once, second = Notebook(), Notebook()
    go(once, "torch", tmp_path / "once", resume=False)
    with pytest.raises(Stop):
        go(Interrupting(), "torch", tmp_path / "twice", resume=False)
    go(second, "auto", tmp_path / "twice", resume=True)
    expected = [values["mean_loss"] for step, values in once.lines if "mean_loss" in values][-15:]
    assert second.values("mean_loss") == pytest.approx(expected, rel=1e-3)


def test_a_trajectory_is_cut_into_unrolls_of_the_scheduled_length(tmp_path: Path) -> None:
    _, _, notebook = meta_trained(tmp_path, unroll=Unroll([4, 20]), meta_steps=12)
    # T = 10: first 4, 4 and the rest; in the second half of the training the whole trajectory.
    assert notebook.values("unroll_length") == [4, 4, 2, 4, 4, 2, 10, 10, 10, 10, 10, 10]
    assert notebook.values("trajectory") == [0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6, 7]


def test_a_trajectory_that_strays_is_left(tmp_path: Path) -> None:
    learned, unroll = CoordinatewiseLSTM(hidden_size=5, output_scale=1.0), Unroll([2])
    without = meta_trained(tmp_path / "without", learned, unroll)[2]
    assert without.values("trajectory") == [i // 5 for i in range(30)]
    learned, unroll = (
        CoordinatewiseLSTM(hidden_size=5, output_scale=1.0),
        Unroll([2], restart_above=1.2),
    )
    notebook = meta_trained(tmp_path / "with", learned, unroll)[2]
    steps = [values for _, values in notebook.lines if "mean_loss" in values]
    lowest, count, early = math.inf, 0, 0
    for step, following in itertools.pairwise(steps):
        lowest, count = min(lowest, step["mean_loss"]), count + 1
        strayed = step["mean_loss"] > 1.2 * lowest
        assert (following["trajectory"] > step["trajectory"]) == (strayed or count == 5)
        if strayed or count == 5:
            early += count < 5
            lowest, count = math.inf, 0
    assert early > 2


def test_the_meta_gradient_is_clipped_and_the_rate_decays(tmp_path: Path) -> None:
    _, _, notebook = meta_trained(tmp_path, meta_decay="cosine", meta_steps=20)
    rates = notebook.values("meta_learning_rate")
    assert rates[0] == 0.01
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.001
    free, clipped = (
        meta_trained(tmp_path / str(clip), meta_clip=clip, meta_steps=1)[0].state_dict()
        for clip in (None, 1e-12)
    )
    start_weights = small_lstm()
    start_weights.reset_parameters(generator(0, "phi"))
    moved = [(m["output_bias"] - start_weights.output_bias).abs().item() for m in (free, clipped)]
    # Adam's first step has the size of the rate whatever the gradient, until ε outweighs it.
    assert moved[0] == pytest.approx(0.01, rel=1e-3)
    assert moved[1] < 0.001


def test_second_derivatives_change_the_training(tmp_path: Path) -> None:
    plain, whole = (
        meta_trained(tmp_path / str(keep), estimator=Replay(second_derivatives=keep))
        for keep in (False, True)
    )
    assert plain[2].lines[0][1]["mean_loss"] == pytest.approx(whole[2].lines[0][1]["mean_loss"])
    assert plain[2].values("meta_gradient_norm")[0] != pytest.approx(
        whole[2].values("meta_gradient_norm")[0], rel=1e-3
    )
    assert math.isfinite(whole[1].best_validation_loss)
    smooth = meta_trained(tmp_path / "smooth", estimator=Replay(True, smoothing=1.0))
    norms = (run[2].values("meta_gradient_norm")[0] for run in (smooth, whole))
    assert next(norms) != pytest.approx(next(norms), rel=1e-3)


def test_second_derivatives_may_begin_late(tmp_path: Path) -> None:
    plain, late = (
        meta_trained(tmp_path / str(second), estimator=Replay(second, begin))[2].values(
            "meta_gradient_norm"
        )
        for second, begin in ((False, 0.0), (True, 0.5))
    )
    half = len(plain) // 2
    assert late[:half] == plain[:half]
    assert late[half] != pytest.approx(plain[half], rel=1e-3)


def test_evaluation_is_the_plain_loop_on_functions_of_the_split() -> None:
    trainer, chosen = Trainer(QuadraticTask(), 3, Notebook()), HandDesigned("SGD", 0.02)
    curves = trainer.evaluate(chosen, "test", 4, 7)
    functions = QuadraticTask().sample("test", 4, generator(3, "evaluate", "test"))
    record, _ = rollout(start(chosen, functions), 7)
    assert curves.losses.shape == (8, 4)
    assert curves.losses[0].equal(functions.loss(functions.initial_parameters, 0))
    assert curves.losses[1:].equal(record.losses)
    again, other = (trainer.evaluate(chosen, split, 4, 7) for split in ("test", "validation"))
    assert curves.losses.equal(again.losses)
    assert not curves.losses[0].equal(other.losses[0])


def test_diverging_again_and_again_is_an_error_with_advice(tmp_path: Path) -> None:
    learned = CoordinatewiseLSTM(hidden_size=2, output_scale=1e30)
    with pytest.raises(UserError, match="smaller meta_learning_rate"):
        meta_trained(tmp_path, learned, meta_steps=100)


def test_a_flat_meta_loss_is_a_warning_with_advice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learned = CoordinatewiseLSTM(hidden_size=2, output_scale=1e-9)
    with caplog.at_level(logging.WARNING):
        meta_trained(tmp_path, learned, Unroll([2]), num_steps=2, meta_steps=45)
    assert "the meta-loss is flat" in caplog.text


def test_how_often_it_diverged_is_not_forgotten_when_it_goes_on(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    class Ending(Notebook):
        def progress(self, done: int, *others: Any) -> None:
            if done == self.last:
                raise Killed

    Ending.last = 13
    learned = CoordinatewiseLSTM(hidden_size=5, output_scale=1e30)
    settings = MetaSettings(**{**SETTINGS, "meta_steps": 40})
    found = []
    for resume in (False, True):
        trainer = Trainer(QuadraticTask(), 0, Ending())
        with pytest.raises((Killed, Diverged)) as caught:
            trainer.meta_train(
                learned, Unroll([5]), Replay(), settings, tmp_path, {}, resume=resume
            )
        found.append(str(caught.value))
        Ending.last = -1
    assert found[0] == ""
    assert "20 trajectories in a row diverged by meta-step 20" in found[1]


def test_what_gives_up_names_the_best_weights_so_far(tmp_path: Path) -> None:
    class Spoiling(Notebook):
        def log(self, step: int, values: Any) -> None:
            if step == 20 and "validation_loss" in values:
                torch.nn.init.constant_(learned.output_weight, 1e30)

    learned, settings = small_lstm(), MetaSettings(**{**SETTINGS, "meta_steps": 90})
    trainer = Trainer(QuadraticTask(), 0, Spoiling())
    with pytest.raises(Diverged, match="smaller meta_learning_rate") as caught:
        trainer.meta_train(learned, Unroll([5]), Replay(), settings, tmp_path, {})
    best = tmp_path / "best.safetensors"
    metadata = load_weights(best, small_lstm())
    assert f"{best}, the best weights so far, of meta-step {metadata['meta_step']}" in str(
        caught.value
    )


@pytest.mark.parametrize(
    "change",
    [
        {"meta_steps": 0},
        {"meta_learning_rate": -0.1},
        {"meta_learning_rate": math.nan},
        {"meta_clip": 0.0},
        {"meta_average": 1.0},
        {"meta_average": -0.1},
        {"validate_every": 0},
        {"meta_decay": "linear"},
    ],
)
def test_settings_out_of_range_are_refused(change: dict) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(change))}="):
        MetaSettings(**{**SETTINGS, **change})
