"""Sweeps: what is left of a failing job, the ranking, running again, launchers."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import PATIENCE, begun, begun_sweep, environment, l2lgd, wait_until
from hydra.errors import MissingConfigException

from l2lgd.config.messages import explanation
from l2lgd.errors import ConfigError
from l2lgd.pretrained.weights import SHIPPED
from l2lgd.runs.sweeps import Sweep
from l2lgd.storage import checkpoint

TINY = ("task=quadratic", "logger=none", "meta_steps=2", "num_functions=2", "num_steps=10")
TINY += ("unroll.lengths=[5]", "validate_every=2", "validation_functions=2", "threads=1")


JOBS, BAD = 4, 2  # of the sweep of which one fails


def sweep(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = ("--multirun", *TINY, "hydra.sweep.dir=sweep", *options)
    return l2lgd("meta-train", *arguments, cwd=folder)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep" / "sweep.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def weights_of(folder: Path, job: int) -> bytes:
    path = folder / "sweep" / str(job) / "checkpoints" / "best.safetensors"
    return b"".join(t.numpy().tobytes() for _, t in sorted(checkpoint.load(path)[0].items()))


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of four jobs, the weights of one of which are damaged."""
    folder = tmp_path_factory.mktemp("failing")
    shipped = SHIPPED / "quadratic-lstm.safetensors"
    names = ",".join(f"{k}.safetensors" for k in range(JOBS))
    for k in range(JOBS):
        shutil.copy(shipped, folder / f"{k}.safetensors")
    damaged = folder / f"{BAD}.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    ran = sweep(folder, f"initial_weights={names}")
    (folder / "said").write_text(f"{ran.returncode}\n{ran.stdout}{ran.stderr}", encoding="utf-8")
    return folder


def test_one_of_four_jobs_fails_and_the_others_finish(failing: Path) -> None:
    rows = table(failing)
    assert sorted(int(row["job"]) for row in rows) == list(range(JOBS))
    status = {int(row["job"]): row["status"] for row in rows}
    assert status == {k: "failed" if k == BAD else "completed" for k in range(JOBS)}
    for row in rows[:-1]:
        summary = json.loads((failing / row["folder"] / "summary.json").read_text("utf-8"))
        assert float(row["best_validation_loss"]) == summary["best_validation_loss"]
        assert row["initial_weights"] == f"{row['job']}.safetensors"
    values = [float(row["best_validation_loss"]) for row in rows[:-1]]
    assert values == sorted(values)
    assert [row["rank"] for row in rows] == [*map(str, range(1, JOBS)), ""]
    assert f"{BAD}.safetensors is not a readable checkpoint" in rows[-1]["error"]
    assert (failing / "sweep" / "sweep.png").is_file()


def test_the_terminal_says_which_failed_why_and_what_to_do(failing: Path) -> None:
    said = (failing / "said").read_text("utf-8").splitlines()
    assert said[0] == "2"
    assert said[-1] == (
        f"l2lgd: 1 of {JOBS} jobs did not succeed; to run them again: l2lgd meta-train rerun=sweep"
    )
    assert said[-2].startswith(f"job {BAD} (")
    assert f"{BAD}.safetensors is not a readable checkpoint" in said[-2]
    assert not any("Traceback" in line for line in said)


@pytest.fixture
def mended(failing: Path, tmp_path: Path) -> Iterator[Path]:
    """The same folder with whole weights; it is as it was for whoever needs it next."""
    shutil.copytree(failing, tmp_path / "kept")
    shutil.copy(failing / "0.safetensors", failing / f"{BAD}.safetensors")
    yield failing
    shutil.rmtree(failing)
    shutil.copytree(tmp_path / "kept", failing)


