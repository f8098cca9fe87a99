"""W&B and TensorBoard beside the files of a run; and a run that outlives them."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
from helpers import json_lines, l2lgd
from PIL import Image

from l2lgd.errors import ConfigError
from l2lgd.tracking.loggers import About, Logger, Wandb, wandb_name
from l2lgd.tracking.tracker import RunTracker

TINY = ("task=quadratic", "meta_steps=2", "num_functions=2", "num_steps=10", "threads=1")
TINY += ("unroll.lengths=[5]", "validate_every=2", "validation_functions=2")


class Broken(Logger):
    """Fails at the second thing it is told."""

    id = "known"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        raise RuntimeError("no\nnetwork")


def test_a_logger_that_fails_is_left_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        tracker = RunTracker(About(tmp_path, "", {}), ("a", "b"), Broken())
        assert tracker.logger_id == "known"
        for step in range(3):
            tracker.log(step, {"loss": 1.0})
        tracker.picture("picture", tmp_path / "none.png")
        tracker.close()
    assert [line["step"] for line in json_lines(tmp_path / "metrics.jsonl")] == [0, 1, 2]
    (record,) = caplog.records
    assert record.getMessage() == "Broken is off for the rest of this run: no network"


def test_wandb_that_cannot_be_reached_costs_no_run(tmp_path: Path) -> None:
    ran = l2lgd(
        *("meta-train", *TINY, "hydra.run.dir=run"),
        cwd=tmp_path,
        WANDB_MODE="Online",
        WANDB_API_KEY="0" * 40,
        WANDB_BASE_URL="http://127.0.0.1:9",
        WANDB_INIT_TIMEOUT="2",
        HOME=str(tmp_path),
    )
    assert ran.returncode == 0, ran.stderr
    assert "Wandb is off for the rest of this run" in ran.stderr
    assert "Input should be" not in ran.stderr, "W&B takes a mode in one spelling only"
    assert (tmp_path / "run" / "summary.json").is_file()


def test_a_mode_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match="mode=of: choose one of offline, online"):
        Wandb(mode="of")


@pytest.mark.parametrize(
    ("given", "mode"),
    [("dryrun", "offline"), ("run", "online"), ("Offline", "offline"), ("DISABLED", "disabled")],
)
def test_modes_are_those_of_wandb(given: str, mode: str) -> None:
    assert Wandb(mode=given).mode == mode


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("quadratic-lstm", "quadratic-lstm"),
        ("my task/v2-lstm", "my-task-v2-lstm"),
        ("Bäume [tief]-lstm_odd", "Baume-tief-lstm_odd"),
        ("任务", "weights"),
        ("x" * 200, "x" * 128),
    ],
)
def test_names_of_weights_are_valid_in_wandb(name: str, valid: str, tmp_path: Path) -> None:
    from wandb import Artifact

    assert wandb_name(name) == valid
    assert Artifact(valid, type="optimizer").name == valid


OWN_TASK = """
_target_: l2lgd.tasks.quadratic.QuadraticTask
name: Bäume
"""


def test_wandb_s_own_variables_count(tmp_path: Path) -> None:
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "B äume.yaml").write_text(OWN_TASK, encoding="utf-8")
    words = ("meta-train", *TINY[1:], "--config-dir", "mine", "task='B äume'", "hydra.run.dir=run")
    ran = l2lgd(
        *words,
        cwd=tmp_path,
        HOME=str(tmp_path),
        WANDB_MODE="Dryrun",
        WANDB_PROJECT="their/project: ü",
        WANDB_RUN_ID="their:run/1",
        WANDB_NAME="their-name",
        WANDB_RUN_GROUP="their-group",
        WANDB_DIR="elsewhere",
        WANDB_ENTITY="",
    )
    assert ran.returncode == 0, ran.stderr
    assert "is off" not in ran.stderr
    record = _records(tmp_path / "elsewhere")
    for word in (
        "their-project- ü".encode(),
        b"their-run-1",
        b"their-name",
        b"their-group",
        b"B-aume-lstm",
    ):
        assert word in record
    assert "to upload it: wandb sync elsewhere/wandb/offline-run-" in ran.stderr


def test_wandb_gets_config_curves_picture_weights_and_the_group_of_a_sweep(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "WANDB_MODE": "offline"}
    ran = l2lgd(
        *("meta-train", "--multirun", *TINY, "seed=0,1", "hydra.sweep.dir=sweep"),
        cwd=tmp_path,
        **home,
    )
    assert ran.returncode == 0, ran.stderr
    assert "to upload it: wandb sync sweep/0/wandb/offline-run-" in ran.stderr
    records = [_records(tmp_path / "sweep" / str(job)) for job in (0, 1)]
    for record in records:
        assert b"sweep" in record, "the group"
        assert b"best_validation_loss" in record or b"validation_loss" in record
        assert b"meta_learning_rate" in record
        assert b"quadratic-lstm" in record, "the artifact"
    weights = "checkpoint=sweep/0/checkpoints/best.safetensors"
    options = ("task=quadratic", "baselines=[]", "num_functions=2", "num_steps=5")
    ran = l2lgd("evaluate", *options, weights, "hydra.run.dir=evaluation", cwd=tmp_path, **home)
    assert ran.returncode == 0, ran.stderr
    assert list((tmp_path / "evaluation" / "wandb").rglob("curves_*.png"))


def test_a_run_goes_on_under_the_same_id(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "WANDB_MODE": "offline"}
    first = l2lgd("meta-train", *TINY, "hydra.run.dir=run", cwd=tmp_path, **home)
    assert first.returncode == 0, first.stderr
    again = l2lgd("meta-train", "resume=run", cwd=tmp_path, **home)
    assert again.returncode == 0, again.stderr
    names = [path.name for path in (tmp_path / "run" / "wandb").glob("offline-run-*")]
    assert len({name.rpartition("-")[2] for name in names}) == 1


def test_tensorboard_has_curves_config_and_picture(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ran = l2lgd("meta-train", *TINY, "logger=tensorboard", "hydra.run.dir=run", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "tensorboard --logdir run/tensorboard" in ran.stderr
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    logged = {
        line["step"]: line["mean_loss"]
        for line in json_lines(tmp_path / "run" / "metrics.jsonl")
        if "mean_loss" in line
    }
    for event in events.Scalars("mean_loss"):
        assert event.value == pytest.approx(logged[event.step], rel=1e-5)
    assert len(events.Scalars("mean_loss")) == len(logged)
    weights = "checkpoint=run/checkpoints/best.safetensors"
    ran = l2lgd(
        *("evaluate", "task=quadratic", "baselines=[]", "num_functions=2", "num_steps=5", weights),
        *("logger=tensorboard", "hydra.run.dir=evaluation"),
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    events = EventAccumulator(str(tmp_path / "evaluation" / "tensorboard"))
    events.Reload()
    (image,) = events.Images("curves")
    with Image.open(tmp_path / "evaluation" / "curves.png") as picture:
        assert (image.width, image.height) == picture.size


@pytest.mark.parametrize(
    ("logger", "said"),
    [
        ("tensorboard", "tensorboard --logdir run/tensorboard"),
        ("wandb", "wandb sync run/wandb/offline-run-"),
    ],
)
def test_what_is_said_in_the_end_is_for_where_the_command_was_typed(
    logger: str, said: str, tmp_path: Path
) -> None:
    pytest.importorskip(logger)
    words = (*TINY, f"logger={logger}", "hydra.job.chdir=true", "hydra.run.dir=run")
    ran = l2lgd("meta-train", *words, cwd=tmp_path, WANDB_MODE="offline")
    assert ran.returncode == 0, ran.stderr
    assert said in ran.stderr


def test_no_logger_leaves_nothing_but_files(tmp_path: Path) -> None:
    ran = l2lgd("meta-train", *TINY, "logger=none", "hydra.run.dir=run", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert not (tmp_path / "run" / "wandb").exists()
    assert json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))["meta_steps"] == 2


def _records(folder: Path) -> bytes:
    (path,) = folder.rglob("*.wandb")
    return path.read_bytes()
