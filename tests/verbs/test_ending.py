"""How verbs end: a picture that cannot be drawn costs no result."""

import json
from pathlib import Path

import pytest
from helpers import json_lines, l2lgd
from PIL import Image

SMALL = ("task=quadratic", "num_functions=2", "num_steps=10", "logger=none", "threads=1")
TRAINING = ("meta-train", *SMALL, "unroll.lengths=[5]", "validate_every=2", "checkpoint_every=2")
TRAINING += ("validation_functions=2",)
VERBS = {
    "training.png": (*TRAINING, "meta_steps=2"),
    "curves.png": ("evaluate", *SMALL, "baselines=[]"),
    "search.png": ("tune", *SMALL, "baselines=[sgd]", "tuned_dir=tuned"),
}


@pytest.mark.parametrize("picture", VERBS)
def test_a_picture_that_fails_is_a_warning(picture: str, tmp_path: Path) -> None:
    (tmp_path / "run" / picture / "in the way").mkdir(parents=True)
    ran = l2lgd(*VERBS[picture], "hydra.run.dir=run", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert f"{picture} is not drawn" in ran.stderr
    assert ran.stderr.splitlines()[-2:] == ["summary: run/summary.json", "run folder: run"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["verb"] == VERBS[picture][0]


def test_a_run_that_went_on_draws_all_of_its_training(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    picture = folder / "training.png"
    sizes = []
    for words in ((*TRAINING, "meta_steps=4", "hydra.run.dir=run"), ("meta-train", "resume=run")):
        if sizes:
            picture.unlink()
        ran = l2lgd(*words, cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert "training curve: run/training.png" in ran.stderr
        with Image.open(picture) as found:
            sizes.append(found.tobytes())
    assert len([line for line in json_lines(folder / "metrics.jsonl") if "meta_loss" in line]) == 4
    assert sizes[0] == sizes[1]
