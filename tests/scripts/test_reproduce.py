"""``scripts/tools/reproduce.py``: recorded commands give the weights that recorded them."""

import re
from pathlib import Path

import pytest
from helpers import SCRIPTS, l2lgd, served

from l2lgd.storage import checkpoint

SCRIPT = str(SCRIPTS / "tools/reproduce.py")
SHORT = ("num_functions=2", "meta_steps=6", "validate_every=3", "validation_functions=2")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights that took two parts, and its parent with their runs."""
    work = tmp_path_factory.mktemp("work")
    common = ("task=quadratic", "opt=lstm", *SHORT, "threads=1", "logger=none")
    for folder, options in (
        ("first_part", ()),
        ("second", ("initial_weights=first_part/checkpoints/last.safetensors", "seed=4")),
    ):
        ran = l2lgd("meta-train", *common, *options, f"hydra.run.dir={folder}", cwd=work)
        assert ran.returncode == 0, ran.stderr
    target = work / "shipped" / "some" / "tiny-lstm.safetensors"
    target.parent.mkdir(parents=True)
    (work / "second" / "checkpoints" / "best.safetensors").rename(target)
    return work / "shipped"


def test_the_recorded_commands_give_the_same_weights(shipped: Path, tmp_path: Path) -> None:
    options = ("--shipped", str(shipped), "--only", "some/tiny-lstm", "--work", "again")
    ran = served(SCRIPT, *options, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert len(re.findall("^l2lgd meta-train", ran.stdout, re.MULTILINE)) == 2
    tensors, metadata = checkpoint.load(tmp_path / "again/weights/some/tiny-lstm.safetensors")
    expected, recorded = checkpoint.load(shipped / "some" / "tiny-lstm.safetensors")
    assert all(tensors[name].equal(tensor) for name, tensor in expected.items())
    assert metadata["begun_from"]["seed"] == recorded["begun_from"]["seed"]
    again = served(SCRIPT, *options, cwd=tmp_path)
    assert "0 of 1 optimizers" in again.stdout
    assert "l2lgd meta-train" not in again.stdout


def test_the_estimate_covers_every_shipped_optimizer(tmp_path: Path) -> None:
    ran = served(SCRIPT, "--estimate", "--workers", "2", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(
        r"(\d+) of \1 optimizers to meta-train, about \d+\.\d hours, .*\n", ran.stdout
    )
    assert not list(tmp_path.iterdir())


def test_an_unknown_optimizer_ends_in_one_line(tmp_path: Path) -> None:
    ran = served(SCRIPT, "--only", "mnist-lsmt", cwd=tmp_path)
    assert ran.returncode == 2
    assert "did you mean mnist-lstm?" in ran.stderr
    assert ran.stderr.count("\n") == 1
