"""Processes under torchrun: together they do what one does alone."""

import json
import math
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import OPTIMIZEES, environment, json_lines, l2lgd, python, spawn
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.meta.estimators.pes import PersistentES
from l2lgd.meta.estimators.replay import Replay
from l2lgd.meta.schedules import Unroll
from l2lgd.meta.trainer import MetaSettings, Trainer
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
from l2lgd.storage import checkpoint
from l2lgd.system import ranks
from l2lgd.system.ranks import Ranks
from l2lgd.tasks.base import Optimizee, Task
from l2lgd.tracking.tracker import NullTracker

NUM_FUNCTIONS = 5  # not the same for two processes
ESTIMATORS = {
    "first order": Replay(),
    "second order": Replay(second_derivatives=True, smoothing=1.0),
    "particles": PersistentES(shortest_horizon=3),
}


class Fixed(Task):
    """Always the same functions, in float64."""

    name = "fixed"

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def sample(self, split: str, num_functions: int, generator: torch.Generator) -> Optimizee:
        return OPTIMIZEES[self.kind](num_functions)


def meta_train(
    rank: int,
    size: int,
    folder: Path,
    kind: str,
    estimator: str = "first order",
    meta_steps: int = 5,
    resume: bool = False,
) -> None:
    """A few meta-steps as process ``rank`` of ``size``."""
    torch.set_num_threads(1)
    if size > 1:
        meet = f"file://{folder}/meet{meta_steps}"
        torch.distributed.init_process_group("gloo", meet, rank=rank, world_size=size)
    settings = MetaSettings(
        meta_steps=meta_steps,
        meta_learning_rate=0.001,
        meta_decay="constant",
        meta_clip=1.0,
        meta_average=0.5,
        num_functions=NUM_FUNCTIONS,
        num_steps=6,
        validate_every=5,
        validation_functions=1,  # fewer than there are processes
        checkpoint_every=5,
    )
    Trainer(Fixed(kind), 0, NullTracker(), Ranks(rank, size)).meta_train(
        CoordinatewiseLSTM(hidden_size=5).double(),
        Unroll([4]),
        ESTIMATORS[estimator],
        settings,
        folder,
        {},
        resume,
    )
    if size > 1:
        ranks.leave()


def weights_of(folder: Path) -> Tensor:
    tensors, _ = checkpoint.load(folder / "last.safetensors")
    return torch.cat([t.flatten() for name, t in tensors.items() if name.startswith("phi.")])


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", OPTIMIZEES)
def test_two_processes_end_where_one_does(kind: str, estimator: str, tmp_path: Path) -> None:
    folders = {size: tmp_path / str(size) for size in (1, 2)}
    for size, folder in folders.items():
        folder.mkdir()
        rest = (size, folder, kind, estimator)
        if size == 1:
            meta_train(0, *rest)
        else:
            spawn(meta_train, rest, size, tmp_path)
    alone, together = (weights_of(folder) for folder in folders.values())
    assert (alone - together).norm() <= 1e-10 * alone.norm()
    best = [checkpoint.load(f / "best.safetensors")[1]["validation_loss"] for f in folders.values()]
    assert math.isclose(*best, rel_tol=1e-10)


@pytest.mark.parametrize("estimator", ["first order", "particles"])
def test_two_processes_go_on_to_the_same_bits(estimator: str, tmp_path: Path) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    for folder in (once, twice):
        folder.mkdir()
    spawn(meta_train, (2, once, "quadratics", estimator), 2, tmp_path)
    spawn(meta_train, (2, twice, "quadratics", estimator, 3), 2, tmp_path)  # within a trajectory
    spawn(meta_train, (2, twice, "quadratics", estimator, 5, True), 2, tmp_path)
    assert weights_of(once).equal(weights_of(twice))


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("num_functions", [1, 5, 16])
def test_shares_are_all_functions_once_and_even(num_functions: int, size: int) -> None:
    shares = [range(num_functions)[Ranks(r, size).share(num_functions)] for r in range(size)]
    assert [i for share in shares for i in share] == list(range(num_functions))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def torchrun(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "l2lgd")
    return python("-m", *command, *arguments, cwd=cwd, TMPDIR=str(cwd))


