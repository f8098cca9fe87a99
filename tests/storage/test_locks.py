"""Two runs are not let into one folder."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PATIENCE, environment, l2lgd, wait_until

from l2lgd.errors import ConfigError
from l2lgd.storage import locks

LONG = ("task=quadratic", "num_functions=2", "num_steps=10", "unroll.lengths=[5]", "threads=1")
LONG += ("meta_steps=1000000", "checkpoint_every=1", "logger=none")
HOLD = """
import sys
from pathlib import Path
from l2lgd.storage import locks

locks.hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_is_free_again_when_its_process_has_been_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment(), stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=rf"in use by another run \(process {other.pid}\)"):
            locks.hold(tmp_path)
        other.kill()
        other.wait()
        locks.hold(tmp_path)
        locks.hold(tmp_path)  # its own


def test_a_second_run_in_the_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "l2lgd", "meta-train", *LONG, "hydra.run.dir=run"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL
    ) as first:
        last = tmp_path / "run" / "checkpoints" / "last.safetensors"
        wait_until(last.is_file, "checkpoint", first)
        before = (tmp_path / "run" / ".hydra" / "overrides.yaml").read_text("utf-8")
        for words in (
            ("meta-train", *LONG, "seed=3", "hydra.run.dir=run"),
            ("meta-train", "resume=run"),
            ("evaluate", "task=quadratic", "hydra.run.dir=run"),
        ):
            second = l2lgd(*words, cwd=tmp_path)
            assert second.returncode == 2
            assert f"run is in use by another run (process {first.pid})" in second.stderr
        assert (tmp_path / "run" / ".hydra" / "overrides.yaml").read_text("utf-8") == before
        assert first.poll() is None
        first.send_signal(signal.SIGINT)
        assert first.wait(PATIENCE) == 130


QUICK = ("task=quadratic", "num_functions=2", "num_steps=4", "unroll.lengths=[2]", "meta_steps=2")
QUICK += ("validation_functions=2", "threads=1", "logger=none")


def test_a_folder_whose_name_has_to_be_worked_out_is_not_written_over(tmp_path: Path) -> None:
    words = ("meta-train", *QUICK, "hydra.run.dir=runs/${seed}")
    assert l2lgd(*words, cwd=tmp_path).returncode == 0
    best = tmp_path / "runs" / "0" / "checkpoints" / "best.safetensors"
    before = best.read_bytes(), (tmp_path / "runs" / "0" / ".hydra" / "config.yaml").read_bytes()
    second = l2lgd(*words, "meta_learning_rate=0.1", cwd=tmp_path)
    assert second.returncode == 2
    assert "already holds a run; go on with resume=runs/0" in second.stderr
    after = best.read_bytes(), (tmp_path / "runs" / "0" / ".hydra" / "config.yaml").read_bytes()
    assert after == before


def test_of_two_runs_that_begin_together_one_has_the_folder(tmp_path: Path) -> None:
    runs = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "l2lgd",
                "meta-train",
                *QUICK,
                f"seed={seed}",
                "hydra.run.dir=x",
            ],
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    said = [run.communicate(timeout=PATIENCE)[1] for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 2], said
    winner = [run.returncode for run in runs].index(0)
    assert "x is in use by another run" in said[1 - winner] or "already holds" in said[1 - winner]
    overrides = (tmp_path / "x" / ".hydra" / "overrides.yaml").read_text("utf-8")
    assert f"seed={winner + 1}" in overrides
