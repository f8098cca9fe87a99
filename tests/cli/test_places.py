"""Folders that are gone, or that nobody may write to."""

import os
import sys
from pathlib import Path

import pytest
from helpers import l2lgd, prepared, python

# Root heeds permissions as others do. 24 takes from what it may do: 1 to write, 2 to search.
BOUND = "import ctypes\nfor what in (1, 2): ctypes.CDLL(None).prctl(24, what, 0, 0, 0)"
QUADRATIC = ("task=quadratic", "opt=adam", "opt.learning_rate=0.1", "baselines=[]", "logger=none")


def refusal(*arguments: str, cwd: Path) -> str:
    """The one line that a command ends with."""
    done = prepared(BOUND, "-m", "l2lgd", *arguments, cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """What looks like a run, for a glance."""
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("[task=quadratic]")
    folder.chmod(0o500)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="root is bound by permissions on Linux only")
def test_a_folder_that_cannot_be_written_to_is_named_with_the_cause(read_only: Path) -> None:
    for words in (
        ["meta-train", "resume=run"],
        ["evaluate", *QUADRATIC, "hydra.run.dir=run", "hydra.output_subdir=null"],
        ["evaluate", *QUADRATIC, "hydra.sweep.dir=run/sweep", "--multirun"],
    ):
        said = refusal(*words, cwd=read_only.parent)
        assert "run/" in said
        assert "Permission denied" in said


@pytest.mark.parametrize("verb", ["meta-train", "evaluate", "tune"])
@pytest.mark.parametrize("where", ["x" * 300, f"runs/{'x' * 300}/1", "loop", "file/run"])
def test_a_folder_that_cannot_be_is_one_line(verb: str, where: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for words in (
        [f"hydra.run.dir={where}"],
        ["--multirun", "seed=1,2", f"hydra.sweep.dir={where}"],
    ):
        done = l2lgd(verb, "task=quadratic", "logger=none", *words, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert where in done.stderr
        assert {path.name for path in tmp_path.iterdir()} <= {"loop", "file", "runs"}


@pytest.mark.parametrize("words", [["optimizers"], ["evaluate", *QUADRATIC], ["new", "task", "x"]])
def test_a_working_directory_that_is_gone_is_one_line(words: list[str], tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    # The folder goes between the start of the process and that of the program.
    begin = "import os, sys; os.rmdir(os.getcwd()); from l2lgd.cli.main import main; "
    done = python("-c", f"{begin} sys.exit(main({words!r}))", cwd=gone)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "working directory is not there any more" in done.stderr
    assert not os.path.lexists(gone)
