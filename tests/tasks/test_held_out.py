"""The same functions on examples that they were not trained on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SINGLE_TASKS, node, run_steps
from torch import Tensor

from l2lgd.config.building import build
from l2lgd.meta.held_out import held_out_losses
from l2lgd.optimizers.hand_designed import HandDesigned
from l2lgd.seeding import generator
from l2lgd.tasks.augmentation import Augmentation, Augmented, Rescaled
from l2lgd.tasks.base import Optimizee, Split, Task
from l2lgd.tasks.joined import join
from l2lgd.tasks.mixture import Padded

CPU = torch.device("cpu")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
WITHOUT = ("quadratic", "neural_art")  # functions without examples: names begin so
WITH = [
    name
    for name in SINGLE_TASKS
    if not name.startswith((*WITHOUT, "cifar", "mnist_")) or name == "mnist_mixture"
]
SMALL = ("task.batch_size=8",)
MEMORISED = {  # a few examples that are known by heart, and the rate of Adam
    "mnist": (("task.examples=20", *SMALL), 0.03),
    "tabular_mlp": (("task.batch_size=null",), 0.03),
    "matrix_factorisation": (("task.observed=0.2",), 0.1),
    "graph": (("task.labelled=4", "task.activation=tanh"), 0.1),
}


def made(name: str, *options: str) -> Any:
    config = node("evaluate", "task", f"task={name}", "opt=adam", *options)
    if config.get("data", {}).get("name") == "mnist":
        config["data"]["source"] = "embedded"
    task: Any = build(config, "task")
    task.setup(str(Path("~/.cache/l2lgd").expanduser()), CPU, torch.float64)
    return task


def drawn(task: Task, split: Split = "train", num_functions: int = 3) -> Any:
    return task.sample(split, num_functions, generator(0, "functions"))


def others(task: Task, functions: Optimizee, split: Split, seed: int = 0) -> Any:
    return task.held_out(functions, split, generator(seed, "others"))


def moved(functions: Optimizee) -> Tensor:
    theta = functions.initial_parameters
    draw = generator(0, "moved")
    return theta + 0.1 * torch.randn(theta.shape, generator=draw, dtype=theta.dtype)


def rows(functions: Any, steps: int = 10) -> set[bytes]:
    """Examples that the first function sees, as bytes."""
    found = set()
    for step in range(steps):
        parts = [part[0] for part in functions.minibatch(step)]
        sample = zip(*(part.reshape(len(part), -1) for part in parts), strict=True)
        found |= {b"".join(part.numpy().tobytes() for part in row) for row in sample}
    return found


def test_those_without_examples_have_none() -> None:
    for name in ("quadratic", "quadratic_noisy"):
        task = made(name)
        assert others(task, drawn(task), "test") is None
        assert held_out_losses(task, drawn(task), moved(drawn(task)), "test", 0) is None


@pytest.mark.parametrize("name", WITH)
def test_functions_of_every_split_have_others(name: str) -> None:
    task = made(name)
    for own in SPLITS:
        functions = drawn(task, own)
        theta = moved(functions)
        for split in SPLITS:
            found = others(task, functions, split)
            assert found.loss(theta, 0).isfinite().all()
            assert found.stochastic == functions.stochastic
            again = others(task, functions, split, seed=1)
            assert found.stochastic != found.loss(theta, 0).equal(again.loss(theta, 0))


@pytest.mark.parametrize("name", ["mlp", "mnist", "tabular_mlp", "pinn", "graph"])
def test_examples_are_those_of_the_split(name: str) -> None:
    task = made(name)
    functions = drawn(task, "validation")
    every = {split: rows(drawn(task, split, 1), 200) for split in SPLITS}
    for split in SPLITS:
        seen = rows(others(task, functions, split), 3)
        for another in SPLITS:
            if another != split:
                assert not seen & every[another]
    size = functions.minibatch(0)[0].shape
    if name != "graph":  # where each function has the labels of a few nodes
        assert others(task, functions, "test").minibatch(0)[0].shape[:2] == size[:2]


@pytest.mark.parametrize("name", ["resnet", "vae", "pinn", "mnist", "tabular_mlp"])
def test_losses_are_those_by_hand(name: str) -> None:
    task = made(name, *SMALL)
    functions = drawn(task)
    theta = moved(functions)
    found = held_out_losses(task, functions, theta, "test", seed=3, num_batches=4)
    assert found is not None
    held_out = task.held_out(functions, "test", generator(3, "held out", "test"))
    expected = torch.zeros(3, dtype=torch.float64)
    for step in range(4):
        for row in range(3):
            at = theta[row : row + 1]
            batch = [part[row : row + 1] for part in held_out.minibatch(step)]
            if name == "mnist":
                logits = functions.network.logits(
                    {key: value[row : row + 1] for key, value in functions.unpack(theta).items()},
                    batch[0],
                )
                loss = torch.nn.functional.cross_entropy(logits[0], batch[1][0])
            else:
                own = functions.select(slice(row, row + 1))
                loss = task.network.losses(own.unpack(at), own.constants, batch)[0]
            expected[row] += loss / 4
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    assert not found.requires_grad
    part = held_out_losses(task, functions, theta[1:], "test", 3, 4, rows=slice(1, 3))
    assert part is not None
    torch.testing.assert_close(part, found[1:], rtol=1e-9, atol=0)


def test_all_examples_are_evaluated_once_where_a_step_has_all() -> None:
    task = made("tabular_mlp", "task.batch_size=null")
    functions = drawn(task)
    theta = moved(functions)
    inputs, targets = task._examples["test"]
    found = held_out_losses(task, functions, theta, "test", 0)
    assert found is not None
    for row in range(3):
        batch = (inputs.double().unsqueeze(0), targets.unsqueeze(0))
        own = functions.unpack(theta[row : row + 1])
        expected = task.network.losses(own, {}, batch)
        torch.testing.assert_close(found[row : row + 1], expected)


@pytest.mark.parametrize("name", MEMORISED)
def test_what_is_known_by_heart_does_not_help_with_other_examples(name: str) -> None:
    options, rate = MEMORISED[name]
    task = made(name, *options)
    functions = drawn(task)
    last = run_steps(HandDesigned("Adam", rate), functions, 300)[-1]
    own = torch.stack([functions.loss(last, step) for step in range(1000, 1025)]).mean(0)
    for split in ("validation", "test"):
        held_out = held_out_losses(task, functions, last, split, 0)
        assert held_out is not None
        assert (held_out > 1.5 * own).all(), f"{own.tolist()}, {split} {held_out.tolist()}"
    if name != "graph" and name != "mnist":  # whose functions see few examples of their split
        same = held_out_losses(task, functions, last, "train", 0)
        assert same is not None
        torch.testing.assert_close(same, own, rtol=0.5, atol=0)


def test_noise_is_drawn_anew() -> None:
    task = made("vae")
    functions = drawn(task)
    noise, others_noise = functions.minibatch(0)[0], others(task, functions, "test").minibatch(0)[0]
    assert noise.shape == others_noise.shape
    assert not noise.equal(others_noise)
    assert not others_noise[0].equal(others_noise[1])


def test_what_functions_have_of_their_own_stays() -> None:
    for name in ("pinn", "matrix_factorisation"):
        task = made(name)
        functions = drawn(task)
        for split in SPLITS:
            assert others(task, functions, split).constants == functions.constants


@pytest.mark.parametrize("own", SPLITS)
def test_entries_of_a_matrix_that_are_held_out_are_not_observed(own: Split) -> None:
    task = made("matrix_factorisation", "task.batch_size=null")
    functions = drawn(task, own)
    places = {
        split: others(task, functions, split).sources[0].tensors[0].tolist() for split in SPLITS
    }
    assert places[own] == functions.sources[0].tensors[0].tolist()
    assert [len(places[split]) for split in SPLITS] == [300 if s == own else 150 for s in SPLITS]
    assert sorted(place for part in places.values() for place in part) == list(range(600))


def test_scaled_functions_keep_their_scale() -> None:
    inner = made("mlp")
    task = Augmented(inner, Augmentation(["coordinate"], [[0.01, 100]]))
    functions = drawn(task)
    assert isinstance(functions, Rescaled)
    theta = functions.initial_parameters
    found = others(task, functions, "test").loss(theta, 1)
    plain = others(inner, functions.function, "test")
    torch.testing.assert_close(found, plain.loss(plain.initial_parameters, 1))


def test_functions_of_a_variant_are_known() -> None:
    inner, variant = made("mlp"), made("mlp", "task.hidden_layers=[5]")
    task = Augmented(inner, Augmentation(["none"]), [variant])
    functions = drawn(task)
    assert functions.network is variant.network
    assert others(inner, functions, "test") is None
    assert others(task, functions, "test").network is variant.network


def test_mixtures_of_perceptrons_have_others() -> None:
    task = made("mnist_mixture")
    functions = drawn(task)
    assert isinstance(functions, Padded)
    assert isinstance(functions.functions[0], Rescaled)
    theta, found = moved(functions), others(task, functions, "test")
    apart = torch.cat([found.select(slice(k, k + 1)).loss(theta[k : k + 1], 2) for k in range(3)])
    torch.testing.assert_close(found.loss(theta, 2), apart)
    images = {id(part.function.images) for part in found.functions}
    assert images == {id(task.images["test"])}


def test_functions_with_labels_of_their_own_or_of_several_draws_have_none() -> None:
    task = made("mnist", "task.label_counts=[3]")
    assert others(task, drawn(task), "test") is None
    assert others(task, drawn(task, "validation"), "test") is not None
    quadratics = made("quadratic")
    together = join([drawn(quadratics), drawn(quadratics)], [0, 1])
    assert others(task, together, "test") is None
