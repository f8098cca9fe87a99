"""Neural art: the loss against modules of torch, and which photographs are painted."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from l2lgd.data.photographs import read_picture
from l2lgd.errors import ConfigError, DataUnavailable
from l2lgd.seeding import generator
from l2lgd.storage import checkpoint
from l2lgd.tasks import neural_art
from l2lgd.tasks.base import Optimizee
from l2lgd.tasks.neural_art import NeuralArtTask
from l2lgd.tasks.vgg import VGGConfig, layer_names

CPU = torch.device("cpu")
CONTENT_LAYERS, STYLE_LAYERS = ["conv2_2", "conv3_1"], ["conv1_1", "conv2_1", "conv4_2"]
B, SIZE = 3, 20


def task_of(gallery: dict[str, str], pooling: str = "average", **options: Any) -> NeuralArtTask:
    """The task on the small gallery, in float64."""
    chosen = {"content": gallery["content"], "style": gallery["style"], "size": SIZE, **options}
    vgg = VGGConfig("vgg16", gallery["vgg"], pooling)
    task = NeuralArtTask("art", vgg, CONTENT_LAYERS, STYLE_LAYERS, **chosen)
    task.setup("", CPU, torch.float64)
    return task


def module(path: str, pooling: str) -> tuple[nn.Sequential, list[str]]:
    """VGG-16 as torch builds it, and the name of each of its parts."""
    tensors, about = checkpoint.load(Path(path))
    parts, names, block = [], [], "1"
    for name in layer_names("vgg16"):
        if name[4] != block:
            parts.append(nn.AvgPool2d(2) if pooling == "average" else nn.MaxPool2d(2))
            names.append("pool")
            block = name[4]
        weight = tensors[f"{name}.weight"]
        convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        convolution.weight.data, convolution.bias.data = weight, tensors[f"{name}.bias"]
        parts += [convolution, nn.ReLU()]
        names += ["convolution", name]
    assert (about["mean"], about["std"]) == ([120.0] * 3, [60.0] * 3)
    return nn.Sequential(*parts).double(), names


def features(path: str, pooling: str, image: Tensor) -> dict[str, Tensor]:
    """Of one image (3, height, width), each (C, height', width')."""
    network, names = module(path, pooling)
    maps, found = ((image - 120) / 60).unsqueeze(0), {}
    for name, part in zip(names, network, strict=True):
        maps = part(maps)
        found[name] = maps[0]
    return found


def gram(maps: Tensor) -> Tensor:
    return torch.einsum("chw,dhw->cd", maps, maps) / maps[0].numel()


def relative(found: Tensor, target: Tensor) -> Tensor:
    return (found - target).pow(2).sum() / target.pow(2).sum()


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_the_loss_is_what_its_definition_says(gallery: dict[str, str], pooling: str) -> None:
    weights = {"content_weight": 0.7, "style_weight": 1.3, "smoothness_weight": 0.4, "scale": 3.0}
    task = task_of(gallery, pooling, **weights)
    functions = task.sample("test", B, generator(0))
    images = functions.unpack(functions.initial_parameters)["image"]
    losses = functions.loss(functions.initial_parameters, 0)
    painted = features(gallery["vgg"], pooling, task.painting.double())
    for row in range(B):
        own = features(gallery["vgg"], pooling, images[row])
        kept = features(gallery["vgg"], pooling, functions.photographs[row])
        content = sum(relative(own[name], kept[name]) for name in CONTENT_LAYERS) / 2
        style = sum(relative(gram(own[name]), gram(painted[name])) for name in STYLE_LAYERS) / 3
        image = images[row]
        across = (image[:, :, 1:] - image[:, :, :-1]).pow(2).mean()
        down = (image[:, 1:] - image[:, :-1]).pow(2).mean()
        expected = 0.7 * content + 1.3 * style + 0.4 * (across + down) / 100**2
        torch.testing.assert_close(losses[row], 3 * SIZE**2 * expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_images_go_through_the_network_in_any_number(
    gallery: dict[str, str], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions = task_of(gallery).sample("train", 5, generator(0))
    parameters = functions.initial_parameters
    vector = torch.randn(parameters.shape, generator=generator(1), dtype=parameters.dtype)
    expected = Optimizee.loss_and_gradient(functions, parameters, 0)
    curved = Optimizee.hessian_product(functions, parameters, 0, vector)
    monkeypatch.setitem(neural_art.CHUNK_PIXELS, "cpu", count * SIZE**2)
    torch.testing.assert_close(functions.loss_and_gradient(parameters, 0), expected)
    torch.testing.assert_close(functions.hessian_product(parameters, 0, vector), curved)


def test_the_photograph_has_no_content_loss_and_the_painting_no_style_loss(
    gallery: dict[str, str],
) -> None:
    only = {"style_weight": 0.0, "smoothness_weight": 0.0}
    functions = task_of(gallery, **only).sample("test", B, generator(0))
    assert functions.loss(functions.photographs.flatten(1), 0).tolist() == [0.0] * B
    task = task_of(gallery, content_weight=0.0, smoothness_weight=0.0, style=gallery["style"])
    functions = task.sample("test", 1, generator(0))
    painting = task.painting.double().unsqueeze(0)
    content = task.style_loss.content_of(painting)
    assert task.style_loss(painting, content).item() == pytest.approx(0.0, abs=1e-20)
    assert functions.loss(functions.initial_parameters, 0).item() > 1


def test_held_out_photographs_come_in_order_others_at_random(gallery: dict[str, str]) -> None:
    task = task_of(gallery, zoom=1.0)
    files = task.files["test"]
    assert [file.name for file in files] == ["0.png", "1.png", "2.png"]
    functions = task.sample("test", 4, generator(0))
    for row, file in enumerate([*files, files[0]]):
        whole = read_picture(file, SIZE).double()
        crops = whole.unfold(1, SIZE, 1)  # a portrait: all its squares, from the top down
        same = (crops.permute(1, 0, 3, 2) == functions.photographs[row]).all(-1).all(-1).all(-1)
        assert same.any()
    seen = {
        tuple(task.sample("train", 1, generator(seed)).photographs.mean((0, 2, 3)).tolist())
        for seed in range(12)
    }
    assert len(seen) > 4


def test_it_begins_with_noise_or_with_the_content(gallery: dict[str, str]) -> None:
    noise = task_of(gallery, initial_std=25.0).sample("test", 40, generator(0))
    images = noise.unpack(noise.initial_parameters)["image"]
    mean = torch.tensor(neural_art.MEAN_PIXEL, dtype=torch.float64)
    torch.testing.assert_close(images.mean((0, 2, 3)), mean, rtol=0, atol=1)
    assert images.std((0, 2, 3)).tolist() == pytest.approx([25] * 3, rel=0.02)
    content = task_of(gallery, initial="content").sample("test", B, generator(0))
    assert content.initial_parameters.equal(content.photographs.flatten(1))


def test_the_description_names_pictures_network_and_stand_in(gallery: dict[str, str]) -> None:
    found = task_of(gallery).data_description()
    assert found["name"] == "content in the style of painting"
    assert found["num_examples"] == {"train": 4, "validation": 2, "test": 3}
    assert found["network"] == "vgg16, random, average pooling"
    assert found["note"] == "features: vgg16, random"
    other = task_of(gallery, style=str(Path(gallery["content"]) / "test" / "0.png"))
    assert other.data_description()["digest"] != found["digest"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": 8}, "size"),
        ({"style_size": 3}, "style_size"),
        ({"zoom": 0.9}, "zoom"),
        ({"initial": "zeros"}, "initial"),
        ({"initial_std": -1.0}, "initial_std"),
    ],
)
def test_options_out_of_range_are_refused(
    gallery: dict[str, str], options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        task_of(gallery, **options)


def test_a_layer_that_the_network_lacks_is_refused(gallery: dict[str, str]) -> None:
    vgg = VGGConfig("vgg16", gallery["vgg"])
    names = (gallery["content"], gallery["style"])
    task = NeuralArtTask("art", vgg, ["conv3_4"], STYLE_LAYERS, *names)
    with pytest.raises(ConfigError, match=r"conv3_4.*conv3_3"):
        task.setup("", CPU)


@pytest.mark.parametrize("change", ["missing", "other", "incomplete"])
def test_weights_that_cannot_be_had_end_with_the_ways_out(
    gallery: dict[str, str], change: str, tmp_path: Path
) -> None:
    file = tmp_path / "vgg.safetensors"
    tensors, about = checkpoint.load(Path(gallery["vgg"]))
    if change == "other":
        checkpoint.save(file, tensors, {"opt": "lstm"})
    if change == "incomplete":
        checkpoint.save(file, {k: v for k, v in tensors.items() if "conv2" not in k}, about)
    with pytest.raises(DataUnavailable, match=r"hed_weights\.py"):
        task_of({**gallery, "vgg": str(file)})


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "vgg99"},
        {"network": ["vgg16"]},
        {"mean": 1.0},
        {"std": ["a"] * 3},
        {"mean": [1]},
    ],
)
def test_weights_that_say_what_none_do_are_refused_whatever_their_hash(
    gallery: dict[str, str], changes: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "vgg.safetensors"
    tensors, about = checkpoint.load(Path(gallery["vgg"]))
    checkpoint.save(file, tensors, about | changes)
    with pytest.raises(DataUnavailable, match=r"hed_weights\.py"):
        task_of({**gallery, "vgg": str(file)})


@pytest.mark.parametrize("name", ["conv1_1.weight", "conv3_2.bias"])
def test_layers_that_do_not_fit_each_other_are_refused(
    gallery: dict[str, str], name: str, tmp_path: Path
) -> None:
    file = tmp_path / "vgg.safetensors"
    tensors, about = checkpoint.load(Path(gallery["vgg"]))
    checkpoint.save(file, {**tensors, name: tensors[name][1:]}, about)
    with pytest.raises(DataUnavailable, match=f"{name.partition('.')[0]} does not fit"):
        task_of({**gallery, "vgg": str(file)})
