"""Image files to pixels, many at a time."""

import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sculpt.errors import DataError

# Decoding holds no Python lock, so two threads are nearly twice as fast as one.
_THREADS = 2
_FILES_PER_TASK = 256

# What Pillow raises on files that are truncated, damaged, forbidden or no image at all.
_DECODING_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


def decode_images(paths: Sequence[str], size: int, channels: int) -> Tensor:
    """Decode files into one tensor, in their order.

    Args:
        paths:
            Image files; at least one.
        size:
            Resize to size x size, or 0 for the common size of all files.
        channels:
            1 for grey, 3 for colour.

    Returns:
        uint8, (len(paths), channels, height, width).

    Raises:
        DataError: a file is unreadable, or sizes differ and `size` is 0.
    """
    height, width = (size, size) if size else image_size(paths[0])
    pixels = np.empty((len(paths), channels, height, width), dtype=np.uint8)

    def decode_range(start: int) -> None:
        for index in range(start, min(start + _FILES_PER_TASK, len(paths))):
            image = decode_image(paths[index], size, channels)
            if image.shape[1:] != (height, width):
                raise DataError(
                    "all images must have one size (width x height), but "
                    f"{paths[0]} has {width}x{height} and {paths[index]} has "
                    f"{image.shape[2]}x{image.shape[1]}; resize them with --set data.size=PIXELS"
                )
            pixels[index] = image

    with ThreadPoolExecutor(_THREADS) as pool:
        # Results come in order, so of several faulty files the first is always the one named.
        list(pool.map(decode_range, range(0, len(paths), _FILES_PER_TASK)))
    return torch.from_numpy(pixels)


def decode_image(path: str, size: int, channels: int) -> np.ndarray:
    """Decode one file to uint8 (channels, height, width), resized if `size` is not 0.

    Raises:
        DataError: the file is unreadable, or has more than 8 bits per channel.
    """
    try:
        with Image.open(path) as opened:
            image: Image.Image = opened
            # Pillow would clip such pixels at 255, and most of the image with them.
            if image.mode.startswith(("I", "F")):
                raise DataError(
                    f"images must have 8 bits per channel, but {path} has Pillow's mode "
                    f"{image.mode!r}; convert it to an 8-bit file"
                )
            # Straight to RGB or grey, Pillow warns about palettes with transparent entries.
            if "transparency" in image.info:
                image = image.convert("RGBA")
            image = image.convert("RGB" if channels == 3 else "L")
            if size and image.size != (size, size):
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
    except _DECODING_FAULTS as error:
        raise _unreadable(path, error) from error
    return pixels.transpose(2, 0, 1) if channels == 3 else pixels[None]


def image_size(path: str) -> tuple[int, int]:
    """Return height and width of an image in pixels, reading no more than its header.

    Raises:
        DataError: the file is unreadable.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except _DECODING_FAULTS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> DataError:
    return DataError(
        f"every file must be an intact image, but {path} cannot be decoded "
        f"({type(error).__name__}: {error}); replace or remove it"
    )
