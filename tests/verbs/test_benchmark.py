"""``l2lgd benchmark`` as it is installed: resumed, in processes, with one's own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import composed, environment, l2lgd, wait_until
from PIL import Image

from l2lgd.config.schemas import validated
from l2lgd.pretrained.weights import find
from l2lgd.storage import checkpoint

TIMES = ("seconds", "seconds_per_step", "optimizer_seconds_per_step")
TIMES += ("optimizer_seconds_per_coordinate", "command")
SHORT = ("suite.tasks.graph.num_steps=12", "suite.tasks.quadratic_ill.num_steps=15")
SMALL = (
    *("benchmark", "tasks=[graph,quadratic_ill]", *SHORT, "seeds=2", "trials=3"),
    *("tune_functions=1", "device=cpu", "optimizers=[quadratic-lstm,untuned_adam]"),
    *("results_dir=kept", "tuned_dir=tuned", "hydra.run.dir=run"),
)


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = l2lgd(*words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


def untimed(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: untimed(value) for key, value in found.items() if key not in TIMES}
    return [untimed(value) for value in found] if isinstance(found, list) else found


def summary_of(folder: Path) -> Any:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def written(*folders: Path) -> dict[str, int]:
    """When each file was written."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {str(file): file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a small benchmark was run by one process."""
    folder = tmp_path_factory.mktemp("whole")
    run(*SMALL, "workers=1", cwd=folder)
    return folder


def test_it_leaves_tables_a_picture_and_a_summary(whole: Path) -> None:
    summary = summary_of(whole / "run")
    assert list(summary["tasks"]) == ["graph", "quadratic_ill"]
    assert list(summary["scores"]) == ["tuned_adam", "quadratic-lstm", "untuned_adam"]
    for task in summary["tasks"].values():
        reference = task["results"]["tuned_adam"]
        assert reference["loss_ratio"] == [1.0, 1.0]
        assert reference["speed_up"] == [1.0, 1.0]
        for result in task["results"].values():
            assert len(result["final_loss"]) == 2
    assert summary["tasks"]["graph"]["results"]["untuned_adam"]["held_out_loss"] is not None
    assert summary["tasks"]["quadratic_ill"]["results"]["untuned_adam"]["held_out_loss"] is None
    table = (whole / "run" / "table.md").read_text(encoding="utf-8")
    for name in summary["scores"]:
        assert f"| {name} |" in table
    with Image.open(whole / "run" / "benchmark.png") as picture:
        assert picture.format == "PNG"


def test_every_search_has_the_same_number_of_trials(whole: Path) -> None:
    stored = [json.loads(file.read_text("utf-8")) for file in (whole / "tuned").iterdir()]
    assert len(stored) == 2
    assert {len(search["trials"]) for search in stored} == {3}
    assert {len(search["key"]["optimizer"]["space"]) for search in stored} == {4}


def test_called_again_it_does_nothing_twice(whole: Path) -> None:
    before = written(whole / "kept", whole / "tuned")
    run(*SMALL[:-1], "hydra.run.dir=again", cwd=whole)
    assert written(whole / "kept", whole / "tuned") == before
    assert untimed(summary_of(whole / "again")) == untimed(summary_of(whole / "run"))


def test_processes_find_the_same_numbers(whole: Path, tmp_path: Path) -> None:
    run(*SMALL, "workers=2", cwd=tmp_path)
    assert untimed(summary_of(tmp_path / "run")) == untimed(summary_of(whole / "run"))


@pytest.mark.parametrize("after", [2, 5])
def test_killed_it_goes_on_to_the_same_numbers(whole: Path, tmp_path: Path, after: int) -> None:
    def count() -> int:
        return len(written(tmp_path / "kept")) + sum(
            len(json.loads(file.read_text("utf-8"))["trials"])
            for file in (tmp_path / "tuned").glob("*.json")
        )

    command = [sys.executable, "-m", "l2lgd", *SMALL, "workers=1"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL) as p:
        wait_until(lambda: count() >= after, "result", p)
        os.kill(p.pid, signal.SIGKILL)
    before = written(tmp_path / "kept")
    run(*SMALL, "workers=1", cwd=tmp_path)
    now = written(tmp_path / "kept")
    assert before.items() <= now.items()
    assert untimed(summary_of(tmp_path / "run")) == untimed(summary_of(whole / "run"))