def test_only_what_failed_is_run_again(mended: Path) -> None:
    failing = mended
    before = {k: (failing / "sweep" / str(k) / "job.json").stat().st_mtime_ns for k in range(JOBS)}
    ran = l2lgd("meta-train", "rerun=sweep", cwd=failing)
    assert ran.returncode == 0, ran.stderr
    after = {k: (failing / "sweep" / str(k) / "job.json").stat().st_mtime_ns for k in range(JOBS)}
    assert [k for k in range(JOBS) if before[k] != after[k]] == [BAD]
    assert {row["status"] for row in table(failing)} == {"completed"}
    assert weights_of(failing, BAD) == weights_of(failing, 0)
    ran = l2lgd("meta-train", "resume=sweep", cwd=failing)
    assert "that is a sweep; to go on with it: l2lgd meta-train rerun=sweep" in ran.stderr
    again = l2lgd("meta-train", "rerun=sweep", cwd=failing)
    assert again.returncode == 0
    assert "Launching" not in again.stdout + again.stderr


def test_a_sweep_is_not_overwritten(failing: Path) -> None:
    ran = sweep(failing, "seed=0,1")
    assert ran.returncode == 2
    assert "sweep already holds a sweep; run what it has left undone with rerun=" in ran.stderr


def test_options_can_be_changed_for_what_failed(tmp_path: Path) -> None:
    ran = sweep(tmp_path, "meta_learning_rate=0.01,-1")
    assert ran.returncode == 2
    ran = l2lgd("meta-train", "rerun=sweep", "meta_learning_rate=0.02", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    rows = {row["job"]: row for row in table(tmp_path)}
    assert rows["1"]["meta_learning_rate"] == "0.02"
    assert rows["1"]["status"] == "completed"
    assert (tmp_path / "sweep" / "1.before_1" / "job.json").is_file()


@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=cores",)])
def test_words_of_a_plan_do_nothing_to_the_terminal(
    launcher: tuple[str, ...], tmp_path: Path
) -> None:
    evil = 'task.name="a\x1b]0;gone\x07\x1b[31mb"'
    folder = tmp_path / "sweep"
    (folder / "0").mkdir(parents=True)
    plan = {"verb": "meta-train", "hydra": [*launcher], "jobs": [[*TINY, evil]]}
    (folder / "sweep.json").write_text(json.dumps(plan), encoding="utf-8")
    job = {"job": 0, "overrides": [*TINY, evil], "status": "failed", "error": "x", "seconds": 1}
    (folder / "0" / "job.json").write_text(json.dumps(job), encoding="utf-8")
    ran = l2lgd("meta-train", "rerun=sweep", cwd=tmp_path)
    assert "]0;gone" in ran.stdout + ran.stderr
    assert not {"\x1b", "\x07"} & set(ran.stdout + ran.stderr)


def test_a_killed_sweep_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    longer = ("meta_steps=120", "validate_every=30", "checkpoint_every=5", "seed=0,1")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert sweep(whole, *longer).returncode == 0
    with begun_sweep(*TINY, *longer, cwd=killed) as process:
        process.send_signal(signal.SIGKILL)
    assert not (killed / "sweep" / "1" / "job.json").is_file()
    ran = l2lgd("meta-train", "rerun=sweep", cwd=killed)
    assert ran.returncode == 0, ran.stderr
    for job in (0, 1):
        assert weights_of(killed, job) == weights_of(whole, job)
        lines = [
            [json.loads(line)["step"] for line in path.read_text("utf-8").splitlines()]
            for path in (f / "sweep" / str(job) / "metrics.jsonl" for f in (whole, killed))
        ]
        assert lines[0] == lines[1]


@pytest.mark.parametrize("launcher", ["cores", "slurm_local"])
def test_launchers_run_jobs_of_their_own(launcher: str, failing: Path, tmp_path: Path) -> None:
    own = f"initial_weights={failing / '0.safetensors'}"
    ran = sweep(tmp_path, f"hydra/launcher={launcher}", own, "meta_learning_rate=0.01,-1")
    assert ran.returncode == 2, ran.stderr
    status = {int(row["job"]): row["status"] for row in table(tmp_path)}
    assert status == {0: "completed", 1: "failed"}
    composed = (tmp_path / "sweep" / "0" / ".hydra" / "config.yaml").read_text("utf-8")
    assert "loss_weights: linear" in composed  # which the task recommends
    assert "1 of 2 jobs did not succeed" in ran.stderr
    ran = l2lgd("meta-train", "rerun=sweep", "meta_learning_rate=0.01", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert weights_of(tmp_path, 1) == weights_of(tmp_path, 0)


def test_a_rerun_with_changes_that_is_killed_goes_on_with_the_changes(tmp_path: Path) -> None:
    long = ("meta_steps=1000000", "checkpoint_every=1", "validate_every=1000000")
    change = "meta_learning_rate=0.002"
    last = tmp_path / "sweep" / "0" / "checkpoints" / "last.safetensors"
    options = (*TINY, *long, "seed=0,1")
    _killed_at(tmp_path, last, "--multirun", *options, "hydra.sweep.dir=sweep")
    last.unlink()
    _killed_at(tmp_path, last, "rerun=sweep", change)
    (first, second) = Sweep.read(tmp_path / "sweep").jobs
    assert first.options["meta_learning_rate"] == "0.002"
    assert second.options["meta_learning_rate"] == "0.002"
    before = last.stat().st_mtime_ns
    _killed_at(tmp_path, last, "rerun=sweep", after=before)
    path = tmp_path / "sweep" / "0" / "metrics.jsonl"
    lines = [line for line in path.read_text("utf-8").splitlines() if line.endswith("}")]
    assert max(json.loads(line).get("meta_learning_rate", 0.0) for line in lines) <= 0.002


def _killed_at(folder: Path, file: Path, *words: str, after: int = 0) -> None:
    """Run a command, SIGKILL it when a file has been written ``after`` that time."""
    with begun("-m", "l2lgd", "meta-train", *words, cwd=folder) as process:
        wait_until(lambda: file.is_file() and file.stat().st_mtime_ns > after, file.name, process)
        process.kill()


def test_folders_of_jobs_can_have_other_names(tmp_path: Path) -> None:
    subdir = "hydra.sweep.subdir=${hydra.job.override_dirname}"
    ran = sweep(tmp_path, subdir, "meta_learning_rate=0.01,-1")
    assert ran.returncode == 2, ran.stderr
    assert "1 of 2 jobs did not succeed" in ran.stderr
    ran = l2lgd("meta-train", "rerun=sweep", "meta_learning_rate=0.02", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert {row["status"] for row in table(tmp_path)} == {"completed"}


def test_ctrl_c_in_the_first_job_says_how_to_go_on_with_the_sweep(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "l2lgd", "meta-train", "--multirun", *TINY, "seed=0,1"]
    command += ["meta_steps=1000000", "checkpoint_every=1", "hydra.sweep.dir=sweep"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        last = tmp_path / "sweep" / "0" / "checkpoints" / "last.safetensors"
        wait_until(last.is_file, "checkpoint", process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert said.splitlines()[-1].endswith("to run them again: l2lgd meta-train rerun=sweep")


def test_a_package_of_ones_own_is_found_when_jobs_are_run_again(tmp_path: Path) -> None:
    assert l2lgd("new", "task", "own", cwd=tmp_path).returncode == 0
    own = ("--config-dir", "mine/conf", "allow_targets=[mine]", "task=own")
    ran = sweep(tmp_path, *own, "meta_learning_rate=0.01,-1")
    assert ran.returncode == 2, ran.stderr
    ran = l2lgd("meta-train", "rerun=sweep", "meta_learning_rate=0.02", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_evaluations_can_be_swept(tmp_path: Path) -> None:
    options = ("task=quadratic", "baselines=[]", "num_functions=2", "num_steps=5", "logger=none")
    swept = ("task.dimension=5,10", "hydra.sweep.dir=sweep")
    ran = l2lgd("evaluate", "--multirun", *options, *swept, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert all(float(row["final_loss"]) > 0 for row in table(tmp_path))
    assert "final loss" in ran.stdout


def test_mistakes_with_sweeps_end_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "damaged" / "sweep.json").write_text("{", encoding="utf-8")
    for options, message in (
        (("rerun=none",), "none: there is no sweep in that folder"),
        (("rerun=damaged",), "damaged/sweep.json cannot be read"),
        (("--multirun", "seeds=0,1"), "there is no option seeds; did you mean seed?"),
        (("--multirun", "seed=0,1", "hydra/launcher=core"), "hydra/launcher"),
        (("--multirun", *TINY, "seed=0,1", "hydra/launcher=slurm"), "could not be run"),
        (("--multirun", "seed=0,1", "hydra.sweep.dir=file"), "file is a file"),
        (("--multirun", "seed=0,1", "hydra.sweep.dir=/proc/no"), "could not write /proc/no"),
    ):
        ran = l2lgd("meta-train", *options, cwd=tmp_path)
        assert ran.returncode == 2
        assert message in ran.stderr.splitlines()[-1]
        assert "Traceback" not in ran.stderr


def test_a_sweep_of_another_verb_is_refused(failing: Path) -> None:
    ran = l2lgd("evaluate", "rerun=sweep", cwd=failing)
    assert ran.returncode == 2
    assert "is a sweep of l2lgd meta-train, not of evaluate" in ran.stderr
    assert Sweep.read(failing / "sweep").verb == "meta-train"
    with pytest.raises(ConfigError):
        Sweep.read(failing)


def test_a_launcher_that_is_not_installed_says_how_to_install_it() -> None:
    missing = MissingConfigException("", "hydra/launcher/joblib", [])
    assert "pip install 'l2lgd[sweeps]'" in str(explanation(missing))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"overrides": 5}, "5 are no options"),
        ({"overrides": ["hydra.sweep.dir=/tmp"]}, "is no option of a job"),
        ({"overrides": ["+hydra.callbacks.x._target_=os.system"]}, "is no option of a job"),
        ({"job": -1}, "there is no job -1"),
        ({"job": 9}, "there is no job 9"),
    ],
)
def test_a_job_that_was_changed_is_not_run_again(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    plan = {"verb": "meta-train", "hydra": [], "jobs": [["seed=0"]]}
    (tmp_path / "sweep.json").write_text(json.dumps(plan), encoding="utf-8")
    (tmp_path / "0").mkdir()
    job = {"job": 0, "overrides": ["seed=0"], "status": "unfinished", **change}
    (tmp_path / "0" / "job.json").write_text(json.dumps(job), encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        Sweep.read(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"job": 0}', "5"])
def test_a_job_of_which_nothing_can_be_read_is_named(content: str, tmp_path: Path) -> None:
    plan = {"verb": "meta-train", "hydra": [], "jobs": [["seed=0"], ["seed=1"]]}
    (tmp_path / "sweep.json").write_text(json.dumps(plan), encoding="utf-8")
    damaged = tmp_path / "1" / "job.json"
    damaged.parent.mkdir()
    damaged.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(damaged))} cannot be read: .+again$"):
        Sweep.read(tmp_path)
    damaged.unlink()
    assert [job.status for job in Sweep.read(tmp_path).left()] == ["unfinished"] * 2


def test_a_sweep_that_is_under_way_is_not_run_again_or_joined(tmp_path: Path) -> None:
    words = ("--multirun", *TINY, "meta_steps=1000000", "seed=1,2", "hydra.sweep.dir=sweep")
    command = [sys.executable, "-m", "l2lgd", "meta-train", *words]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL
    ) as first:
        metrics = tmp_path / "sweep" / "0" / "metrics.jsonl"
        wait_until(metrics.exists, "metrics", first)
        plan = (tmp_path / "sweep" / "sweep.json").read_bytes()
        for again in (("rerun=sweep", "meta_learning_rate=0.1"), words):
            ran = l2lgd("meta-train", *again, cwd=tmp_path)
            assert ran.returncode == 2
            assert "in use by another run" in ran.stderr or "already holds" in ran.stderr
        assert (tmp_path / "sweep" / "sweep.json").read_bytes() == plan
        assert sorted(path.name for path in (tmp_path / "sweep").glob("0*")) == ["0"]
        first.kill()
