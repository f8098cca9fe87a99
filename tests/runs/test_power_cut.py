"""A run whose ``.hydra`` is empty, as a power cut may leave it, goes on by its checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import l2lgd

from l2lgd.cli.before_hydra import words_of
from l2lgd.errors import ConfigError

OLD = Path(__file__).with_name("old_run")  # see test_old_run.py
FILES = ("config.yaml", "hydra.yaml", "overrides.yaml")


def cut(folder: Path, *files: str) -> Path:
    run = Path(shutil.copytree(OLD, folder / "run"))
    for name in files:
        (run / ".hydra" / name).write_bytes(b"")
    return run


@pytest.mark.parametrize("files", [*((name,) for name in FILES), FILES])
def test_the_words_are_those_of_the_checkpoint(files: tuple[str, ...], tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    found = []
    for folder, empty in ((whole, ()), (damaged, files)):
        words = words_of("meta-train", [f"resume={cut(folder, *empty)}"]) or []
        found.append({word.replace(str(folder), "") for word in words})
    assert found[0] == found[1]


def test_it_ends_as_it_would_have(tmp_path: Path) -> None:
    losses = []
    for name, files in (("whole", ()), ("damaged", FILES)):
        run = cut(tmp_path / name, *files)
        if files:
            last = run / "checkpoints" / "last.safetensors"
            last.rename(last.with_stem("previous"))
            last.write_bytes(b"")
            again = l2lgd("meta-train", "resume=run", "num_functions=5", cwd=run.parent)
            assert again.returncode == 2
            assert "num_functions: 3 → 5" in again.stderr
        ran = l2lgd("meta-train", "resume=run", cwd=run.parent)
        assert ran.returncode == 0, ran.stderr
        assert ("taken from its last checkpoint" in ran.stderr) == bool(files)
        losses.append(json.loads((run / "summary.json").read_text("utf-8"))["best_validation_loss"])
    assert losses[0] == losses[1]


def test_without_a_checkpoint_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    run = cut(tmp_path, *FILES)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ConfigError, match="no checkpoint to go on from; begin a new run"):
        words_of("meta-train", [f"resume={run}"])
    shutil.rmtree(run / ".hydra")
    with pytest.raises(ConfigError, match="no run in that folder"):
        words_of("meta-train", [f"resume={run}"])
