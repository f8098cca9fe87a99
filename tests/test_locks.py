"""Two runs are not let into one folder."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import environment, l2lgd

from l2lgd import locks
from l2lgd.errors import ConfigError

LONG = ("task=quadratic", "num_functions=2", "num_steps=10", "unroll.lengths=[5]", "threads=1")
LONG += ("meta_steps=1000000", "checkpoint_every=1", "logger=none")
HOLD = """
import sys, time
from pathlib import Path
from l2lgd import locks

locks.hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_folder_is_free_again_when_its_process_has_been_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as other:
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
        deadline = time.monotonic() + 60
        while not last.is_file() and time.monotonic() < deadline:
            time.sleep(0.02)
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
        assert first.wait(30) == 130
