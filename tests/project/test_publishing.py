"""sdist and wheel: complete, and fit for an empty folder."""

import email
import json
import os
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from helpers import python

ROOT = Path(__file__).parents[2]
SOURCES = ("l2lgd", "conf", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")
SOURCES += ("MANIFEST.in", "CONTRIBUTING.md", "PACKAGE.md", "CITATION.cff")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so")


def copied_to(source: Path) -> Path:
    """A folder with what packages are built from."""
    source.mkdir()
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=LEFT_OUT)
        else:
            shutil.copy(path, source / name)
    return source


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    source = copied_to(folder / "source")
    where = ("--no-isolation", "--outdir", str(folder / "dist"), str(source))
    ran = python("-m", "build", *where, PYTHONWARNINGS="ignore")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    shutil.rmtree(source)
    return folder


def names(built: Path) -> set[str]:
    (wheel,) = (built / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def test_the_wheel_has_everything_that_the_package_reads(built: Path) -> None:
    found = names(built)
    expected = {f"l2lgd/conf/{p.relative_to(ROOT / 'conf')}" for p in ROOT.glob("conf/**/*.yaml")}
    for kind in ("py", "cpp", "csv", "txt", "safetensors", "json"):
        expected |= {str(path.relative_to(ROOT)) for path in ROOT.glob(f"l2lgd/**/*.{kind}")}
    assert expected <= found


def test_nothing_but_the_package_is_in_the_wheel(built: Path) -> None:
    tops = {name.partition("/")[0] for name in names(built)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"l2lgd"}
    (sdist,) = (built / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        members = {name.partition("/")[2] for name in file.getnames()}
    assert {"LICENSE", "CHANGELOG.md", "setup.cfg", "conf/task/mnist.yaml"} <= members


def test_the_wheel_works_from_an_empty_folder(built: Path, tmp_path: Path) -> None:
    (wheel,) = (built / "dist").glob("*.whl")
    packages = tmp_path / "packages"
    ran = python(
        "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), str(wheel)
    )
    assert ran.returncode == 0, ran.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    own = {"PYTHONPATH": str(packages)}
    ran = python("-c", "import l2lgd; print(l2lgd.__file__)", cwd=empty, **own)
    assert ran.stdout.startswith(str(packages))
    options = ("task=quadratic", "num_functions=2", "num_steps=5", "tune_functions=2")
    options += ("logger=none", "hydra.run.dir=run", f"tuned_dir={tmp_path / 'tuned'}")
    ran = python("-m", "l2lgd", "evaluate", *options, cwd=empty, **own)
    assert ran.returncode == 0, ran.stderr
    summary = json.loads((empty / "run" / "summary.json").read_text("utf-8"))
    assert set(summary["results"]) == {"lstm", "sgd", "rmsprop", "adam", "nag"}
    ran = python("-m", "l2lgd", "optimizers", "mnist-lstm", cwd=empty, **own)
    assert str(packages) in ran.stdout
    ran = python("-m", "l2lgd", "--version", cwd=empty, **own)
    assert ran.stdout.split()[1] in os.fspath(wheel.name)


def test_a_package_index_can_show_the_page(built: Path) -> None:
    renderer = pytest.importorskip("readme_renderer.markdown", reason="it is of the extra dev")
    packages = sorted(str(path) for path in (built / "dist").iterdir())
    ran = python("-m", "twine", "check", "--strict", *packages, PYTHONWARNINGS="ignore")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (wheel,) = (built / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        page = email.message_from_bytes(file.read(name)).get_payload()
    html = renderer.render(page)
    assert "<table>" in html
    targets = re.findall(r"(?:src|href)=\"([^\"]+)", html)
    assert targets
    assert not [target for target in targets if not target.startswith(("https://", "#"))]
