"""A task and an optimizer outside the repository, and the files that ``l2lgd new`` writes."""

import csv
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import json_lines, l2lgd, python, served

from l2lgd.storage import checkpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_package"
SEARCH = "hydra.searchpath=[pkg://l2lgd_example.conf]"
OWN = (SEARCH, "allow_targets=[l2lgd_example]", "task=rosenbrock")
SMALL = ("meta_steps=6", "num_steps=10", "num_functions=2", "unroll.lengths=[5]", "threads=1")
SMALL += ("validate_every=2", "validation_functions=2", "checkpoint_every=2", "logger=none")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing in it but the example, installed."""
    folder = tmp_path_factory.mktemp("extend")
    source = shutil.copytree(EXAMPLE, folder / "source")
    where = ("--no-deps", "--no-build-isolation", "--quiet", "--target", str(folder / "packages"))
    ran = python("-m", "pip", "install", *where, str(source))
    assert ran.returncode == 0, ran.stderr
    shutil.rmtree(source)
    return folder


def run(folder: Path, verb: str, *options: str) -> subprocess.CompletedProcess[str]:
    packages = str(folder / "packages")
    return l2lgd(verb, *OWN, *options, cwd=folder, PYTHONPATH=packages)


def test_an_own_task_and_optimizer_do_all_that_the_paper_s_do(installed: Path) -> None:
    ran = run(installed, "meta-train", "opt=gru", *SMALL, "hydra.run.dir=run")
    assert ran.returncode == 0, ran.stderr
    best = installed / "run" / "checkpoints" / "best.safetensors"
    assert best.is_file()
    (hint,) = [line for line in ran.stderr.splitlines() if line.startswith("l2lgd evaluate")]
    assert SEARCH in hint
    assert "allow_targets=[l2lgd_example]" in hint

    steps = len(json_lines(installed / "run" / "metrics.jsonl"))
    ran = l2lgd("meta-train", "resume=run", cwd=installed, PYTHONPATH=str(installed / "packages"))
    assert ran.returncode == 0, ran.stderr
    assert len(json_lines(installed / "run" / "metrics.jsonl")) == steps

    options = ("opt=gru", "baselines=[adam]", "num_functions=3", "num_steps=10", "logger=none")
    options += ("tune_functions=2", f"tuned_dir={installed / 'tuned'}")
    ran = run(installed, "evaluate", *options, f"checkpoint={best}", "hydra.run.dir=evaluation")
    assert ran.returncode == 0, ran.stderr
    summary = json.loads((installed / "evaluation" / "summary.json").read_text("utf-8"))
    assert set(summary["results"]) == {"gru", "adam"}

    swept = ("--multirun", "opt=gru,lstm", *SMALL, "hydra.sweep.dir=sweep")
    ran = run(installed, "meta-train", *swept)
    assert ran.returncode == 0, ran.stderr
    with (installed / "sweep" / "sweep.csv").open(encoding="utf-8") as file:
        assert {row["opt"] for row in csv.DictReader(file)} == {"gru", "lstm"}

    ran = l2lgd("figures", "of=[evaluation]", "hydra.run.dir=figures", cwd=installed)
    assert ran.returncode == 0, ran.stderr
    made = {path.name for path in (installed / "figures").glob("figure_own.*")}
    assert made == {f"figure_own.{kind}" for kind in ("png", "pdf", "csv", "json", "md")}


def test_weights_name_the_version_of_the_package_that_their_class_is_from(
    installed: Path,
) -> None:
    best = installed / "run" / "checkpoints" / "best.safetensors"
    if not best.is_file():
        ran = run(installed, "meta-train", "opt=gru", *SMALL, "hydra.run.dir=run")
        assert ran.returncode == 0, ran.stderr
    tensors, metadata = checkpoint.load(best)
    assert metadata["packages"] == {"l2lgd_example": "0.1.0"}
    ran = l2lgd("optimizers", str(best), cwd=installed)  # where the package is not found
    assert ran.returncode == 0, ran.stderr
    assert ["package", "l2lgd_example", "0.1.0"] in [s.split() for s in ran.stdout.splitlines()]

    options = ("opt=gru", "baselines=[]", "num_functions=1", "num_steps=1", "logger=none")
    for version, warned in (("0.1.0", False), ("7.0", True), (None, False)):
        told = metadata | {"packages": {"l2lgd_example": version}}
        checkpoint.save(installed / "own.safetensors", tensors, told)
        ran = run(installed, "evaluate", *options, "checkpoint=own.safetensors")
        assert ran.returncode == 0, ran.stderr
        said = [line for line in ran.stderr.splitlines() if "was meta-trained with" in line]
        expected = "own.safetensors was meta-trained with l2lgd_example 7.0, here is 0.1.0"
        assert [line.partition(":")[0] for line in said] == ([expected] if warned else [])


USE = """
import torch
from l2lgd import LearnedOptimizer

