"""The shipped optimizer of neural art, on real photographs with the features of a real network."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import node

from l2lgd.config.building import build
from l2lgd.meta.rollout import rollout, start
from l2lgd.optimizers.base import Optimizer
from l2lgd.pretrained.weights import SHIPPED
from l2lgd.results import losses as kept_losses
from l2lgd.seeding import generator
from l2lgd.storage import checkpoint
from l2lgd.tasks.neural_art import Paintings, chunks

RESULTS = Path(__file__).parents[2] / "outputs" / "results"
TASKS = ("neural_art", "neural_art_large")
STEPS = 20  # of the evaluation
SAME = 5  # of them, before a learned path shows how the machine rounds


def functions(name: str, hed_vgg: str, art_dir: str) -> Paintings:
    """The first that were evaluated, those that go through the network together."""
    options = (f"task={name}", f"task.vgg.weights={hed_vgg}")
    task: Any = build(node("evaluate", "task", *options), "task")
    task.setup(art_dir, torch.device("cpu"))
    curves, about = kept_losses.read(RESULTS / name)
    key = about["lstm"]["key"]
    draw = generator(key["seed"], "evaluate", key["split"])
    sampled: Paintings = task.sample(key["split"], curves["lstm"].losses.shape[1], draw)
    return sampled.select(next(chunks(sampled.photographs)))


def losses(optimizer: Optimizer, functions: Paintings) -> torch.Tensor:
    """(STEPS + 1, B)"""
    at = start(optimizer, functions)
    record, _ = rollout(at, STEPS)
    return torch.cat([at.loss.unsqueeze(0), record.losses])


@pytest.mark.parametrize("name", TASKS)
def test_the_committed_losses_are_those_of_the_shipped_weights(
    name: str, hed_vgg: str, art_dir: str
) -> None:
    curves, about = kept_losses.read(RESULTS / name)
    first = functions(name, hed_vgg, art_dir)
    tensors, metadata = checkpoint.load(SHIPPED / "neural_art-lstm.safetensors")
    learned: Any = build(metadata["opt"], "opt")
    learned.load_state_dict(tensors)
    assert about["lstm"]["key"]["weights"] == kept_losses.digest(tensors)
    rate = about["adam"]["key"]["optimizer"]["learning_rate"]
    adam: Any = build({**node("evaluate", "opt", "opt=adam"), "learning_rate": rate}, "opt")
    for opt, optimizer in (("lstm", learned), ("adam", adam)):
        found = losses(optimizer, first)
        expected = curves[opt].losses[: STEPS + 1, : found.shape[1]]
        torch.testing.assert_close(found[: SAME + 1], expected[: SAME + 1], rtol=1e-3, atol=0)
        late = slice(STEPS // 2, None)
        torch.testing.assert_close(found[late].mean(), expected[late].mean(), rtol=0.2, atol=0)
