"""Images of another size, with colours or without.

All of it is arithmetic of whole numbers, so that every machine has the same images.
"""

import torch
from torch import Tensor

LUMINANCE = (19595, 38470, 7471)  # of red, green and blue, in 1/65536: PIL's (ITU-R 601-2)
AT_ONCE = 1024  # images, to bound memory


def coloured(pixels: Tensor, colours: bool | None) -> Tensor:
    """Grey images with three equal channels, or images with colours by their luminance.

    Args:
        pixels: (N, height, width), with colours (N, height, width, 3); uint8.
        colours: whether the images are to have some; None for as they are.

    Returns:
        (N, height, width, 3) or (N, height, width), uint8.
    """
    if colours is None or colours == (pixels.dim() == 4):
        return pixels
    if colours:
        return pixels.unsqueeze(3).expand(*pixels.shape, 3).contiguous()
    return torch.cat([_luminance(part) for part in pixels.split(AT_ONCE)])


def _luminance(pixels: Tensor) -> Tensor:
    channels = zip(pixels.int().unbind(3), LUMINANCE, strict=True)
    weighted = torch.stack([channel * weight for channel, weight in channels])
    return ((weighted.sum(0, dtype=torch.int32) + 32768) >> 16).to(torch.uint8)


def resized(pixels: Tensor, size: int | None) -> Tensor:
    """Images of ``size`` × ``size`` pixels, each the mean of the area that it covers, rounded.

    A pixel that lies in several areas counts in each by its share. So the mean brightness is kept,
    and what becomes larger has its pixels repeated.

    Args:
        pixels: (N, height, width), with colours (N, height, width, 3); uint8.
        size: None for the size that they have.
    """
    height, width = pixels.shape[1:3]
    if size is None or (height, width) == (size, size):
        return pixels
    rows, columns = _shares(height, size), _shares(width, size)
    area, found = height * width, []
    for part in pixels.split(AT_ONCE):
        planes = part.view(*part.shape[:3], -1).permute(0, 3, 1, 2).double()
        # Sums of whole numbers below 2**53: exact, in whatever order they are added.
        sums = (planes.reshape(-1, width) @ columns.T).view(-1, height, size)
        sums = (sums.mT.reshape(-1, height) @ rows.T).view(len(part), -1, size, size)
        means = torch.div(2 * sums.long() + area, 2 * area, rounding_mode="floor")
        new = means.to(torch.uint8).permute(0, 3, 2, 1)
        found.append(new.reshape(len(part), size, size, *part.shape[3:]))
    return torch.cat(found)


def _shares(before: int, after: int) -> Tensor:
    """How much of each of ``before`` pixels lies in each of ``after``: (after, before).

    The unit is 1/after of a pixel, so that these are whole numbers; rows add up to ``before``.
    """
    new, old = torch.arange(after).unsqueeze(1) * before, torch.arange(before) * after
    end = torch.minimum(new + before, old + after)
    return (end - torch.maximum(new, old)).clamp(min=0).double()
