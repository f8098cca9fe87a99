"""``scripts/neural_art_pictures.py`` on small pictures."""

from pathlib import Path

import pytest
from helpers import SCRIPTS, art_options, l2lgd, python
from PIL import Image

SCRIPT = SCRIPTS / "neural_art_pictures.py"


@pytest.fixture(scope="module")
def results(
    gallery: dict[str, str], art_weights: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Evaluations of a barely trained LSTM in both settings."""
    folder = tmp_path_factory.mktemp("results")
    for task in ("neural_art", "neural_art_large"):
        ran = l2lgd(
            *("evaluate", f"task={task}", *art_options(gallery), "baselines=[adam,sgd]", "seed=1"),
            *("num_functions=3", "tune_functions=1", "num_steps=40", "logger=none"),
            *(f"checkpoint={art_weights}", "tuned_dir=tuned"),
            f"hydra.run.dir={task}",
            cwd=folder,
        )
        assert ran.returncode == 0, ran.stderr
    return folder


def test_every_picture_is_drawn_with_its_caption(
    gallery: dict[str, str], art_weights: str, results: Path, tmp_path: Path
) -> None:
    given = ["--checkpoint", art_weights]
    given += ["--results", str(results), "--pictures", str(tmp_path), "--contents", "2"]
    ran = python(str(SCRIPT), *given, *art_options(gallery))
    assert ran.returncode == 0, ran.stderr
    drawn = ["figure_8", "strip", "triples", "updates", *(f"proposals_{k}" for k in (1, 2, 3))]
    for name in drawn:
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 100
        caption = (tmp_path / f"{name}.txt").read_text(encoding="utf-8")
        assert "features: vgg16, random" in caption
    painted = sorted(path.name for path in (tmp_path / "painted").iterdir())
    assert painted == [f"neural_art{end}_{k}.png" for end in ("", "_large") for k in (1, 2)]


def test_missing_evaluations_end_in_one_line(gallery: dict[str, str], tmp_path: Path) -> None:
    ran = python(str(SCRIPT), "--results", str(tmp_path), *art_options(gallery))
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "summary.json" in ran.stderr
