"""Images of another size, with colours or without."""

import numpy as np
import pytest
import torch
from PIL import Image

from l2lgd.data.pixels import coloured, resized


def random_images(*shape: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)


@pytest.mark.parametrize("size", [1, 3, 8, 13, 40])
@pytest.mark.parametrize("shape", [(28, 28), (5, 9), (32, 32, 3)])
def test_a_constant_image_stays_constant(shape: tuple[int, ...], size: int) -> None:
    shades = torch.tensor([0, 1, 127, 254, 255], dtype=torch.uint8)
    images = shades.view(5, *[1] * len(shape)).expand(5, *shape)
    found = resized(images, size)
    assert found.shape == (5, size, size, *shape[2:])
    assert found.dtype == torch.uint8
    assert all((image == shade).all() for image, shade in zip(found, shades, strict=True))


@pytest.mark.parametrize("size", [1, 3, 8, 13, 28, 40])
def test_the_mean_brightness_is_kept(size: int) -> None:
    images = random_images(1500, 28, 28)
    means = [part.double().mean((1, 2)) for part in (images, resized(images, size))]
    assert (means[0] - means[1]).abs().max() <= 0.5, "more than rounding can do"
    assert (means[0] - means[1]).mean().abs() < 0.05, "rounding goes to one side"


def test_a_pixel_is_the_mean_of_its_area() -> None:
    """Against the plain way: every pixel cut into 8 × 8 equal ones, these into areas of 28 × 28."""
    images = random_images(3, 28, 28, 3)
    cut = images.double().repeat_interleave(8, 1).repeat_interleave(8, 2)
    expected = cut.unflatten(2, (8, 28)).unflatten(1, (8, 28)).mean((2, 4))
    assert (resized(images, 8).double() - expected).abs().max() <= 0.5


def test_every_image_is_resized_by_itself() -> None:
    images = random_images(1100, 6, 5)
    found = resized(images, 4)
    for index in (0, 1023, 1024, 1099):
        assert found[index].equal(resized(images[index : index + 1], 4)[0])


def test_larger_images_have_their_pixels_repeated() -> None:
    images = random_images(2, 4, 4)
    assert resized(images, 8).equal(images.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_nothing_changes_where_nothing_is_asked_for() -> None:
    grey, colour = random_images(2, 8, 8), random_images(2, 8, 8, 3)
    for images, colours in ((grey, False), (grey, None), (colour, True), (colour, None)):
        assert coloured(images, colours) is images
        assert resized(images, 8) is resized(images, None) is images


def test_grey_images_survive_colours() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(4, 8, 8)
    colour = coloured(images, True)
    assert colour.shape == (4, 8, 8, 3)
    assert all(colour[..., channel].equal(images) for channel in range(3))
    assert coloured(colour, False).equal(images)


def test_grey_is_what_pil_makes_of_colours() -> None:
    images = random_images(1100, 8, 8, 3)
    for index in (0, 1099):
        expected = np.asarray(Image.fromarray(images[index].numpy()).convert("L"))
        assert coloured(images, False)[index].equal(torch.from_numpy(expected.copy()))
