"""The contract of every task in conf/task; a new YAML file is tested without an edit here."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import (
    CLASSES_OF_TASKS,
    CONF,
    SINGLE_TASKS,
    node,
    run_steps,
    thinned,
    unavailable,
)
from torch import nn
from torch.nn import functional

from l2lgd.config.building import build
from l2lgd.data.data_sets import DATA_SETS
from l2lgd.data.images import ImageSplits, load_images
from l2lgd.data.sources import DataConfig
from l2lgd.errors import ConfigError, DataUnavailable
from l2lgd.optimizers.hand_designed import HandDesigned
from l2lgd.tasks.augmentation import LEVELS, Augmentation, Augmented
from l2lgd.tasks.base import Optimizee, Task
from l2lgd.tasks.classification import ACTIVATIONS, ClassificationTask
from l2lgd.tasks.noisy_quadratic import NoisyQuadraticTask
from l2lgd.tasks.quadratic import Quadratics, QuadraticTask
from l2lgd.testing import TASK_CHECKS

TASKS = SINGLE_TASKS
LABELS_OF = ("cifar2", "cifar5", "cifar_sub")  # cifar10, with other labels
CPU = torch.device("cpu")
B = 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def tasks(gallery: dict[str, str]) -> Callable[[str], Task]:
    """Tasks by name, in float64; MNIST and pictures from what every machine has."""
    ready: dict[str, Task] = {}

    def get(name: str) -> Task:
        if name not in ready:
            config = node("evaluate", "task", f"task={name}", "opt=adam")
            if config.get("data", {}).get("name") == "mnist":
                config["data"]["source"] = "embedded"
            if "kernel_size" in config:
                config["batch_size"] = 16  # a step of a convnet is slow
            if "vgg" in config:
                small = {"content": gallery["content"], "style": gallery["style"], "size": 16}
                config |= small | {"vgg": {**config["vgg"], "weights": gallery["vgg"]}}
            task: Task = build(config, "task")
            try:
                task.setup(str(Path("~/.cache/l2lgd").expanduser()), CPU, torch.float64)
            except DataUnavailable as error:
                unavailable(str(error))
            ready[name] = task
        return ready[name]

    return get


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest, tasks: Callable[[str], Task]) -> Task:
    return tasks(request.param)


def displaced(functions: Optimizee, seed: int = 1) -> torch.Tensor:
    """A point off the start, where gradients are not special."""
    initial = functions.initial_parameters
    return initial + 0.1 * torch.randn(initial.shape, generator=seeded(seed), dtype=initial.dtype)


def test_every_file_is_found() -> None:
    found = {f.stem for f in (CONF / "task").iterdir()}
    assert {"quadratic", "mnist"} <= set(TASKS) == found - {"mixture"}


# What the options of a YAML may break shows in the first checks; the others look at its class.
FIRST_CHECKS = TASK_CHECKS[:5]
CHECKED = thinned(
    [(task, check) for task in TASKS for check in TASK_CHECKS],
    [
        (task, check)
        for task in TASKS
        for check in (TASK_CHECKS if task in CLASSES_OF_TASKS else FIRST_CHECKS)
    ],
)


@pytest.mark.parametrize(("task", "check"), CHECKED, indirect=["task"])
def test_the_contract_holds(task: Task, check: Callable[[Task], None]) -> None:
    check(task)


SCALED = [level for level in LEVELS if level != "none"]
SCALED_TASKS = thinned(
    [(task, level) for task in TASKS for level in SCALED],
    [(task, SCALED[k % len(SCALED)]) for k, task in enumerate(TASKS)],
)


@pytest.mark.parametrize(("task", "level"), SCALED_TASKS, indirect=["task"])
def test_scaled_functions_begin_where_they_did_and_are_stacked(task: Task, level: str) -> None:
    scaled = Augmented(task, Augmentation([level], [[0.001, 1000]])).sample("train", B, seeded())
    own, theta = task.sample("train", B, seeded()), scaled.initial_parameters
    expected = own.loss(own.initial_parameters, 1)
    torch.testing.assert_close(scaled.loss(theta, 1), expected, rtol=1e-6, atol=0)
    alone = torch.cat([scaled.select(slice(k, k + 1)).loss(theta[k : k + 1], 1) for k in range(B)])
    torch.testing.assert_close(alone, expected, rtol=1e-6, atol=0)


def test_names_and_shapes_cover_every_coordinate_once(task: Task) -> None:
    functions = task.sample("train", B, seeded())
    parameters = displaced(functions)
    slices, named = functions.parameter_slices(), functions.unpack(parameters)
    assert list(slices) == list(named) == list(functions.shapes)
    end = 0
    for name, shape in functions.shapes.items():
        assert slices[name].start == end
        end = slices[name].stop
        assert named[name].shape == (B, *shape)
        assert named[name].flatten(1).equal(parameters[:, slices[name]])
    assert end == parameters.shape[1]


def test_the_functions_of_a_stack_differ(task: Task) -> None:
    functions = task.sample("train", B, seeded())
    same_place = displaced(functions)[:1].expand(B, -1)
    assert len(set(functions.loss(same_place, 0).tolist())) == B


ROWS = [slice(0, 1), slice(1, 3), slice(2, 3), slice(0, 3)]


@pytest.mark.parametrize("rows", thinned(ROWS, ROWS[1:2]))
def test_select_gives_the_same_functions(task: Task, rows: slice) -> None:
    functions = task.sample("train", B, seeded())
    parameters, chosen = displaced(functions), functions.select(rows)
    assert chosen.initial_parameters.equal(functions.initial_parameters[rows])
    assert chosen.stochastic == functions.stochastic
    for step in (0, 4):
        whole, part = functions.loss(parameters, step)[rows], chosen.loss(parameters[rows], step)
        torch.testing.assert_close(part, whole, rtol=1e-12, atol=0)


def test_select_of_a_selection_counts_from_the_selection(task: Task) -> None:
    functions = task.sample("train", 4, seeded())
    parameters = displaced(functions)
    chosen = functions.select(slice(1, 4)).select(slice(1, 2))
    torch.testing.assert_close(
        chosen.loss(parameters[2:3], 5), functions.loss(parameters, 5)[2:3], rtol=1e-12, atol=0
    )


LOWERED = thinned([n for n in TASKS if n not in LABELS_OF], CLASSES_OF_TASKS)


@pytest.mark.parametrize("task", LOWERED, indirect=True)
def test_gradient_descent_lowers_the_loss(task: Task) -> None:
    functions = task.sample("train", B, seeded())
    visited = run_steps(HandDesigned("Adam", 0.01), functions, 40)
    first, last = (
        sum(functions.loss(parameters, step) for step in range(10))  # minibatches may be small
        for parameters in (visited[0], visited[-1])
    )
    assert (last < first).all()


@pytest.mark.parametrize(
    ("distribution", "expected", "tolerance"), [("uniform", 10 / 3, 0.1), ("gaussian", 10, 0.5)]
)
def test_quadratics_start_at_the_mean_square_of_y(
    distribution: str, expected: float, tolerance: float
) -> None:
    functions = QuadraticTask(distribution=distribution).sample("train", 2000, seeded())
    mean = functions.loss(functions.initial_parameters, 0).mean().item()
    assert mean == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("condition_number", [1.0, 100.0])
def test_rotated_quadratics_have_their_condition_number(condition_number: float) -> None:
    task = QuadraticTask(dimension=6, distribution="rotated", condition_number=condition_number)
    task.setup("", torch.device("cpu"), torch.float64)
    found = task.sample("test", 50, torch.Generator().manual_seed(0))
    hessians = found.matrices.mT @ found.matrices
    expected = condition_number ** torch.linspace(-1, 0, 6, dtype=torch.float64)
    values = torch.linalg.eigvalsh(hessians)
    torch.testing.assert_close(values, expected.expand(50, 6), rtol=1e-4, atol=1e-7)
    # Every direction is as likely as any other: the mean Hessian is a multiple of the identity.
    mean = hessians.mean(0)
    assert (mean - mean.trace() / 6 * torch.eye(6, dtype=torch.float64)).abs().max() < 0.1


def test_scaled_quadratics_keep_their_condition_number_and_differ_in_curvature() -> None:
    task = QuadraticTask(dimension=4, distribution="rotated", scale_spread=100.0)
    task.setup("", torch.device("cpu"), torch.float64)
    matrices = task.sample("test", 400, seeded()).matrices
    values = torch.linalg.eigvalsh(matrices.mT @ matrices)
    assert values[:, -1] / values[:, 0] == pytest.approx(100.0, rel=1e-3)
    logarithms = values[:, -1].log10()
    assert -1.001 < logarithms.min() < -0.95
    assert 0.95 < logarithms.max() < 1.001
    assert logarithms.std().item() == pytest.approx(2 / 12**0.5, rel=0.1)  # uniform


def test_minima_that_are_near_are_at_a_distance_of_one() -> None:
    task = QuadraticTask(dimension=20, distribution="near", condition_number=1e4)
    task.setup("", CPU, torch.float64)
    functions = task.sample("test", 300, seeded())
    minima = torch.linalg.solve(functions.matrices, functions.targets)
    assert minima.square().sum(1).mean().item() == pytest.approx(1, abs=0.1)
    assert functions.loss(minima, 0).max() < 1e-12


def test_noise_of_quadratics_leaves_their_minimum_where_it_was() -> None:
    task = NoisyQuadraticTask(dimension=5, noise=0.5)
    task.setup("", CPU, torch.float64)
    functions = task.sample("train", B, seeded())
    theta = displaced(functions)
    displacements = functions.table
    clean = Quadratics(functions.matrices, functions.targets, functions.initial_parameters)
    each = [
        functions.on((torch.full((B, 1), row),)).loss_and_gradient(theta, 0)
        for row in range(len(displacements))
    ]
    loss, gradient = (torch.stack(parts).mean(0) for parts in zip(*each, strict=True))
    expected = clean.loss_and_gradient(theta, 0)
    torch.testing.assert_close(loss, expected[0] + 5 * 0.5**2)
    torch.testing.assert_close(gradient, expected[1])
    covariance = displacements.mT @ displacements / len(displacements)
    torch.testing.assert_close(
        covariance, 0.25 * torch.eye(5, dtype=torch.float64), atol=0.02, rtol=0
    )


def test_noise_of_quadratics_belongs_to_the_function_and_the_step() -> None:
    task = NoisyQuadraticTask(dimension=5)
    task.setup("", CPU, torch.float64)
    functions, again = (task.sample("train", B, seeded()) for _ in range(2))
    seen = [tuple(functions.rows.index(step).flatten().tolist()) for step in range(20)]
    assert seen == [tuple(again.rows.index(step).flatten().tolist()) for step in range(20)]
    assert len({row for rows in seen for row in rows}) > 50


def test_quadratics_are_the_squared_norm_of_the_residual() -> None:
    functions = QuadraticTask(dimension=3, distribution="gaussian").sample("train", 2, seeded())
    theta = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])
    for row in range(2):
        expected = 0.0
        for i in range(3):
            product = sum(functions.matrices[row, i, j] * theta[row, j] for j in range(3))
            expected += float(product - functions.targets[row, i]) ** 2
        assert functions.loss(theta, 0)[row].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in TASKS if name.startswith("mnist")])
def test_classifiers_start_at_chance(name: str, tasks: Callable[[str], Task]) -> None:
    functions = tasks(name).sample("train", B, seeded())
    loss = functions.loss(functions.initial_parameters, 0)
    assert loss.tolist() == pytest.approx([math.log(10)] * B, abs=0.05)


def test_the_papers_mnist_network_has_15910_weights(tasks: Callable[[str], Task]) -> None:
    assert tasks("mnist").sample("train", 1, seeded()).initial_parameters.shape == (1, 15910)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_classifiers_are_the_modules_that_torch_builds(
    activation: str, picture_folder: Path
) -> None:
    data = DataConfig(source="folder", root=str(picture_folder))
    task = ClassificationTask("tiny", data, [5, 4], activation, batch_size=7)
    task.setup("", CPU, torch.float64)
    functions = task.sample("train", B, seeded())
    parameters = displaced(functions)
    kind = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}[activation]
    for row in range(B):
        module = nn.Sequential(
            *(nn.Linear(784, 5), kind(), nn.Linear(5, 4), kind(), nn.Linear(4, 3))
        ).double()
        named = functions.unpack(parameters)
        for depth, linear in enumerate(module[::2]):
            linear.weight.data = named[f"layer{depth}.weight"][row].T.clone()
            linear.bias.data = named[f"layer{depth}.bias"][row].clone()
        for step in (0, 3):
            pixels, labels = functions.minibatch(step)
            expected = functional.cross_entropy(module(pixels[row].flatten(1)), labels[row])
            torch.testing.assert_close(functions.loss(parameters, step)[row], expected)


def test_minibatches_are_images_of_the_split_scaled_to_one(picture_folder: Path) -> None:
    data = DataConfig(source="folder", root=str(picture_folder))
    task = ClassificationTask("tiny", data, [2], batch_size=50)
    task.setup("", CPU, torch.float64)
    images = load_images(data, "", CPU)
    for split in ("train", "validation", "test"):
        functions = task.sample(split, B, seeded())
        known = {
            tuple(pixels.flatten().tolist()): label
            for pixels, label in zip(
                images[split].pixels, images[split].labels.tolist(), strict=True
            )
        }
        pixels, labels = functions.minibatch(0)
        assert pixels.shape == (B, 50, 28, 28)
        assert pixels.max() <= 1
        for image, label in zip((255 * pixels).round().int()[0], labels[0], strict=True):
            assert known[tuple(image.flatten().tolist())] == label


@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize("kind", ["mnist", "mnist_mixture", "cifar10"])
def test_every_classifier_has_every_data_set(kind: str, name: str, picture_folder: Path) -> None:
    """Alike in all: labels, examples, and a size."""
    own = [f"task.data.{k}" for k in (f"name={name}", "source=folder", "size=8")]
    words = [f"task={kind}", *own, "task.labels=[2,0]", "task.examples=20", "task.batch_size=8"]
    config = node("evaluate", "task", *words, f"task.data.root='{picture_folder}'", "opt=adam")
    task: Task = build(config, "task")
    task.setup("", CPU, torch.float64)
    functions = task.sample("train", 2, seeded())
    loss, gradient = functions.loss_and_gradient(functions.initial_parameters, 0)
    assert loss.tolist() == pytest.approx([math.log(2)] * 2, abs=0.1)
    assert gradient.isfinite().all()
    assert task.data_description()["labels"] == [2, 0]


def assert_disjoint(images: ImageSplits) -> None:
    seen = {
        split: {hashlib.sha256(image.numpy().tobytes()).digest() for image in part.pixels}
        for split, part in images.parts.items()
    }
    assert set(seen) == {"train", "validation", "test"}
    assert min(map(len, seen.values())) >= 400
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]


def test_functions_to_meta_train_on_have_drawn_labels() -> None:
    task = ClassificationTask(
        "digits", DataConfig(source="embedded"), [3], labels=[1, 3, 5, 7, 9], label_counts=[2, 4]
    )
    task.setup("", CPU)
    seen = set()
    for seed in range(30):
        functions = task.sample("train", B, seeded(seed))
        _, labels = functions.minibatch(0)
        count = functions.images.num_classes
        assert set(labels.flatten().tolist()) == set(range(count))
        assert functions.shapes["layer1.weight"] == (3, count)
        brightest = functions.images.pixels[functions.images.labels == 0].sum().item()
        seen.add((count, brightest))
    assert {count for count, _ in seen} == {2, 4}
    assert len(seen) > 5, "always the same labels"
    for split in ("validation", "test"):
        assert task.sample(split, B, seeded()).images.num_classes == 5


@pytest.mark.parametrize("count", [1, 11])
def test_numbers_of_labels_that_there_are_not_are_refused(count: int) -> None:
    task = ClassificationTask("x", DataConfig(source="embedded"), [3], label_counts=[2, count])
    with pytest.raises(ConfigError, match="label_counts"):
        task.setup("", CPU)


def test_splits_of_the_embedded_digits_share_no_image() -> None:
    assert_disjoint(load_images(DataConfig(source="embedded"), "", CPU))


def test_functions_of_all_splits_of_the_embedded_digits_are_equally_hard() -> None:
    task = ClassificationTask("digits", DataConfig(source="embedded"), [20])
    task.setup("", CPU)
    adam = HandDesigned("Adam", 0.03)
    losses = {}
    for split in ("train", "validation", "test"):
        functions = task.sample(split, 8, seeded())
        last = run_steps(adam, functions, 100)[-1]
        losses[split] = torch.stack([functions.loss(last, step) for step in range(90, 100)]).mean()
    assert max(losses.values()) < 1.4 * min(losses.values()), losses


def test_splits_of_mnist_share_no_image(mnist_dir: str) -> None:
    images = load_images(DataConfig(source="torchvision"), mnist_dir, CPU)
    assert images.description["num_examples"] == {
        "train": 55000,
        "validation": 5000,
        "test": 10000,
    }
    assert_disjoint(images)


@pytest.mark.parametrize(
    "options",
    [
        {"distribution": "cauchy"},
        {"dimension": 0},
        {"initial_std": -0.1},
        {"condition_number": 0.5},
        {"scale_spread": 0.5},
    ],
)
def test_quadratic_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        QuadraticTask(**options)


@pytest.mark.parametrize(
    "options",
    [{"activation": "softplus"}, {"hidden_layers": [0]}, {"batch_size": 0}, {"initial_std": -1.0}],
)
def test_classification_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ClassificationTask(**{"name": "x", "data": DataConfig(), "hidden_layers": [2], **options})
