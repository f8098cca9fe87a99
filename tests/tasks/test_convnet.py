"""The convnet of section 3.3: against modules of torch, whichever way it is computed."""

import math

import pytest
import torch
from helpers import OPTIMIZEES, optimizer, optimizer_node
from torch import Tensor, nn
from torch.nn import functional

from l2lgd.config.building import build
from l2lgd.data.images import Images
from l2lgd.data.sources import DataConfig
from l2lgd.errors import ConfigError
from l2lgd.kernels.normalised_pool import normalised_pool, plain
from l2lgd.meta.estimators.replay import replay
from l2lgd.meta.estimators.textbook import textbook
from l2lgd.meta.rollout import rollout, start
from l2lgd.meta.schedules import Unroll
from l2lgd.tasks.convnet import ConvNet, ConvNetTask
from l2lgd.tasks.images import Classifiers
from l2lgd.tasks.minibatches import Minibatches

B, CLASSES, EPSILON = 3, 4, 1e-3


COLOUR, GREY = (7, 6, 3), (7, 6)


def functions(
    dtype: torch.dtype = torch.float64,
    examples: int | None = None,
    spread: float = 0.3,
    image: tuple[int, ...] = COLOUR,
) -> Classifiers:
    """Small convnets on random images of an odd size, to be pooled to 4 × 3, then 2 × 2."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, *image), generator=draw, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (60,), generator=draw)
    network = ConvNet(image, CLASSES, [5, 8], 3, 6, EPSILON)
    n = sum(torch.Size(shape).numel() for shape in network.shapes.values())
    initial = (spread * torch.randn(B, n, generator=draw)).to(dtype)
    images = Images(pixels, labels, CLASSES)
    return Classifiers(images, network, Minibatches(60, 16, 1, B, examples=examples), initial)


def module(named: dict[str, Tensor], row: int, colours: int) -> nn.Module:
    """The same network as torch builds it."""
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate([(colours, 5), (5, 8)]):
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        convolution.weight.data = named[f"conv{index}.weight"][row]
        convolution.bias.data = named[f"conv{index}.bias"][row]
        norm = nn.BatchNorm2d(outputs, eps=EPSILON)
        norm.bias.data = named[f"conv{index}.offset"][row]
        layers += [convolution, norm, nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
    hidden, output = nn.Linear(32, 6), nn.Linear(6, CLASSES)
    norm = nn.BatchNorm1d(6, eps=EPSILON)
    norm.bias.data = named["hidden.offset"][row]
    for name, linear in (("hidden", hidden), ("output", output)):
        linear.weight.data = named[f"{name}.weight"][row].T
        linear.bias.data = named[f"{name}.bias"][row]
    return nn.Sequential(*layers, nn.Flatten(), hidden, norm, nn.ReLU(), output).double()


@pytest.mark.parametrize("image", [COLOUR, GREY])
def test_it_is_the_network_that_torch_builds(image: tuple[int, ...]) -> None:
    stacked, colours = functions(image=image), 3 if image == COLOUR else 1
    parameters = stacked.initial_parameters
    losses, gradients = stacked.loss_and_gradient(parameters, 3)
    pixels, labels = stacked.minibatch(3)
    named, found = stacked.unpack(parameters), stacked.unpack(gradients)
    for row in range(B):
        own = module(named, row, colours)
        channels_first = pixels[row].view(-1, 7, 6, colours).permute(0, 3, 1, 2)
        loss = functional.cross_entropy(own(channels_first), labels[row])
        loss.backward()
        torch.testing.assert_close(losses[row], loss.detach())
        for index, layer in ((0, own[0]), (1, own[4])):
            torch.testing.assert_close(found[f"conv{index}.weight"][row], layer.weight.grad)
            torch.testing.assert_close(
                found[f"conv{index}.bias"][row], layer.bias.grad, rtol=0, atol=1e-12
            )
            offset = own[4 * index + 1].bias.grad
            torch.testing.assert_close(found[f"conv{index}.offset"][row], offset)
        torch.testing.assert_close(found["hidden.weight"][row].T, own[9].weight.grad)
        torch.testing.assert_close(found["output.weight"][row].T, own[12].weight.grad)


@pytest.mark.parametrize("image", [COLOUR, GREY])
def test_convolutions_in_groups_give_the_same(image: tuple[int, ...]) -> None:
    stacked = functions(image=image)
    parameters = stacked.initial_parameters.requires_grad_()
    pixels, _ = stacked.minibatch(0)
    network, named = stacked.network, stacked.unpack(parameters)
    images = pixels.movedim(-1, 2) if image == COLOUR else pixels.unsqueeze(2)
    together = network._together(named, images)  # what a GPU does
    alone = torch.stack([network._alone(named, row, x) for row, x in enumerate(images)])
    torch.testing.assert_close(together, alone)
    draw = torch.randn(alone.shape, generator=torch.Generator().manual_seed(0), dtype=alone.dtype)
    torch.testing.assert_close(
        *(torch.autograd.grad((part * draw).sum(), parameters) for part in (together, alone))
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(8, 3, 5, 7), (4, 16, 8, 8), (5, 25, 6, 6), (3, 19, 1, 2)])
def test_the_kernel_is_what_torch_does(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    images = (3 * torch.randn(shape, generator=draw) + 10).to(dtype).requires_grad_()
    offset = torch.randn(shape[1], generator=draw).to(dtype).requires_grad_()
    fast, slow = (form(images, offset, EPSILON) for form in (normalised_pool, plain))
    cotangent = torch.randn(slow.shape, generator=draw).to(dtype)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {}
    torch.testing.assert_close(fast, slow, **tolerance)
    torch.testing.assert_close(
        *(torch.autograd.grad(out, (images, offset), cotangent) for out in (fast, slow)),
        **tolerance,
    )


def test_the_kernel_has_second_derivatives() -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 4, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    offset = torch.randn(3, generator=draw, dtype=torch.float64, requires_grad=True)

    def pooled(x: Tensor, y: Tensor) -> Tensor:
        return normalised_pool(x, y, EPSILON)

    assert torch.autograd.gradcheck(pooled, (images, offset))
    assert torch.autograd.gradgradcheck(pooled, (images, offset))


def test_the_kernel_gives_the_same_bits_with_two_threads() -> None:
    images = torch.randn(9, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    images.requires_grad_()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        out = normalised_pool(images, torch.ones(16), EPSILON)
        found.append((out, *torch.autograd.grad(out.square().sum(), images)))
    torch.set_num_threads(1)
    assert all(one.equal(two) for one, two in zip(*found, strict=True))


def test_what_is_not_a_number_is_not_lost() -> None:
    images = torch.zeros(2, 3, 4, 4)
    images[0, 1, 3, 3] = math.nan
    found = normalised_pool(images, torch.ones(3), EPSILON)
    assert found[:, 1].isnan().any()


@pytest.mark.parametrize("second_derivatives", [False, True])
@pytest.mark.parametrize("name", ["lstm", "lstm_odd"])
def test_the_meta_gradient_of_two_optimizers_is_that_of_the_textbook_loop(
    name: str, second_derivatives: bool
) -> None:
    config = optimizer_node("lstm_per_group")
    config["groups"][0]["match"] = "conv*.weight"
    config["optimizers"] = dict.fromkeys(("conv", "rest"), optimizer_node(name))
    found, objective = [], Unroll([4]).objective(8)
    for way in ("replay", "textbook"):
        learned = build(config, "opt").double()
        learned.reset_parameters(torch.Generator().manual_seed(3))
        at = start(learned, functions(), block_size=50)
        if way == "replay":
            record, _ = rollout(at, 4, second_derivatives)
            replay(record, objective)
        else:
            textbook(at, 4, objective, second_derivatives)
        found.append({key: weight.grad for key, weight in learned.named_parameters()})
    largest = max(gradient.norm() for gradient in found[1].values())
    for key, slow in found[1].items():
        difference = (found[0][key] - slow).norm()
        assert difference <= 1e-10 * slow.norm() + 1e-14 * largest, key


@pytest.mark.parametrize("name", ["quadratics", "convnets"])
def test_differences_of_gradients_come_close_to_second_derivatives(name: str) -> None:
    optimizee = functions() if name == "convnets" else OPTIMIZEES[name]()
    learned = optimizer("lstm")
    found = []
    for difference in (0.0, 1e-7):
        learned.zero_grad(set_to_none=True)
        record, _ = rollout(start(learned, optimizee), 4, keep_path=True)
        replay(record, Unroll([4]).objective(4), 1.0, difference)
        found.append(torch.cat([w.grad.flatten() for w in learned.parameters()]))
    learned.zero_grad(set_to_none=True)
    record, _ = rollout(start(learned, optimizee), 4)
    replay(record, Unroll([4]).objective(4))
    first_order = torch.cat([w.grad.flatten() for w in learned.parameters()])
    exact, near = found
    assert (near - exact).norm() < 1e-2 * (first_order - exact).norm()


def test_functions_have_examples_of_their_own() -> None:
    few = functions(examples=5)
    seen = [set(), set(), set()]
    for step in range(40):
        pixels, _ = few.minibatch(step)
        for row in range(B):
            seen[row] |= {image.numpy().tobytes() for image in pixels[row]}
    assert [len(images) for images in seen] == [5, 5, 5]
    assert len(seen[0] | seen[1] | seen[2]) > 5
    part = few.select(slice(1, 3))
    assert part.minibatch(7)[0].equal(few.minibatch(7)[0][1:3])
    assert len(functions(examples=1000).minibatch(0)[0]) == B  # more than there are: all of them


def test_the_papers_convnet_has_22682_weights() -> None:
    network = ConvNet((32, 32, 3), 10, [16, 16, 16], 5, 32, EPSILON)
    sizes = {name: torch.Size(shape).numel() for name, shape in network.shapes.items()}
    assert sum(sizes.values()) == 22682
    assert (
        sum(s for name, s in sizes.items() if name.startswith("conv") and "weight" in name) == 14000
    )


@pytest.mark.parametrize(
    "options",
    [
        *({"channels": []}, {"kernel_size": 4}, {"hidden_units": 0}, {"epsilon": 0.0}),
        *({"batch_size": 1}, {"initial_std": -1.0}, {"examples": 0}),
    ],
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ConvNetTask(**{"name": "x", "data": DataConfig("cifar10"), "channels": [2], **options})


@pytest.mark.parametrize("size", [1, 2, 8])
@pytest.mark.parametrize("colours", [False, True])
def test_no_image_is_too_small_to_be_pooled(colours: bool, size: int) -> None:
    data = DataConfig(source="embedded", size=size, colours=colours)
    task = ConvNetTask("tiny", data, [4, 4, 4], labels=[3, 1, 8], examples=50, batch_size=10)
    task.setup("", torch.device("cpu"))
    for split in ("train", "validation", "test"):
        stacked = task.sample(split, 2, torch.Generator().manual_seed(0))
        loss, gradient = stacked.loss_and_gradient(stacked.initial_parameters, 0)
        assert loss.tolist() == pytest.approx([math.log(3)] * 2, abs=0.1)
        assert gradient.isfinite().all()
        assert stacked.shapes["conv0.weight"] == (4, 3 if colours else 1, 5, 5)
        assert stacked.images.num_classes == 3
