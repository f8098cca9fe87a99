"""The plan of a sweep is what Hydra runs, whoever planned it."""

import fcntl
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from helpers import begun_sweep, l2lgd, python
from omegaconf import OmegaConf

from l2lgd.cli import before_hydra
from l2lgd.errors import ConfigError
from l2lgd.runs.sweeps import Sweep

TINY = ("task=quadratic", "logger=none", "meta_steps=2", "num_functions=2", "num_steps=5")
TINY += ("unroll.lengths=[5]", "validate_every=2", "validation_functions=2", "threads=1")
OWN_SWEEP = """# @package _global_
# a sweep
seed: ${hydra:job.num}
hydra:
  mode: MULTIRUN
  sweep:
    dir: sweep
  sweeper:
    params:
      meta_learning_rate: choice(0.01,-1)
"""
OWN_SWEEPER = """
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

class InTwoParts(Sweeper):
    def setup(self, *, hydra_context, task_function, config):
        about = {"hydra_context": hydra_context, "task_function": task_function, "config": config}
        self.inner = Plugins.instance().instantiate_launcher(**about)

    def sweep(self, arguments):
        first = self.inner.launch([[*arguments, "seed=3"]], initial_job_idx=0)
        value = first[0].return_value
        return self.inner.launch([[*arguments, f"seed={4 + (value < 0)}"]], initial_job_idx=1)
"""


def said(ran: subprocess.CompletedProcess[str]) -> str:
    return ran.stderr.splitlines()[-1]


