"""Modules of PyTorch as tasks; those of the documentation first."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import l2lgd, unavailable
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from l2lgd.config.building import build
from l2lgd.data.examples import load_examples
from l2lgd.errors import ConfigError, DataUnavailable
from l2lgd.seeding import generator
from l2lgd.tasks.base import Task
from l2lgd.tasks.joined import join
from l2lgd.tasks.module import ModuleTask

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "modules.md"
DATA = str(Path("~/.cache/l2lgd").expanduser())
CPU = torch.device("cpu")
B = 3


def blocks(language: str) -> list[str]:
    """Code of the page."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package and the YAML files of the page."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").touch()
    (folder / "mine" / "models.py").write_text("\n\n".join(blocks("python")), encoding="utf-8")
    (folder / "conf" / "task").mkdir(parents=True)
    for text in blocks("yaml"):
        name = yaml.safe_load(text)["name"]
        (folder / "conf" / "task" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def test_no_task_of_the_page_is_longer_than_ten_lines_of_each() -> None:
    assert len(blocks("python")) == len(blocks("yaml")) == 4
    for text in (*blocks("python"), *blocks("yaml")):
        lines = [line for line in text.splitlines() if line.strip()]
        own = [line for line in lines if not line.startswith(("import ", "from "))]
        assert len(own) <= 10, text


@pytest.mark.parametrize("name", ["rows", "residual", "recurrent", "walks"])
def test_tasks_of_the_page_are_stacked(
    package: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(package))
    told = yaml.safe_load((package / "conf" / "task" / f"{name}.yaml").read_text(encoding="utf-8"))
    if "data" in told:
        told["data"]["source"] = "embedded"
    task: ModuleTask = build(told, "task", ["mine"], Task)  # type: ignore[type-abstract, assignment]
    ready(task)
    sys.modules.pop("mine", None)
    assert task.network.stacked
    functions = task.sample("train", B, seeded())
    theta = functions.initial_parameters
    theta = theta + 0.1 * torch.randn(theta.shape, generator=seeded(1), dtype=theta.dtype)
    loss, gradient = functions.loss_and_gradient(theta, 1)
    product = functions.hessian_product(theta, 1, gradient)
    task.network.stacked = False
    for row in range(B):
        own = functions.select(slice(row, row + 1))
        here = theta[row : row + 1]
        torch.testing.assert_close(own.loss_and_gradient(here, 1)[0], loss[row : row + 1])
        torch.testing.assert_close(own.loss_and_gradient(here, 1)[1], gradient[row : row + 1])
        expected = own.hessian_product(here, 1, gradient[row : row + 1])
        torch.testing.assert_close(product[row : row + 1], expected)


def test_a_task_of_the_page_is_meta_trained_on(package: Path) -> None:
    options = "meta_steps=2 unroll.lengths=[3] num_steps=6 validation_functions=2 logger=none"
    words = ["--config-dir", "conf", "allow_targets=[mine]", "task=walks", "opt=nn_adam"]
    done = l2lgd("meta-train", *words, *options.split(), cwd=package)
    assert done.returncode == 0, done.stderr
    assert "best validation loss" in done.stderr
    failed = l2lgd("meta-train", *words, *options.split(), "task.dataset.count=2", cwd=package)
    assert failed.returncode == 2
    assert failed.stderr.strip().count("\n") == 0
    assert "task.dataset has 2 examples" in failed.stderr


def seeded(seed: int = 0) -> torch.Generator:
    return generator(seed, "test")


def points() -> tuple[Tensor, Tensor]:
    """Of three classes."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(60, 8, generator=draw), torch.randint(0, 3, (60,), generator=draw)


def ready(task: Task) -> Any:
    try:
        task.setup(DATA, CPU, torch.float64)
    except DataUnavailable as error:
        unavailable(str(error))
    return task


def of(module: Callable[[], Any], **options: Any) -> Any:
    return ready(ModuleTask("own", module, **{"dataset": points, "batch_size": 16, **options}))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3))


class Sequence(nn.Module):
    """Eight numbers, one after the other."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn, self.read = kind(1, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.rnn(x.unsqueeze(2))[0][:, -1])


def test_a_loss_is_that_of_the_module_itself() -> None:
    task = of(perceptron)
    functions = task.sample("train", B, seeded())
    theta = functions.initial_parameters
    inputs, labels = functions.minibatch(2)
    for row in range(B):
        own, module = functions.select(slice(row, row + 1)), perceptron().double()
        pieces = own.unpack(theta[row : row + 1])
        module.load_state_dict(
            {name: p[0].mT if p.dim() > 2 else p[0] for name, p in pieces.items()}
        )
        expected = nn.functional.cross_entropy(module(inputs[row]), labels[row])
        torch.testing.assert_close(own.loss(theta[row : row + 1], 2)[0], expected)


def test_initial_weights_are_those_that_the_module_draws_and_nobody_elses() -> None:
    task = of(perceptron)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    functions = task.sample("train", 2, seeded())
    assert torch.get_rng_state().equal(before)
    assert functions.initial_parameters.equal(task.sample("train", 2, seeded()).initial_parameters)
    assert not functions.initial_parameters[0].equal(functions.initial_parameters[1])
    assert functions.initial_parameters.abs().max() < 1 / 5**0.5  # of nn.Linear's initial weights


def test_functions_evaluated_in_parts_are_the_same() -> None:
    functions = of(perceptron).sample("train", 5, seeded())
    theta = functions.initial_parameters
    expected = functions.loss_and_gradient(theta, 1)
    functions.at_once = 2
    for found, whole in zip(functions.loss_and_gradient(theta, 1), expected, strict=True):
        torch.testing.assert_close(found, whole)


def test_functions_of_several_draws_are_joined() -> None:
    task = of(perceptron, noise=0)
    one, other = task.sample("train", 2, seeded(1)), task.sample("train", 1, seeded(2))
    together = join([one, other], [0, 4])
    assert type(together) is type(one)
    theta = together.initial_parameters
    expected = torch.cat([one.loss(theta[:2], 6), other.loss(theta[2:], 2)])
    torch.testing.assert_close(together.loss(theta, 6), expected)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_what_cannot_be_stacked_runs_one_after_the_other(
    kind: type[nn.RNNBase], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    task = of(lambda: Sequence(kind))
    assert not task.network.stacked
    assert f"{kind.__name__.lower()} cannot be stacked" in caplog.text
    functions = task.sample("train", B, seeded())
    loss, gradient = functions.loss_and_gradient(functions.initial_parameters, 1)
    assert loss.shape == (B,)
    assert gradient.abs().sum(1).min() > 0


def test_noise_belongs_to_the_function_and_the_step() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Linear(8, 3)

        def forward(self, x: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
            assert noise.shape == (len(x), 2)
            return nn.functional.cross_entropy(self.read(x) + noise.sum(1, True), labels)

    task = of(Noisy, loss="module", noise=2)
    functions = task.sample("train", B, seeded())
    noise = functions.minibatch(3)[1]
    assert noise.equal(functions.minibatch(3)[1])
    assert not noise.equal(functions.minibatch(4)[1])
    assert not noise[0].equal(noise[1])
    assert noise[1:2].equal(functions.select(slice(1, 2)).minibatch(3)[1])


def test_all_examples_at_every_step() -> None:
    functions = of(perceptron, batch_size=None).sample("train", B, seeded())
    assert not functions.stochastic
    assert functions.minibatch(0)[0].shape == (B, 48, 8)
    theta = functions.initial_parameters
    assert functions.loss(theta, 0).equal(functions.loss(theta, 7))


def test_buffers_and_frozen_weights_are_kept_and_not_trained() -> None:
    def frozen() -> nn.Module:
        module = perceptron()
        module[0].weight.requires_grad_(False)
        return module

    functions = of(frozen).sample("train", 2, seeded())
    assert set(functions.shapes) == {"0.bias", "2.weight", "2.bias"}
    first = functions.constants["0.weight"]
    assert not first[0].equal(first[1])
    theta = functions.initial_parameters
    alone = functions.select(slice(1, 2)).loss(theta[1:], 0)
    torch.testing.assert_close(alone, functions.loss(theta, 0)[1:])


class Scaled(nn.Module):
    """With a parameter that is one number, and a complex buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.size = nn.Linear(8, 3), nn.Parameter(torch.tensor(2.0))
        self.register_buffer("turn", torch.polar(torch.ones(3), torch.arange(3.0)))

    def forward(self, x: Tensor) -> Tensor:
        return self.size * (self.read(x) * self.turn).imag


class Drawn(nn.Module):
    """It keeps what it draws in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.order = nn.Linear(8, 3), torch.randperm(8).tolist()

    def forward(self, x: Tensor) -> Tensor:
        return self.read(x[:, self.order])


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = perceptron()

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.net, x, use_reentrant=False)


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 3, sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed((10 * x.abs()).long().clamp(max=49)).sum(1)


def test_parameters_of_one_number_and_complex_buffers() -> None:
    task = of(Scaled)
    assert task.network.stacked
    functions = task.sample("train", B, seeded())
    assert functions.shapes["size"] == ()
    assert functions.constants["turn"].dtype == torch.complex128
    assert functions.unpack(functions.initial_parameters)["size"].tolist() == [2.0] * B


def test_products_with_the_hessian_are_made_in_parts() -> None:
    functions = of(perceptron).sample("train", 5, seeded())
    theta = functions.initial_parameters
    expected = functions.hessian_product(theta, 1, theta)
    functions.at_once = 2
    torch.testing.assert_close(functions.hessian_product(theta, 1, theta), expected)


def test_labels_may_be_probabilities_or_of_any_whole_type() -> None:
    inputs, labels = points()
    whole = of(perceptron).sample("train", B, seeded())
    theta = whole.initial_parameters
    expected = whole.loss(theta, 1)
    for kind in (torch.uint8, torch.int32):
        other = of(perceptron, dataset=lambda k=kind: (inputs, labels.to(k)))
        torch.testing.assert_close(other.sample("train", B, seeded()).loss(theta, 1), expected)
    shares = nn.functional.one_hot(labels, 3).double()
    soft = of(perceptron, dataset=lambda: (inputs, shares)).sample("train", B, seeded())
    torch.testing.assert_close(soft.loss(theta, 1), expected)
    arrays = of(perceptron, dataset=lambda: (inputs.numpy(), labels.numpy()))
    torch.testing.assert_close(arrays.sample("train", B, seeded()).loss(theta, 1), expected)


def detached(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.detach().sum()


def for_each(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.sum(1)


def infinite(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.sum() / 0


def random(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs * torch.randn_like(outputs)).sum()


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(8, 3), nn.Dropout(0.5)), {}, "1 has dropout of 0.5"),
        (lambda: nn.TransformerEncoderLayer(8, 2), {}, "self_attn has dropout of 0.1"),
        (lambda: nn.Linear(5, 3), {}, "Linear fails on a minibatch of tensors"),
        (lambda: nn.Linear(8, 3), {"loss": "mse"}, "gives (16, 3) and targets are (16,)"),
        (lambda: nn.Linear(8, 3), {"loss": "hinge"}, "loss=hinge: choose one of cross_entropy"),
        (lambda: nn.Linear(8, 3), {"loss": for_each}, "has shape (16,); it must be one number"),
        (lambda: nn.Linear(8, 3), {"loss": detached}, "does not depend on the parameters"),
        (lambda: nn.Linear(8, 3), {"loss": infinite}, "not finite at the start"),
        (lambda: nn.Linear(8, 3), {"loss": random}, "gives another loss each time"),
        (lambda: nn.Linear(8, 3), {"loss": lambda o, t: o.sum().item()}, "loss: it is float"),
        (lambda: nn.Linear(8, 3), {"loss": lambda o, t: (o / 0).sum() * 0}, "not finite"),
        (Drawn, {}, "must be a parameter or a buffer"),
        (Checkpointed, {}, "leave out torch.utils.checkpoint"),
        (Sparse, {}, "Sparse has no gradient"),
        (lambda: nn.LazyLinear(3), {}, "weight has no size yet"),
        (lambda: nn.Linear(8, 3, dtype=torch.complex64), {}, "weight is complex"),
        (lambda: nn.utils.spectral_norm(nn.Linear(8, 3)), {}, "or changes itself"),
        (lambda: nn.Linear(8), {}, "it cannot be built: TypeError"),
        (perceptron, {"dataset": lambda: 1 / 0}, "it cannot be made: ZeroDivisionError"),
        (perceptron, {"dataset": lambda: ({"x": 1}, 2)}, "has a part of dict"),
        (lambda: 3, {}, "it builds int"),
        (lambda: nn.ReLU(), {}, "ReLU has no parameters"),
        (perceptron, {"dataset": lambda: 3}, "dataset is int: it must be a tuple of tensors"),
        (perceptron, {"dataset": lambda: torch.zeros(2)}, "dataset has 2 examples"),
    ],
)
def test_mistakes_are_found_at_set_up(module: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        of(module, **options)
    assert message in str(caught.value)
    assert str(caught.value).startswith("task.")
    assert "\n" not in str(caught.value)


class Pairs(Dataset):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((2,), float(index)), index


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        return iter(())


def test_examples_of_splits_are_apart() -> None:
    parts = load_examples(Pairs())
    assert {split: len(part[0]) for split, part in parts.items()} == {
        "train": 16,
        "validation": 2,
        "test": 2,
    }
    assert sorted(int(i) for part in parts.values() for i in part[1]) == list(range(20))
    for inputs, index in parts.values():
        assert inputs[:, 0].equal(index.float())


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (Endless(), "has no length"),
        ([torch.zeros(3), torch.zeros(4)], "tensors of [3, 4] examples"),
        ({"train": torch.zeros(3)}, "it needs train, validation, test"),
        (TensorDataset(torch.zeros(0, 2)), "has no examples"),
    ],
)
def test_other_data_is_one_error(found: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_examples(found)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ({"_target_": "os.system"}, "is outside mine, l2lgd.tasks"),
        ({"_target_": "helpers.l2lgd"}, "is outside mine, l2lgd.tasks"),
        ({"_target_": "l2lgd.tasks.module.ModuleTask"}, "is no Module"),
        ({"_target_": "l2lgd.tasks.functional.LOSSES"}, "is not a class"),
    ],
)
def test_functions_as_arguments_are_checked(module: Any, message: str) -> None:
    told = {"_target_": "l2lgd.tasks.module.ModuleTask", "name": "own", "module": module}
    with pytest.raises(ConfigError, match=re.escape(message)):
        build(told, "task", ["mine"], Task)  # type: ignore[type-abstract]