parameter = torch.nn.Parameter(torch.ones(5))
weights = "run/checkpoints/best.safetensors"
optimizer = LearnedOptimizer([parameter], weights, allow_targets=["l2lgd_example"])
parameter.grad = torch.ones(5)
optimizer.step()
print(parameter.detach().unique().numel(), bool((parameter != 1).all()))
"""


def test_an_own_optimizer_is_one_of_pytorch_s(installed: Path) -> None:
    if not (installed / "run").is_dir():
        ran = run(installed, "meta-train", "opt=gru", *SMALL, "hydra.run.dir=run")
        assert ran.returncode == 0, ran.stderr
    ran = served("-c", USE, cwd=installed, PYTHONPATH=str(installed / "packages"))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["1", "True"]


def test_code_that_is_not_allowed_is_not_run(installed: Path) -> None:
    options = (SEARCH, "task=rosenbrock", *SMALL)
    ran = l2lgd("meta-train", *options, cwd=installed, PYTHONPATH=str(installed / "packages"))
    assert ran.returncode == 2
    assert "add allow_targets=[l2lgd_example]" in ran.stderr


def test_the_files_of_new_are_those_of_the_example(tmp_path: Path) -> None:
    for kind, name in (("task", "rosenbrock"), ("optimizer", "gru")):
        ran = l2lgd("new", kind, name, "l2lgd_example", cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
    made = sorted((tmp_path / "l2lgd_example").rglob("*.py")) + sorted(tmp_path.rglob("*.yaml"))
    for path in made:
        same = EXAMPLE / path.relative_to(tmp_path)
        assert path.name == "__init__.py" or path.read_text() == same.read_text(), same
    assert len(made) == 5


def test_what_new_writes_runs_from_the_folder_it_was_written_to(tmp_path: Path) -> None:
    said = ""
    for kind, name in (("task", "own_task"), ("optimizer", "own_optimizer")):
        ran = l2lgd("new", kind, name, cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        said = ran.stdout
    assert "l2lgd meta-train --config-dir mine/conf opt=own_optimizer" in said
    ran = l2lgd(
        *("meta-train", "--config-dir", "mine/conf", "task=own_task", "opt=own_optimizer"),
        *("allow_targets=[mine]", *SMALL, "hydra.run.dir=run"),
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert "--config-dir mine/conf" in ran.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))
    assert "--config-dir mine/conf" in summary["command"]


@pytest.mark.parametrize("launcher", ["cores", "slurm_local"])
def test_workers_find_own_code_in_the_working_directory_but_nothing_that_stands_for_other_code(
    launcher: str, tmp_path: Path
) -> None:
    assert l2lgd("new", "task", "own_task", cwd=tmp_path).returncode == 0
    for folder in ("conf", "conf/task"):
        (tmp_path / "mine" / folder / "__init__.py").touch()
    for name in ("pickle", "socket", "torch", "submitit"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w')\n", encoding="utf-8")
    where = ("hydra.searchpath=[pkg://mine.conf]", "task=own_task", "allow_targets=[mine]")
    swept = ("--multirun", "seed=1,2", "hydra.sweep.dir=sweep", "hydra.job.chdir=true")
    words = (*where, *SMALL, *swept, f"hydra/launcher={launcher}")
    ran = python("-P", "-m", "l2lgd", "meta-train", *words, cwd=tmp_path)  # as the script does
    assert ran.returncode == 0, ran.stderr
    assert not list(tmp_path.rglob("executed"))
    shutil.rmtree(tmp_path / "sweep" / "1")
    again = ("rerun=sweep", "hydra/launcher=basic")
    ran = l2lgd("meta-train", *again, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "sweep" / "1" / "summary.json").is_file()


def test_mistakes_with_new_end_in_one_line(tmp_path: Path) -> None:
    for words, message in (
        (["task"], "its NAME is missing; usage: l2lgd new task NAME"),
        (["tasc", "a"], "did you mean task?"),
        (["task", "Rosen-brock"], "NAME Rosen-brock: must be small letters"),
        (["task", "class"], "NAME class: must be"),
        (["task", "a", "1b"], "FOLDER 1b: must be"),
        (["task", "a", "in/two"], "FOLDER in/two: must be"),
        (["task", "mnist"], "there is a task=mnist in l2lgd already"),
    ):
        ran = l2lgd("new", *words, cwd=tmp_path)
        assert ran.returncode == 2
        assert message in ran.stderr
        assert len(ran.stderr.splitlines()) == 1
    assert l2lgd("new", "task", "a", cwd=tmp_path).returncode == 0
    ran = l2lgd("new", "task", "a", cwd=tmp_path)
    assert "mine/a.py exists already" in ran.stderr
    assert "usage: l2lgd new task NAME" in l2lgd("new", "--help", cwd=tmp_path).stdout