def test_a_sweep_that_a_config_defines_is_listed_and_run_again(tmp_path: Path) -> None:
    own = tmp_path / "conf" / "experiment" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(OWN_SWEEP, encoding="utf-8")
    words = ("--config-dir", "conf", *TINY, "experiment=mine")
    ran = l2lgd("meta-train", *words, cwd=tmp_path)
    assert ran.returncode == 2
    assert "1 of 2 jobs did not succeed" in said(ran)
    first, second = Sweep.read(tmp_path / "sweep").jobs
    assert (first.status, second.status) == ("completed", "failed")
    assert second.options["meta_learning_rate"] == "-1"
    ran = l2lgd("meta-train", *words, cwd=tmp_path)
    assert "sweep already holds a sweep" in said(ran)
    # What does not compose leaves the sweep as it was.
    ran = l2lgd("meta-train", "rerun=sweep", "task=none_such", cwd=tmp_path)
    assert ran.returncode == 2
    assert Sweep.read(tmp_path / "sweep").jobs[1] == second
    ran = l2lgd("meta-train", "rerun=sweep", "meta_learning_rate=0.02", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    summary = json.loads((tmp_path / "sweep" / "1" / "summary.json").read_text("utf-8"))
    assert summary["seed"] == 1  # its number, though it is the only one that was run


OF_HYDRA = """# @package _global_
# a sweep over an option of Hydra's, too
hydra:
  mode: MULTIRUN
  sweep:
    dir: sweep
  sweeper:
    params:
      meta_learning_rate: 0.01,-1
      hydra.job_logging.root.level: INFO,WARNING
"""


def test_jobs_of_a_config_keep_what_they_say_of_hydra_and_are_runs_by_themselves(
    tmp_path: Path,
) -> None:
    own = tmp_path / "conf" / "experiment" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(OF_HYDRA, encoding="utf-8")
    ran = l2lgd("meta-train", "--config-dir", "conf", *TINY, "experiment=mine", cwd=tmp_path)
    assert "2 of 4 jobs did not succeed" in said(ran)
    ran = l2lgd("meta-train", "rerun=sweep", "meta_learning_rate=0.02", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    levels = []
    for job in Sweep.read(tmp_path / "sweep").jobs:
        assert job.status == "completed"
        about = OmegaConf.load(job.folder / ".hydra" / "hydra.yaml")
        levels.append(about.hydra.job_logging.root.level)
    assert levels == ["INFO", "WARNING", "INFO", "WARNING"]
    before = sorted(path.name for path in tmp_path.rglob("*"))
    ran = l2lgd("meta-train", "resume=sweep/1", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    for more in ("hydra.mode=MULTIRUN", "++hydra.mode='MULTIRUN'", "-m"):
        ran = l2lgd("meta-train", "resume=sweep/1", more, "seed=4,5", cwd=tmp_path)
        assert ran.returncode == 2
        assert said(ran).startswith("l2lgd: resume= goes on with one run; leave --multirun")


def test_a_sweeper_that_learns_from_its_jobs_is_listed(tmp_path: Path) -> None:
    plugin = tmp_path / "own" / "hydra_plugins" / "two_parts" / "sweeper.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(OWN_SWEEPER, encoding="utf-8")
    (plugin.parent / "__init__.py").touch()
    config = tmp_path / "conf" / "hydra" / "sweeper" / "two_parts.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("_target_: hydra_plugins.two_parts.sweeper.InTwoParts\n", encoding="utf-8")
    ran = python(
        *("-m", "l2lgd", "meta-train", "--multirun", "--config-dir", "conf", *TINY),
        *("hydra/sweeper=two_parts", "hydra.sweep.dir=sweep"),
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path / "own"),
    )
    assert ran.returncode == 0, ran.stderr
    jobs = Sweep.read(tmp_path / "sweep").jobs
    assert [job.options["seed"] for job in jobs] == ["3", "4"]
    assert [job.status for job in jobs] == ["completed", "completed"]


def test_a_failure_in_one_batch_does_not_end_those_after_it(tmp_path: Path) -> None:
    batches = ("hydra.sweeper.max_batch_size=1", "meta_learning_rate=-1,0.01")
    ran = l2lgd("meta-train", "--multirun", *TINY, *batches, "hydra.sweep.dir=s", cwd=tmp_path)
    assert ran.returncode == 2
    assert "1 of 2 jobs did not succeed" in said(ran)
    assert [job.status for job in Sweep.read(tmp_path / "s").jobs] == ["failed", "completed"]


@pytest.mark.parametrize(
    ("subdir", "message"),
    [
        (f"{'x' * 200}_${{hydra.job.override_dirname}}", "the folder of job 0 is too long"),
        ("all", "jobs 0 and 1 would share the folder all"),
        ("${hydra:job.name}/${seed}/of_each", "jobs 0 and 2 would share the folder meta-train/1/"),
    ],
)
def test_jobs_without_a_folder_of_their_own_are_not_begun(
    subdir: str, message: str, tmp_path: Path
) -> None:
    words = (*TINY, "meta_learning_rate=0.001,0.01", "seed=1,2", f"hydra.sweep.subdir={subdir}")
    ran = l2lgd("meta-train", "--multirun", *words, "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert ran.returncode == 2
    assert message in said(ran)
    assert "Traceback" not in ran.stderr
    assert not [path for path in (tmp_path / "sweep").iterdir() if path.is_dir()]


def test_workers_of_a_sweep_that_was_killed_hold_nothing_up(tmp_path: Path) -> None:
    long = ("meta_steps=1000000", "validate_every=1000000", "checkpoint_every=1")
    words = (*TINY, *long, "seed=0,1", "hydra/launcher=cores")
    with begun_sweep(*words, cwd=tmp_path) as process:
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / "sweep" / "0" / "checkpoints" / "last.safetensors").is_file()
    short = ("meta_steps=2", "validate_every=2", "hydra/launcher=basic")
    ran = l2lgd("meta-train", "rerun=sweep", *short, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert {job.status for job in Sweep.read(tmp_path / "sweep").jobs} == {"completed"}


def test_a_job_that_somebody_still_runs_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"verb": "meta-train", "hydra": [], "jobs": [["seed=0"], ["seed=1"]]}
    (tmp_path / "sweep.json").write_text(json.dumps(plan), encoding="utf-8")
    (tmp_path / "1").mkdir()
    monkeypatch.setattr(before_hydra, "WORKERS_END", 0.0)
    descriptor = os.open(tmp_path / "1" / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # of another open file: as if of another process
        with pytest.raises(ConfigError, match="1 is in use by another run"):
            before_hydra.words_of("meta-train", [f"rerun={tmp_path}", "seed=3"])
    finally:
        os.close(descriptor)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["1"]
    words = before_hydra.words_of("meta-train", [f"rerun={tmp_path}", "seed=3"])
    assert words is not None
    assert "--multirun" in words