def test_fewer_seeds_are_the_first_of_more(whole: Path, tmp_path: Path) -> None:
    for folder in ("kept", "tuned"):
        shutil.copytree(whole / folder, tmp_path / folder)
    run(*SMALL, "workers=1", "seeds=5", cwd=tmp_path)
    five, before = summary_of(tmp_path / "run"), written(tmp_path / "kept")
    run(*SMALL, "workers=1", "seeds=2", cwd=tmp_path)
    two = summary_of(tmp_path / "run")
    assert written(tmp_path / "kept") == before
    for name, task in two["tasks"].items():
        for optimizer, result in task["results"].items():
            losses = five["tasks"][name]["results"][optimizer]["final_loss"]
            assert result["final_loss"] == losses[:2]
            other = summary_of(whole / "run")["tasks"][name]["results"][optimizer]["final_loss"]
            assert np.allclose(result["final_loss"], other, rtol=1e-3)


def test_axes_have_a_picture_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "conf" / "suite").mkdir(parents=True)
    suite = ["# larger and larger", "tasks:"]
    for factor in (1, 2):
        suite += [f"  q{factor}:", "    title: q", "    num_steps: 3", "    axis: dimension"]
        suite += [f"    options: [task=quadratic, task.dimension={10 * factor}]"]
        suite += [f"    factor: {factor}"]
    (tmp_path / "conf" / "suite" / "own.yaml").write_text("\n".join(suite), encoding="utf-8")
    words = [word for word in SMALL if not word.startswith(("tasks=", "suite."))]
    run(*words, "--config-dir", "conf", "suite=own", "workers=1", cwd=tmp_path)
    with Image.open(tmp_path / "run" / "generalisation.png") as picture:
        assert picture.format == "PNG"


OWN_RULE = """
import torch
from l2lgd.optimizers.base import TunedOptimizer


class Descent(TunedOptimizer):
    def __init__(self, learning_rate: float | None = None) -> None:
        super().__init__(learning_rate)

    def initial_state(self, parameters):
        return torch.zeros_like(parameters)

    def step(self, gradient, state, width=None):
        return -{factor} * self.tuned_rate() * gradient, state
"""


def test_ones_own_tasks_and_optimizers_take_part(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "conf" / "opt").mkdir(parents=True)
    (tmp_path / "conf" / "task").mkdir()
    (tmp_path / "conf" / "opt" / "mine.yaml").write_text(
        "# mine\n_target_: mypkg.Descent\nlearning_rate: null\n", encoding="utf-8"
    )
    task = "# mine\ndefaults:\n  - quadratic\n  - _self_\nname: my_task\ndimension: 5\n"
    (tmp_path / "conf" / "task" / "my_task.yaml").write_text(
        task + "recommended:\n  num_steps: 7\n", encoding="utf-8"
    )
    words = [word for word in SMALL if not word.startswith(("tasks=", "optimizers="))]
    words += ["--config-dir", "conf", "tasks=[my_task]", "optimizers=[mine]"]
    finals = []
    for factor in (1, 2, 1):
        (tmp_path / "mypkg.py").write_text(OWN_RULE.format(factor=factor), encoding="utf-8")
        run(*words, "allow_targets=[mypkg]", cwd=tmp_path)
        found = summary_of(tmp_path / "run")["tasks"]["my_task"]
        assert found["num_steps"] == 7
        finals.append((found["results"]["mine"]["final_loss"], found["results"]["mine"]["trials"]))
    assert finals[0] == finals[2]  # a changed rule is another one, trials and all
    assert finals[0][0] != finals[1][0]
    assert finals[0][1] != finals[1][1]


