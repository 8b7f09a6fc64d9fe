"""Random flips, shifts, cut-out squares and blends for a whole batch at once, on its own device."""

import numpy as np
import torch
from torch import Tensor

from sculpt.errors import DataError


def augment(
    images: Tensor, *, flip: bool, translate: int, cutout: int, generator: torch.Generator
) -> Tensor:
    """Augment a copy of a batch, each image by draws of its own.

    Pixels that are shifted in or erased are 0: black for uint8, the mean for normalised images.
    Flip, shift and square are composed into one lookup of source pixels and one fill, without
    synchronising with the host.

    Args:
        images: uint8 or float, (N, C, H, W). Returned as they are when everything is off.
        flip: Mirror left-right with probability 1/2.
        translate: Shift by up to this many pixels along each axis, every shift equally likely.
        cutout: Side of one square, in pixels, erased at a random place entirely inside the image.
        generator: Source of all randomness, on the images' device.

    Raises:
        DataError: `translate` or `cutout` is negative or too large for the images.
    """
    height, width = images.shape[-2:]
    _check_extent("translate", translate, min(height, width) - 1)
    _check_extent("cutout", cutout, min(height, width))

    result, wiped = images, None
    if flip or translate:
        result, wiped = _move(images, flip, translate, generator)
    if cutout:
        square = _squares(images, cutout, generator)
        wiped = square if wiped is None else wiped | square
    if wiped is None:
        return result
    if result is images:
        result = images.clone()
    # In place, because the copying fill forgets a channels-last layout.
    return result.masked_fill_(wiped, 0)


def blend_share(
    shape: tuple[int, ...], *, mixup: float, cutmix: float, draws: np.random.Generator
) -> Tensor:
    """Draw the share that an image keeps of itself when it is blended with another.

    Args:
        shape: Of one input, channels first.
        mixup: α of Beta(α, α), of one share for all pixels (Zhang et al. 2018); 0 is never.
        cutmix: α of Beta(α, α), of a rectangle around a uniform centre that is the other image's,
            clipped at the border (Yun et al. 2019); 0 is never. With both, either, by chance.
        draws: Source of all randomness.

    Returns:
        float32 on the CPU: (height, width) of images, where pixels are 0 or 1, or one number.
    """
    height, width = (1, *shape)[-2:] if len(shape) > 2 else (1, 1)
    share = torch.ones(height, width)
    if mixup and not (cutmix and draws.integers(2)):
        share.fill_(draws.beta(mixup, mixup))
    elif cutmix:
        side = (1 - draws.beta(cutmix, cutmix)) ** 0.5
        (top, bottom), (left, right) = (
            sorted(
                np.clip(draws.integers(length) + np.array([-1, 1]) * side * length / 2, 0, length)
            )
            for length in (height, width)
        )
        share[round(top) : round(bottom), round(left) : round(right)] = 0
    return share if len(shape) > 2 else share[0, 0]


def _move(
    images: Tensor, flip: bool, translate: int, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Flip and shift images; also return where no source pixel was (N, 1, H, W)."""
    count, channels, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(count, height)
    columns = torch.arange(width, device=device).expand(count, width)
    outside = None
    # From an output pixel back to its source, a flip that comes first is undone last.
    mirrored = _integers(0, 2, count, generator, device).bool() if flip else None
    if translate:
        rows = rows - _integers(-translate, translate + 1, count, generator, device)
        columns = columns - _integers(-translate, translate + 1, count, generator, device)
        lost_rows = (rows < 0) | (rows >= height)
        lost_columns = (columns < 0) | (columns >= width)
        outside = (lost_rows[:, :, None] | lost_columns[:, None, :])[:, None]
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    if mirrored is not None:
        columns = torch.where(mirrored, width - 1 - columns, columns)

    sources = (rows[:, :, None] * width + columns[:, None, :]).reshape(count, 1, height * width)
    moved = images.reshape(count, channels, height * width).gather(
        2, sources.expand(count, channels, height * width)
    )
    moved = moved.view(images.shape)
    if images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous():
        moved = moved.contiguous(memory_format=torch.channels_last)
    return moved, outside


def _squares(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Draw a mask (N, 1, H, W), True in one square of each image."""
    count, _, height, width = images.shape
    device = images.device
    tops = _integers(0, height - side + 1, count, generator, device)
    lefts = _integers(0, width - side + 1, count, generator, device)
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    in_rows = (rows >= tops) & (rows < tops + side)
    in_columns = (columns >= lefts) & (columns < lefts + side)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def _integers(
    low: int, high: int, count: int, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Draw one integer in low..high-1 per image, as a column (count, 1)."""
    return torch.randint(low, high, (count, 1), generator=generator, device=device)


def _check_extent(name: str, pixels: int, most: int) -> None:
    if not 0 <= pixels <= most:
        raise DataError(
            f"{name} must lie between 0 and {most} pixels for images of this size, but got "
            f"{pixels}; change it, or set it to 0 to switch it off"
        )