RUN = (
    "meta-train",
    "task=quadratic",
    "unroll=paper",
    "logger=none",
    "num_functions=3",
    "meta_learning_rate=1e-4",
    "validate_every=2",
    "checkpoint_every=2",
    "validation_functions=4",
)


def first_line(folder: Path) -> dict[str, Any]:
    return json_lines(folder / "metrics.jsonl")[0]


def test_torchrun_shares_a_run_and_resumes_it(tmp_path: Path) -> None:
    alone = l2lgd(*RUN, "meta_steps=1", "hydra.run.dir=alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    whole = torchrun(*RUN, "meta_steps=6", "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text(encoding="utf-8"))
    launched = "torchrun --nproc-per-node 2 -m l2lgd meta-train task=quadratic "
    assert summary["command"].startswith(launched)
    one, two = (first_line(tmp_path / name) for name in ("alone", "whole"))
    assert math.isclose(one["meta_gradient_norm"], two["meta_gradient_norm"], rel_tol=1e-4)
    assert math.isclose(one["meta_loss"], two["meta_loss"], rel_tol=1e-4)
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith("torch")}
    assert left == {"alone", "whole"}, "files of rank 1"
    steps = [line["step"] for line in json_lines(tmp_path / "whole" / "metrics.jsonl")]
    assert steps == sorted(steps), "two processes write to one file"

    done = torchrun("meta-train", "resume=whole", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    refused = l2lgd("meta-train", "resume=whole", cwd=tmp_path)
    assert refused.returncode == 2
    assert "run by 2 processes" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_fewer_functions_than_processes_are_refused(tmp_path: Path) -> None:
    done = torchrun(*RUN, "meta_steps=1", "num_functions=1", cwd=tmp_path)
    assert done.returncode != 0
    assert "num_functions=1 for 2 processes: each needs one at least" in done.stderr
    assert "Traceback" not in done.stderr.split("torch/distributed")[0]
    assert not list(tmp_path.glob("l2lgd-*")), "a temporary folder was left behind"


def test_only_a_meta_training_can_be_shared(tmp_path: Path) -> None:
    done = torchrun("evaluate", "task=quadratic", "logger=none", cwd=tmp_path)
    assert "torchrun shares one meta-train" in done.stderr


def test_who_waits_for_others_says_so_and_heeds_signals(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with subprocess.Popen(
        [sys.executable, "-m", "l2lgd", *RUN, "meta_steps=1", "hydra.run.dir=run"],
        cwd=tmp_path,
        env=environment(RANK="0", WORLD_SIZE="2", **place),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        said = process.stderr.readline()
        waits = f"l2lgd: process 0 of 2 waits for the others at 127.0.0.1:{port}, "
        assert said == f"{waits}10 minutes at most\n"
        process.send_signal(signal.SIGTERM)
        assert process.stderr.read().startswith("l2lgd: interrupted")
    assert process.returncode == 130


def test_who_waits_in_vain_says_what_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("l2lgd.system.ranks.SILENCE", 0.01)
    monkeypatch.setattr("l2lgd.system.ranks.PATIENCE", 0.02)
    ended = threading.Event()
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda _: ended.wait(60))
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "there")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with (
        pytest.raises(ConfigError, match=r"waits for the others at there:\?, in vain"),
        ranks.joined(torch.device("cpu"), 2),
    ):
        pass
    ended.set()
    assert "process 0 of 2 waits" in capsys.readouterr().err


def test_launchers_variables_without_a_place_to_meet_are_explained(tmp_path: Path) -> None:
    done = l2lgd(*RUN, "meta_steps=1", cwd=tmp_path, RANK="0", WORLD_SIZE="2")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("l2lgd: ")]
    assert "RANK and WORLD_SIZE are set, but not by torchrun" in line
    assert "for one process alone unset RANK and WORLD_SIZE" in line