def test_what_diverges_in_every_trial_counts_as_that(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "conf" / "opt").mkdir(parents=True)
    rates = "space: {learning_rate: [1.0e+35, 1.0e+36]}"
    node = "# bad\ndefaults:\n  - adamw\n  - _self_\n" + rates
    (tmp_path / "conf" / "opt" / "bad.yaml").write_text(node, encoding="utf-8")
    words = [word for word in SMALL if not word.startswith(("tasks=", "optimizers="))]
    words += ["--config-dir", "conf", "tasks=[graph]", "optimizers=[bad]", "workers=1"]
    run(*words, cwd=tmp_path)
    result = summary_of(tmp_path / "run")["tasks"]["graph"]["results"]["bad"]
    assert result["diverged"] == 2
    assert result["speed_up"] == [0, 0]
    assert result["loss_ratio"] == [None, None]
    assert len(result["trials"]) == 3


def test_a_file_of_weights_is_known_by_its_content(whole: Path, tmp_path: Path) -> None:
    shutil.copy(find("quadratic-lstm").path, tmp_path / "copy.safetensors")
    shutil.copytree(whole / "tuned", tmp_path / "tuned")
    words = [word for word in SMALL if not word.startswith("optimizers=")]
    run(*words, "optimizers=[copy.safetensors]", "workers=1", cwd=tmp_path)
    mine = summary_of(tmp_path / "run")["tasks"]["graph"]["results"]["copy.safetensors"]
    shipped = summary_of(whole / "run")["tasks"]["graph"]["results"]["quadratic-lstm"]
    assert mine["final_loss"] == shipped["final_loss"]


MISTAKES = {
    "tasks=[grph]": "did you mean graph",
    "tasks=[]": "name at least one",
    "optimizers=[quadratic_lstm]": "did you mean quadratic-lstm",
    "optimizers=[lstm]": "named by its weights",
    "optimizers=[gone.safetensors]": "gone.safetensors",
    "optimizers=[]": "name one to compare with tuned_adam",
    "optimizers=[tuned_adam]": "name one to compare with tuned_adam",
    "reference=shipped": "reference=shipped: there is none",
    "seeds=0": "seeds=0: must be at least 1",
    "trials=0": "trials=0: must be at least 1",
    "workers=0": "workers=0: must be at least 1",
    "reference=tuned_adm": "did you mean tuned_adam",
    "tasks=[mixture]": "mixture",
    "suite.tasks.graph.num_steps=0": "at least 1",
    "suite.tasks.graph.options=['task=grph']": "there is no task=grph",
    "+suite.tasks.graph.axis=width": "axis and factor come together",
    "results_dir=a_file": "a_file",
    "tuned_dir=a_file": "a_file",
    "suite=standrd": "standard",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_mistakes_end_in_one_line(word: str, tmp_path: Path) -> None:
    (tmp_path / "a_file").touch()
    done = l2lgd(*SMALL, "workers=1", word, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()[-1:]
    assert MISTAKES[word] in line, done.stderr
    assert "Traceback" not in done.stderr


def test_a_task_that_fails_costs_no_other(tmp_path: Path) -> None:
    words = [word for word in SMALL if not word.startswith("tasks=")]
    broken = "suite.tasks.lm_gru.options=[task=lm_gru,task.file=gone.txt]"
    done = l2lgd(*words, broken, "tasks=[graph,lm_gru]", "workers=2", cwd=tmp_path)
    assert done.returncode == 2
    assert "gone.txt" in done.stderr.strip().splitlines()[-1]


def test_the_reference_ships_for_the_whole_suite() -> None:
    """Its keys say what was measured; data that differ between machines are looked for anew."""
    from l2lgd.benchmark.measuring import OURS

    suite = {}
    for name in ("standard", "generalisation"):
        suite |= validated(composed("benchmark", f"suite={name}"), "benchmark").suite.tasks
    kept = [checkpoint.load(file)[1]["key"] for file in OURS.glob("*.safetensors")]
    searches = [json.loads(file.read_text("utf-8")) for file in OURS.glob("*.json")]
    assert {key["task_name"] for key in kept if key["optimizer_name"] == "tuned_adam"} >= set(suite)
    assert {len(search["trials"]) for search in searches} == {30}
    for key in kept:
        assert key["num_steps"] == suite[key["task_name"]].num_steps
    assert torch.get_default_dtype() == torch.float32
