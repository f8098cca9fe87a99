"""``scripts/neural_art_pictures.py`` on small pictures."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import l2lgd
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "scripts" / "neural_art_pictures.py"


@pytest.fixture(scope="module")
def results(gallery: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluations of an untrained LSTM in both settings."""
    folder = tmp_path_factory.mktemp("results")
    ran = l2lgd(
        *("meta-train", "task=neural_art", *overrides(gallery), "meta_steps=1", "num_steps=2"),
        *("unroll.lengths=[2]", "num_functions=1", "validation_functions=1", "logger=none"),
        *("opt.output_scale=0.1", "hydra.run.dir=run"),
        cwd=folder,
    )
    assert ran.returncode == 0, ran.stderr
    for task in ("neural_art", "neural_art_large"):
        ran = l2lgd(
            *("evaluate", f"task={task}", *overrides(gallery), "baselines=[adam,sgd]", "seed=1"),
            *("num_functions=3", "tune_functions=1", "num_steps=40", "logger=none"),
            *("checkpoint=run/checkpoints/best.safetensors", "tuned_dir=tuned"),
            f"hydra.run.dir={task}",
            cwd=folder,
        )
        assert ran.returncode == 0, ran.stderr
    return folder


def overrides(gallery: dict[str, str]) -> list[str]:
    return [
        f"task.content={gallery['content']}",
        f"task.style={gallery['style']}",
        f"task.vgg.weights={gallery['vgg']}",
        "task.size=16",
    ]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_picture_is_drawn_with_its_caption(
    gallery: dict[str, str], results: Path, tmp_path: Path
) -> None:
    given = ["--checkpoint", str(results / "run" / "checkpoints" / "best.safetensors")]
    given += ["--results", str(results), "--pictures", str(tmp_path), "--contents", "2"]
    ran = run(*given, *overrides(gallery))
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
    ran = run("--results", str(tmp_path), *overrides(gallery))
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "summary.json" in ran.stderr
