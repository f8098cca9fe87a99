"""What a practitioner tunes, by ``tune search=space`` and by ``evaluate``."""

import json
from pathlib import Path

from helpers import l2lgd

WORDS = ("task=quadratic", "num_steps=8", "logger=none", "threads=1", "tuned_dir=tuned")


def test_a_searched_space_is_found_by_an_evaluation(tmp_path: Path) -> None:
    tune = ("tune", *WORDS, "search=space", "baselines=[tuned_adam]", "trials=4")
    done = l2lgd(*tune, "num_functions=2", "hydra.run.dir=tune", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (stored,) = (tmp_path / "tuned").iterdir()
    searched = json.loads(stored.read_text(encoding="utf-8"))
    evaluate = ("evaluate", *WORDS, "opt=tuned_adam", "baselines=[adamw]", "num_functions=2")
    words = ("tune_functions=2", "tune_trials=4", "hydra.run.dir=evaluate")
    before = stored.stat().st_mtime_ns
    done = l2lgd(*evaluate, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert stored.stat().st_mtime_ns == before
    results = json.loads((tmp_path / "evaluate" / "summary.json").read_text("utf-8"))["results"]
    assert results["tuned_adam"]["settings"] == searched["settings"]
    assert results["tuned_adam"]["trials"] == searched["trials"]
    assert len(results["adamw"]["trials"]) == 4
    again = l2lgd(*evaluate, *words, "reuse=[evaluate]", "hydra.run.dir=again", cwd=tmp_path)
    assert "losses taken from" in again.stderr  # which are those of the same settings


def test_optimizers_without_a_space_are_refused(tmp_path: Path) -> None:
    done = l2lgd("tune", *WORDS, "search=space", "baselines=[adam]", cwd=tmp_path)
    assert done.returncode == 2
    assert "opt=adam has no space" in done.stderr.strip().splitlines()[-1]


def test_trials_are_at_least_one(tmp_path: Path) -> None:
    done = l2lgd("evaluate", *WORDS, "opt=adam", "tune_trials=0", cwd=tmp_path)
    assert done.returncode == 2
    assert "tune_trials=0: must be at least 1" in done.stderr
