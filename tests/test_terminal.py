"""A terminal that is closed while a run is under way."""

import os
import pty
import signal
import sys
from pathlib import Path

import pytest
from helpers import environment, json_lines

META_STEPS = 600
RUN = ["meta-train", "task=quadratic", "num_functions=2", "num_steps=20", "unroll.lengths=[5]"]
RUN += ["validation_functions=2", "validate_every=200", "checkpoint_every=5", "logger=none"]
RUN += [f"meta_steps={META_STEPS}", "hydra.run.dir=run"]


@pytest.mark.parametrize(
    ("what", "status"), [(signal.SIG_DFL, 130), (signal.SIG_IGN, 0)], ids=["ends", "goes on"]
)
def test_a_run_ends_with_its_terminal_unless_told_otherwise(
    what: signal.Handlers, status: int, tmp_path: Path
) -> None:
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGHUP, what)
        os.chdir(tmp_path)
        os.execve(sys.executable, [sys.executable, "-m", "l2lgd", *RUN], environment())
    shown = b""
    while b"trajectory" not in shown:  # the bars are there
        shown += os.read(terminal, 10000)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while len(json_lines(metrics)) < 5:
        shown += os.read(terminal, 10000)
    os.close(terminal)
    _, found = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(found) == status, shown.decode()
    steps = len([line for line in json_lines(metrics) if "meta_loss" in line])
    assert (steps == META_STEPS) == (status == 0)
    assert (tmp_path / "run" / "summary.json").exists() == (status == 0)
