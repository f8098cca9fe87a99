"""Commands that are printed are pasted into a shell, whatever a folder is called."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers import l2lgd
from omegaconf import OmegaConf
from PIL import Image

from l2lgd.config.overrides import option
from l2lgd.runs.sweeps import Sweep

STRANGE = "a=b, [c] 'd' \"e\" #~ größe no\u00a0break \u202f soft\u00ad 👩\u200d🔬"
TINY = ("task=quadratic", "logger=none", "meta_steps=2", "num_functions=2", "num_steps=5")
TINY += ("unroll.lengths=[5]", "validate_every=2", "validation_functions=2", "threads=1")


def pasted(line: str, *more: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a printed command, with the words that a shell makes of it."""
    ran = subprocess.run(
        ["sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True
    )
    program, *words = ran.stdout.split("\0")[:-1]
    assert program == "l2lgd"
    done = l2lgd(*words, *more, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


def between(text: str, before: str, after: str) -> str:
    found = re.search(f"{re.escape(before)}(.*?){re.escape(after)}", text)
    assert found, text
    return found[1]


def test_those_of_a_run(tmp_path: Path) -> None:
    words = (*TINY, option("hydra.run.dir", STRANGE))
    ran = l2lgd("meta-train", *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    evaluate = between(ran.stdout + ran.stderr, "\nl2lgd evaluate", "\n")
    pasted(f"l2lgd evaluate{evaluate}", *FEW, cwd=tmp_path)
    assert (tmp_path / "e" / "summary.json").is_file()
    refused = l2lgd("meta-train", *words, cwd=tmp_path)
    assert refused.returncode == 2
    resume = between(refused.stderr, "go on with ", ", or choose")
    pasted(f"l2lgd meta-train {resume}", cwd=tmp_path)
    refused = l2lgd("meta-train", option("resume", STRANGE), "num_steps=6", cwd=tmp_path)
    assert refused.returncode == 2
    weights = between(refused.stderr, "from its weights with ", "\n")
    pasted(f"l2lgd meta-train {weights}", *TINY, "hydra.run.dir=next", cwd=tmp_path)


FEW = ("baselines=[]", "num_functions=2", "logger=none", "device=cpu", "hydra.run.dir=e")
OWN_TASK = """
defaults: [quadratic, _self_]
dimension: 4
"""
NEEDY = """
defaults: [lstm, _self_]
hidden_size: ???  # has to be given
"""


def run_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config and the summary that a run has left in its folder."""
    config: Any = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml"))
    return config, json.loads((folder / "summary.json").read_text("utf-8"))


@pytest.mark.parametrize(
    "words",
    [
        ["task=quadratic", "num_steps=7", "task.dimension=4", "opt.hidden_size=3"],
        ["experiment=own"],
        ["task=own", "num_steps=6", "opt=needy", "opt.hidden_size=3", "opt.num_layers=1"],
        [
            *("task=mnist", "task.data={source: embedded}", "task.labels=[1,2]", "num_steps=6"),
            *("task.hidden_layers=[3,4]", "task.activation=relu", "data_dir=a folder"),
        ],
        ["task=mnist", "task.data.source=embedded", "task.examples=9", "~task.batch_size"],
    ],
)
def test_an_evaluation_has_the_task_and_the_horizon_of_the_run(
    words: list[str], tmp_path: Path
) -> None:
    for name, text in (
        ("task/own", OWN_TASK),
        ("opt/needy", NEEDY),
        (
            "experiment/own",
            "# @package _global_\n"
            "defaults: [override /task: quadratic]\nnum_steps: 8\ntask: {dimension: 3}\n",
        ),
    ):
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    sizes = [word for word in TINY if not word.startswith(("task=", "num_steps="))]
    ran = l2lgd(
        *("meta-train", "--config-dir", "conf", *words, *sizes, "meta_steps=1"),
        *("hydra.run.dir=run", "device=cpu"),
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    printed = between(ran.stdout + ran.stderr, "\nl2lgd evaluate", "\n")
    pasted(f"l2lgd evaluate{printed}", *FEW, cwd=tmp_path)
    (trained, about), (evaluated, found) = run_of(tmp_path / "run"), run_of(tmp_path / "e")
    assert found["num_steps"] == about["num_steps"]
    trained["task"].pop("augment")  # of functions to meta-train on
    assert trained["task"] == evaluated["task"]
    assert trained["data_dir"] == evaluated["data_dir"]
    for data in (about["data"], found["data"]):
        if data:
            del data["num_examples"]  # of the split
    assert found["data"] == about["data"]


def test_an_evaluation_has_only_words_that_it_needs(tmp_path: Path) -> None:
    ran = l2lgd("meta-train", *TINY, "num_steps=100", "hydra.run.dir=run", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    printed = between(ran.stdout + ran.stderr, "\nl2lgd evaluate ", "\n")
    weights = tmp_path / "run" / "checkpoints" / "best.safetensors"
    assert printed == f"task=quadratic opt=lstm {option('checkpoint', weights)}"


def test_paths_of_a_run_that_is_resumed_elsewhere_are_as_they_were(tmp_path: Path) -> None:
    first, elsewhere = tmp_path / "first", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for split in ("train", "test"):
        for label in ("a", "b"):
            picture(first / "data/own" / split / label)
    words = ("task=mnist", "task.data.source=folder", "task.data.root=data/own", *TINY[1:])
    ran = l2lgd("meta-train", *words, "hydra.run.dir=run", "device=cpu", cwd=first)
    assert ran.returncode == 0, ran.stderr
    ran = l2lgd("meta-train", option("resume", first / "run"), cwd=elsewhere)
    assert ran.returncode == 0, ran.stderr
    printed = between(ran.stdout + ran.stderr, "\nl2lgd evaluate", "\n")
    pasted(f"l2lgd evaluate{printed}", *FEW, cwd=elsewhere)
    assert run_of(elsewhere / "e")[1]["num_steps"] == 5


def picture(folder: Path) -> None:
    """Ten small pictures of one class."""
    folder.mkdir(parents=True)
    for number in range(10):
        Image.new("L", (28, 28), 20 * number).save(folder / f"{number}.png")


def test_those_of_a_sweep(tmp_path: Path) -> None:
    words = ("--multirun", *TINY, "meta_learning_rate=0.01,-1", option("hydra.sweep.dir", STRANGE))
    ran = l2lgd("meta-train", *words, cwd=tmp_path)
    assert ran.returncode == 2
    again = between(ran.stderr, "to run them again: ", "\n")
    pasted(again, "meta_learning_rate=0.02", cwd=tmp_path)
    assert not Sweep.read(tmp_path / STRANGE).left()
    refused = l2lgd("meta-train", *words, cwd=tmp_path)
    again = between(refused.stderr, "left undone with ", ", or choose")
    pasted(f"l2lgd meta-train {again}", cwd=tmp_path)
