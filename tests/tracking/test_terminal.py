"""A terminal that is closed while a run is under way."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import PATIENCE, after, environment, json_lines, wait_until

META_STEPS = 600  # or more than any run gets to
OF_TERMINAL = "import fcntl, signal, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
OF_TERMINAL += "; signal.signal(signal.SIGHUP, {})"
RUN = ["meta-train", "task=quadratic", "num_functions=2", "num_steps=20", "unroll.lengths=[5]"]
RUN += ["validation_functions=2", "validate_every=200", "checkpoint_every=5", "logger=none"]
RUN += [f"meta_steps={META_STEPS}", "hydra.run.dir=run"]


@pytest.mark.parametrize("pause", [0.0, 0.002, 0.05])
@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGINT])
def test_who_says_it_twice_is_answered_once(
    way: signal.Signals, pause: float, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "l2lgd", *RUN, "meta_steps=100000"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        metrics = tmp_path / "run" / "metrics.jsonl"
        wait_until(lambda: metrics.exists() and metrics.stat().st_size > 0, "metrics", run)
        run.send_signal(way)
        time.sleep(pause)
        run.send_signal(way)
        _, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 130, said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("l2lgd: interrupted; to go on: l2lgd meta-train resume")


@pytest.mark.parametrize(
    ("what", "status"), [(signal.SIG_DFL, 130), (signal.SIG_IGN, 0)], ids=["ends", "goes on"]
)
def test_a_run_ends_with_its_terminal_unless_told_otherwise(
    what: signal.Handlers, status: int, tmp_path: Path
) -> None:
    terminal, its = pty.openpty()
    length = [] if status == 0 else ["meta_steps=100000"]
    process = subprocess.Popen(
        after(OF_TERMINAL.format(int(what)), "-m", "l2lgd", *RUN, *length),
        **dict.fromkeys(("stdin", "stdout", "stderr"), its),
        cwd=tmp_path,
        env=environment(),
        start_new_session=True,
    )
    os.close(its)
    shown = b""
    while b"trajectory" not in shown:  # the bars are there
        shown += os.read(terminal, 10000)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while len(json_lines(metrics)) < 5:
        shown += os.read(terminal, 10000)
    os.close(terminal)
    assert process.wait(PATIENCE) == status, shown.decode()
    steps = len([line for line in json_lines(metrics) if "meta_loss" in line])
    assert (steps == META_STEPS) == (status == 0)
    assert (tmp_path / "run" / "summary.json").exists() == (status == 0)
