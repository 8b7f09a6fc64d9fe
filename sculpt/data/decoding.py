"""Image files to pixels, within bounds: of the types that are read, of 8 bits, upright."""

import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from PIL import ExifTags, Image, TiffImagePlugin
from torch import Tensor

from sculpt.errors import DataError
from sculpt.files import check_file

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's readers, by its names; it has others for files that no image set holds."""

MOST_PIXELS = 2**26
"""Largest image: 8192 × 8192. Cameras stay below it."""

MOST_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
"""Largest set of images: half of this machine's memory, because splits are copied."""

# Decoding holds no Python lock, so two threads are nearly twice as fast as one.
_THREADS = 2
_FILES_PER_TASK = 256

# Raised by Pillow for files that are truncated, damaged, forbidden or no image.
_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
)
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn an image upright, by the orientation in its EXIF block; those from 5 on lie down."""


def decode_images(paths: Sequence[str], size: int, channels: int) -> Tensor:
    """Decode at least one file into one tensor: uint8, (len(paths), channels, height, width).

    Raises:
        DataError: a file is unreadable, sizes differ and `size` is 0, or the images are too large.
    """
    height, width = (size, size) if size else image_size(paths[0])
    shape = (len(paths), channels, height, width)
    if np.prod(shape, dtype=float) > MOST_BYTES:
        raise DataError(
            f"the images must fit into half of this machine's memory ({MOST_BYTES / 2**30:.1f} "
            f"GiB), but {len(paths)} images of {width}x{height} pixels take "
            f"{np.prod(shape, dtype=float) / 2**30:.1f} GiB; make them smaller with --set "
            "data.size=PIXELS"
        )
    pixels = np.empty(shape, dtype=np.uint8)

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

    with _bombs_raised(), ThreadPoolExecutor(_THREADS) as pool:
        # Results come in order, so the first of several faulty files is always named.
        list(pool.map(decode_range, range(0, len(paths), _FILES_PER_TASK)))
    return torch.from_numpy(pixels)


def decode_image(path: str, size: int, channels: int) -> np.ndarray:
    """Decode one file to uint8 (channels, height, width), resized if `size` is not 0.

    An image that was taken lying down or upside down, by its EXIF orientation, is turned upright.

    Raises:
        DataError: the file is unreadable or too large, or has more than 8 bits per channel.
    """
    with _opened(path) as opened:
        opened.load()
        image: Image.Image = opened
        if (turn := _UPRIGHT.get(_orientation(opened))) is not None:
            image = image.transpose(turn)
        # Straight to RGB or grey, Pillow warns about palettes with transparent entries.
        if "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert("RGB" if channels == 3 else "L")
        if size and image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels.transpose(2, 0, 1) if channels == 3 else pixels[None]


def image_size(path: str) -> tuple[int, int]:
    """Read height and width of an image in pixels, as it stands upright, from its header.

    Raises:
        DataError: the file is unreadable or too large, or has more than 8 bits per channel.
    """
    with _bombs_raised(), _opened(path) as image:
        # Pillow turns TIFF files by itself, and has their size upright from the beginning.
        lies = image.format != "TIFF" and _orientation(image) >= 5
        return (image.width, image.height) if lies else (image.height, image.width)


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """Open an image within the bounds; nothing of its pixels is read yet."""
    try:
        check_file(path)
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height}")
            if _is_deep(image):
                raise DataError(
                    f"images must have 8 bits per channel, but {path} has more (Pillow's mode "
                    f"{image.mode!r}); convert it to an 8-bit file"
                )
            yield image
    except _TOO_LARGE as error:
        raise DataError(
            f"an image must have at most {MOST_PIXELS} pixels, but {path} has more ({error}); make "
            "it smaller, or remove it"
        ) from error
    except _FAULTS as error:
        raise DataError(
            f"every file must be an intact image, but {path} cannot be decoded "
            f"({type(error).__name__}: {error}); replace or remove it"
        ) from error


@contextmanager
def _bombs_raised() -> Iterator[None]:
    """Let Pillow raise its warning of huge images. Not in a thread: filters are the process's."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _is_deep(image: Image.Image) -> bool:
    """Tell whether an image has more than 8 bits per channel.

    Pillow would clip such pixels at 255, and most of the image with them; of colours it keeps the
    upper 8 bits, and dark ones become black.
    """
    if image.mode.startswith(("I", "F")):
        return True
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) > 8
    arguments = [tile[3] for tile in getattr(image, "tile", [])]
    if image.format == "PPM":  # with the largest value
        return any(isinstance(given, tuple) and given[1] > 255 for given in arguments)
    return any(";16" in str(given) for given in arguments)


def _orientation(image: Image.Image) -> int:
    """Return the orientation in the EXIF block, 1 to 8; 1 where there is none, or a damaged one."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _FAULTS:
        return 1
    return found if found in _UPRIGHT else 1
