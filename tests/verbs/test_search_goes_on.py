"""A search of the meta-learning-rate that was ended goes on where it was."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from helpers import environment, l2lgd

WORDS = ("tune", "search=meta_learning_rate", "task=quadratic", "logger=none", "threads=1")
WORDS += ("num_functions=2", "num_steps=5", "unroll.lengths=[5]", "validation_functions=2")
WORDS += ("opt.hidden_size=4", "trials=3", "meta_steps=300", "validate_every=100")
WORDS += ("checkpoint_every=5",)


def results(folder: Path) -> Any:
    return json.loads((folder / "summary.json").read_text("utf-8"))["results"]


def written(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_it_ends_as_one_without_a_break(tmp_path: Path) -> None:
    whole = l2lgd(*WORDS, "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "l2lgd", *WORDS, 'hydra.run.dir="in two=parts"']
    folder = tmp_path / "in two=parts"
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not any(folder.glob("trial_2_*/checkpoints/last.*")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    line = said.splitlines()[-1].partition("to go on: ")[2]
    assert line == f"l2lgd tune 'resume=\"{folder}\"'"
    (first,) = folder.glob("trial_1_*")
    before = written(first)
    (folder / ".hydra" / "overrides.yaml").write_bytes(b"")  # and a power cut
    refused = l2lgd("tune", f'resume="{folder}"', "trials=4", cwd=tmp_path)
    assert refused.returncode == 2
    assert "trials: 3 → 4" in refused.stderr
    ran = l2lgd("tune", f'resume="{folder}"', cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert written(first) == before
    assert results(folder) == results(tmp_path / "whole")
    for path in sorted(folder.glob("trial_*")):
        lines = (path / "metrics.jsonl").read_text("utf-8").splitlines()
        steps = [json.loads(line)["step"] for line in lines]
        assert steps == sorted(steps)
        assert set(steps) == set(range(1, 301))


def test_one_that_has_ended_is_not_run_again(tmp_path: Path) -> None:
    few = (*WORDS, "meta_steps=4", "trials=2", "hydra.run.dir=run")
    assert l2lgd(*few, cwd=tmp_path).returncode == 0
    found = results(tmp_path / "run")
    before = [written(path) for path in sorted((tmp_path / "run").glob("trial_*"))]
    refused = l2lgd(*few, cwd=tmp_path)
    assert refused.returncode == 2
    assert "already holds a run; go on with resume=run" in refused.stderr
    for change in ("seed=7", "lowest_rate=0.0002", "highest_rate=0.05", "num_steps=10"):
        refused = l2lgd("tune", "resume=run", change, cwd=tmp_path)
        assert refused.returncode == 2
        assert f"{change.partition('=')[0]}: " in refused.stderr
        assert refused.stderr.endswith("or begin a new run in another hydra.run.dir\n")
    assert len(list((tmp_path / "run").glob("trial_*"))) == 2
    assert l2lgd("tune", "resume=run", cwd=tmp_path).returncode == 0
    assert results(tmp_path / "run") == found
    assert [written(path) for path in sorted((tmp_path / "run").glob("trial_*"))] == before


def test_one_without_a_checkpoint_is_the_one_that_was_begun(tmp_path: Path) -> None:
    few = (*WORDS, "meta_steps=4", "trials=1", "hydra.run.dir=run")
    assert l2lgd(*few, cwd=tmp_path).returncode == 0
    (trial,) = (tmp_path / "run").glob("trial_*")
    shutil.rmtree(trial)
    refused = l2lgd("tune", "resume=run", "seed=7", cwd=tmp_path)
    assert refused.returncode == 2
    assert "seed: 0 → 7" in refused.stderr
    assert l2lgd("tune", "resume=run", cwd=tmp_path).returncode == 0
    assert [path.name for path in (tmp_path / "run").glob("trial_*")] == [trial.name]


def test_other_searches_are_given_anew(tmp_path: Path) -> None:
    words = ("task=quadratic", "logger=none", "baselines=[sgd]", "num_functions=2", "num_steps=5")
    data = (f"data_dir={tmp_path}", "hydra.run.dir=run")
    assert l2lgd("tune", *words, *data, cwd=tmp_path).returncode == 0
    refused = l2lgd("tune", "resume=run", cwd=tmp_path)
    assert refused.returncode == 2
    assert "resume= is for search=meta_learning_rate" in refused.stderr
