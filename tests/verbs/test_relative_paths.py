"""Relative paths mean what they meant where they were typed."""

import json
import shutil
from pathlib import Path

import hydra
import pytest
from helpers import CONF, l2lgd
from hydra.core.hydra_config import HydraConfig
from omegaconf import read_write

from l2lgd.config.overrides import at_home
from l2lgd.runs.folder import RunFolder
from l2lgd.storage import checkpoint

QUICK = ("logger=none", "device=cpu", "threads=1", "num_steps=2")
META = ("num_functions=2", "meta_steps=2", "validation_functions=2", "validate_every=2")
META += ("unroll.lengths=[2]",)
CHDIR = "hydra.job.chdir=true"
PICTURES = ("task=mnist", "task.data.source=folder", "task.data.root=pictures")


@pytest.fixture
def desk(tmp_path: Path, picture_folder: Path) -> Path:
    """A folder to type commands in; beside it is another one."""
    desk = tmp_path / "desk"
    desk.mkdir()
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(picture_folder, desk / "pictures")
    return desk


def run(*arguments: str, cwd: Path, **changes: str) -> None:
    done = l2lgd(*arguments, cwd=cwd, **changes)
    assert done.returncode == 0, done.stderr


def everything_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_meta_training_goes_on_from_any_folder(desk: Path) -> None:
    run("meta-train", *QUICK, *META, *PICTURES, CHDIR, "hydra.run.dir=run", cwd=desk)
    elsewhere = desk.parent / "elsewhere"
    run("meta-train", "resume=../desk/run", cwd=elsewhere)
    whole = desk.rename(desk.with_name("moved"))
    run("meta-train", "resume=run", cwd=whole)  # all of it is in another place now
    assert everything_in(elsewhere) == set()
    done = l2lgd("meta-train", "resume=../moved/run", cwd=elsewhere)
    assert done.returncode == 2
    assert "pictures" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_power_cut_does_not_change_what_was_meant(desk: Path) -> None:
    (desk / "configs" / "task").mkdir(parents=True)
    shutil.copy(CONF / "task" / "mnist.yaml", desk / "configs" / "task" / "mine.yaml")
    own = ("--config-dir", "configs", *PICTURES, "task=mine", "hydra.run.dir=runs/mine")
    run("meta-train", *QUICK, *META, *own, cwd=desk)
    elsewhere, further = desk.parent / "elsewhere", desk.parent / "and" / "further"
    further.mkdir(parents=True)
    best = desk / "runs" / "mine" / "checkpoints" / "best.safetensors"
    for folder, where in ((elsewhere, "../desk"), (further, "../../desk"), (desk, ".")):
        shutil.rmtree(desk / "runs" / "mine" / ".hydra", ignore_errors=True)
        best.unlink()  # to be written again
        run("meta-train", f"resume={where}/runs/mine", cwd=folder)
        _, about = checkpoint.load(best)
        assert "meta-train --config-dir configs " in about["command"]
        assert about["typed_in"] == "../.."
        assert str(desk.parent) not in json.dumps(about), "others may get these weights"
    whole = desk.rename(desk.with_name("moved"))
    run("meta-train", "resume=../moved/runs/mine", cwd=elsewhere)
    assert everything_in(elsewhere) == everything_in(further) == set()
    assert everything_in(whole) == {"configs", "pictures", "runs"}


def test_files_and_folders_of_an_evaluation_are_of_where_it_was_typed(desk: Path) -> None:
    quadratic = (*QUICK, "task=quadratic", "num_functions=2", "tune_functions=1", CHDIR)
    run("meta-train", *QUICK, *META, "task=quadratic", "hydra.run.dir=run", cwd=desk)
    best = "run/checkpoints/best.safetensors"
    before = everything_in(desk)
    again = (f"initial_weights={best}", CHDIR, "hydra.run.dir=again")
    run("meta-train", *QUICK, *META, "task=quadratic", *again, cwd=desk)
    mine = (f"checkpoint={best}", "baselines=[sgd]", "tuned_dir=rates")
    run("evaluate", *quadratic, *mine, "hydra.run.dir=first", cwd=desk)
    run("evaluate", *quadratic, *mine, "reuse=[first]", "hydra.run.dir=second", cwd=desk)
    assert everything_in(desk) - before == {"again", "first", "second", "rates"}
    assert len(list((desk / "rates").iterdir())) == 1
    assert "losses taken from" in (desk / "second" / "evaluate.log").read_text("utf-8")
    run("figures", "of=[first]", CHDIR, "hydra.run.dir=figures", cwd=desk)
    assert (desk / "figures" / "figure_own.png").is_file()


def test_a_picture_is_painted_from_and_to_where_it_was_typed(
    desk: Path, gallery: dict[str, str], art_weights: str
) -> None:
    for name in ("style", "vgg"):
        shutil.copy(gallery[name], desk)
    shutil.copy(next((Path(gallery["content"]) / "test").iterdir()), desk / "photograph.png")
    shutil.copy(art_weights, desk / "mine.safetensors")
    words = ("photograph.png", "painting.png", "-o", "out/painted.png", "size=16")
    files = ("checkpoint=mine.safetensors", "task.vgg.weights=vgg.safetensors")
    run("stylize", *words, *files, *QUICK, CHDIR, "hydra.run.dir=run", cwd=desk)
    assert (desk / "out" / "painted.png").is_file()


def test_a_sweep_is_run_again_from_any_folder(desk: Path) -> None:
    (desk / "configs" / "task").mkdir(parents=True)
    (desk / "more" / "opt").mkdir(parents=True)
    shutil.copy(CONF / "task" / "mnist.yaml", desk / "configs" / "task" / "mine.yaml")
    shutil.copy(CONF / "opt" / "adam.yaml", desk / "more" / "opt" / "other.yaml")
    where = ("hydra.searchpath=[configs]", "--config-dir=more", "hydra.sweep.dir=sweep", CHDIR)
    options = ("num_functions=1", "baselines=[]", "opt=other", "opt.learning_rate=0.1,0.2")
    words = ("--multirun", *where, *QUICK, *PICTURES, "task=mine", *options)
    run("evaluate", *words, cwd=desk)
    shutil.rmtree(desk / "sweep" / "1")
    elsewhere = desk.parent / "elsewhere"
    run("evaluate", "rerun=../desk/sweep", cwd=elsewhere)
    assert (desk / "sweep" / "1" / "summary.json").is_file()
    assert everything_in(elsewhere) == set()


def test_a_tilde_is_the_home_of_whoever_types_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: most of what one of its own would do is to make caches for a new home."""
    monkeypatch.setenv("HOME", str(tmp_path / "a home"))
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    monkeypatch.chdir(tmp_path)
    for words, told in (
        (["hydra.run.dir=~/typed"], "typed"),
        (["hydra.run.dir='~/in quotes'"], "in quotes"),
        ([], "~/by file"),
    ):
        with hydra.initialize_config_module("l2lgd.conf", version_base="1.3"):
            whole = hydra.compose(
                "evaluate", [*map(at_home, words), "task=quadratic"], return_hydra_config=True
            )
        if not words:
            with read_write(whole):
                whole.hydra.run.dir = told
        RunFolder().on_run_start(whole)
        assert Path(whole.hydra.run.dir) == tmp_path / "a home" / told.removeprefix("~/")
        assert Path(whole.hydra.run.dir).is_dir()
    assert everything_in(tmp_path) == {"a home"}
