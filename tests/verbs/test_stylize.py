"""``l2lgd stylize`` as people call it."""

import json
from pathlib import Path

import pytest
from helpers import NO_NETWORK, l2lgd
from PIL import Image

from l2lgd.config.overrides import ordered
from l2lgd.data.photographs import read_picture
from l2lgd.errors import ConfigError

SMALL = ("task.content_layers=[conv2_2]", "size=20", "num_steps=3")


def photographs(gallery: dict[str, str]) -> tuple[str, str]:
    return str(Path(gallery["content"]) / "test" / "0.png"), gallery["style"]


def test_it_paints_a_picture_and_another_one_beside_it(
    gallery: dict[str, str], art_weights: str, tmp_path: Path
) -> None:
    strange = tmp_path / "a b='c', {d}.jpg"
    with Image.open(photographs(gallery)[0]) as picture:
        picture.save(strange)
    given = (f"checkpoint={art_weights}", f"task.vgg.weights={gallery['vgg']}", *SMALL)
    again = ("hydra.run.dir=again", "beside=adam")
    for output, more in (("new/out.png", ()), ("out.png", again)):
        ran = l2lgd(
            "stylize",
            strange.name,
            photographs(gallery)[1],
            "-o",
            output,
            *given,
            *more,
            cwd=tmp_path,
        )
        assert ran.returncode == 0, ran.stderr
        assert f"lstm: {output}" in ran.stderr
    painted = read_picture(tmp_path / "new" / "out.png", 20)
    assert painted.shape == (3, 27, 20)  # a portrait of 30 × 40, whole
    assert painted.equal(read_picture(tmp_path / "out.png", 20))
    assert not painted.equal(read_picture(tmp_path / "out-adam.png", 20))
    summary = json.loads((tmp_path / "again" / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["results"]) == {"lstm", "adam"}
    assert summary["data"]["note"] == "features: vgg16, random"


def test_all_begin_with_the_same_noise(
    gallery: dict[str, str], art_weights: str, tmp_path: Path
) -> None:
    given = (f"checkpoint={art_weights}", f"task.vgg.weights={gallery['vgg']}", *SMALL)
    still = ("opt.output_scale=1e-9", "beside=adam", "learning_rate=1e-9")
    ran = l2lgd("stylize", *photographs(gallery), "-o", "out.png", *given, *still, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    noise = read_picture(tmp_path / "out.png", 20)
    assert noise.float().std() > 10
    assert noise.equal(read_picture(tmp_path / "out-adam.png", 20))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "usage: l2lgd stylize content.jpg style.jpg"),
        (("photo",), "style= is missing"),
        (("photo", "style", "-o"), "-o needs a value"),
        (("photo", "style", "-o", "out.txt"), ".png or .jpg"),
        (("nowhere.jpg", "style"), "there is no nowhere.jpg"),
        (("photo", "style", "-o", "vgg/out.png"), "could not write"),
        (("photo", "nowhere.jpg"), "give style=FILE"),
        (("photo", "style", "beside=lstm"), "hand-designed"),
        (("photo", "style", "task.vgg.weights=torchvision"), "hed_weights.py"),
    ],
)
def test_mistakes_end_in_one_line(
    gallery: dict[str, str],
    art_weights: str,
    tmp_path: Path,
    arguments: tuple[str, ...],
    named: str,
) -> None:
    photo, style = photographs(gallery)
    words = {"photo": photo, "style": style}
    (tmp_path / "vgg").write_text("in the way")
    given = (f"checkpoint={art_weights}", f"task.vgg.weights={gallery['vgg']}", *SMALL)
    chosen = [words.get(word, word) for word in arguments]
    offline = {**NO_NETWORK, "TORCH_HOME": str(tmp_path)}
    ran = l2lgd("stylize", *given, *chosen, cwd=tmp_path, **offline)
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1, ran.stderr
    assert named in ran.stderr


def test_what_diverges_is_no_picture(
    gallery: dict[str, str], art_weights: str, tmp_path: Path
) -> None:
    given = (f"checkpoint={art_weights}", f"task.vgg.weights={gallery['vgg']}", *SMALL)
    wild = ("-o", "out.png", "beside=sgd", "learning_rate=1e30")
    ran = l2lgd("stylize", *photographs(gallery), *given, *wild, cwd=tmp_path)
    assert ran.returncode == 2
    assert "out-sgd.png is not written" in ran.stderr.splitlines()[-1]
    assert "below 1e+30" in ran.stderr
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["out.png"]


def test_words_get_the_names_of_options() -> None:
    found = ordered("stylize", ["a.jpg", "size=64", "-o", "it's.png", "b.jpg", "--multirun"])
    expected = ["--multirun", 'content="a.jpg"', "size=64", 'output="it\'s.png"', 'style="b.jpg"']
    assert found == expected
    assert ordered("evaluate", ["task=mnist"]) == ["task=mnist"]
    with pytest.raises(ConfigError, match="-o"):
        ordered("evaluate", ["-o", "x"])
