"""Image sets of your own: a folder per class, in a folder per split."""

import hashlib
import json
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sculpt.data.images import ImageArrays, ImageSpec
from sculpt.data.tensor_cache import load_tensor, save_tensor
from sculpt.errors import DataError
from sculpt.registry import DATASETS

# Part of every cache key; raise it when decoding gives other pixels.
_DECODING_VERSION = 1

# Decoding holds no Python lock, so two threads are nearly twice as fast as one.
_THREADS = 2
_FILES_PER_TASK = 256

# Raised by Pillow for files that are truncated, damaged, forbidden or no image.
_DECODING_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)

_Listing = list[tuple[str, int]]  # file path, class index


@DATASETS.register("image_folder")
class ImageFolder:
    """Images under `root/train/<class>/` and `root/test/<class>/`, at any depth below.

    Classes are numbered in alphabetical order, as `torchvision.datasets.ImageFolder` does.
    The first `read` decodes every file and keeps the pixels in the user's cache folder;
    later ones take them from there until a file is added, removed, renamed or changed.

    Args:
        root: The folder that holds `train` and `test`. Required.
        size: Resize every image to size x size pixels. 0: keep their size, which must be one.
        channels: 3 for colour, 1 for grey. Files of the other kind are converted.

    Raises:
        DataError: `size` or `channels` is out of range.
    """

    def __init__(self, *, root: str = "", size: int = 0, channels: int = 3) -> None:
        if channels not in (1, 3):
            raise DataError(
                f"channels must be 3 (colour) or 1 (grey), but got {channels}; choose one of them"
            )
        if size < 0:
            raise DataError(
                f"size must be a number of pixels, or 0 for the images' own, but got {size}; "
                "change it or leave it out"
            )
        self.root = root
        self.size = size
        self.channels = channels

    def describe(self) -> ImageSpec:
        """Find the shape and classes from the class folders and one image.

        Raises:
            DataError: a folder is missing or empty, or that image is unreadable.
        """
        classes = self._classes()
        height = width = self.size
        if not self.size:
            first, _ = self._list("train", classes[:1])[0]
            height, width = image_size(first)
        return ImageSpec(self.channels, height, width, len(classes))

    def available(self) -> str | None:
        """Describe a fault of the folders; None without one."""
        try:
            self.describe()
        except DataError as error:
            return str(error)
        return None

    def read(self) -> ImageArrays:
        """Read all images, from the cache if no file has changed since they were decoded.

        Raises:
            DataError: a folder is missing or empty, an image is unreadable, or sizes differ.
        """
        classes = self._classes()
        train, test = self._list("train", classes), self._list("test", classes)
        paths = [path for path, _ in train + test]
        key = self._key(paths)
        images = load_tensor(key)
        if images is None:
            images = decode_images(paths, self.size, self.channels)
            save_tensor(key, images)
        return ImageArrays(
            train_images=images[: len(train)],
            train_labels=_labels(train),
            test_images=images[len(train) :],
            test_labels=_labels(test),
            class_names=tuple(classes),
        )

    def _folder(self) -> Path:
        if not self.root:
            raise DataError(
                "image_folder must have a folder of images, but root is empty; "
                "name the folder that holds train/ and test/ with --set data.root=DIR"
            )
        return Path(self.root).expanduser().resolve()

    def _classes(self) -> list[str]:
        # Imported here because it takes seconds, and listing the data sets must not.
        from torchvision.datasets.folder import find_classes

        found: dict[str, list[str]] = {}
        for split in ("train", "test"):
            folder = self._folder() / split
            try:
                found[split], _ = find_classes(folder)
            except OSError as error:
                raise DataError(
                    f"{folder} must hold one folder of images per class, but it "
                    f"{'holds none' if folder.is_dir() else 'is not a folder'}; sort the images "
                    "into train/<class>/ and test/<class>/, or correct data.root"
                ) from error
        only_one = sorted(set(found["train"]) ^ set(found["test"]))
        if only_one:
            raise DataError(
                "train and test must hold the same class folders, but only one of them under "
                f"{self._folder()} holds: {', '.join(only_one)}; add or remove those folders"
            )
        return found["train"]

    def _list(self, split: str, classes: list[str]) -> _Listing:
        from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

        folder = self._folder() / split
        indices = {name: index for index, name in enumerate(classes)}
        try:
            return make_dataset(folder, indices, extensions=IMG_EXTENSIONS)
        except FileNotFoundError as error:
            raise DataError(
                f"every class folder under {folder} must hold images, but torchvision says: "
                f"{error}; add images or remove the folder from both train and test"
            ) from error

    def _key(self, paths: list[str]) -> str:
        root = self._folder()
        options = [_DECODING_VERSION, str(root), self.size, self.channels]
        digest = hashlib.sha256(json.dumps(options).encode())
        for path in paths:
            try:
                status = os.stat(path)
            except OSError as error:
                raise DataError(
                    f"every image must be a readable file, but {path} is not ({error.strerror}); "
                    "restore it or remove it"
                ) from error
            # With lengths, because names may hold any character.
            name = os.fsencode(os.path.relpath(path, root))
            digest.update(f"/{len(name)}/{status.st_size}/{status.st_mtime_ns}/".encode() + name)
        return digest.hexdigest()[:32]


def _labels(listing: _Listing) -> Tensor:
    return torch.tensor([label for _, label in listing], dtype=torch.int64)


def decode_images(paths: Sequence[str], size: int, channels: int) -> Tensor:
    """Decode at least one file into one tensor: uint8, (len(paths), channels, height, width).

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
        # Results come in order, so the first of several faulty files is always named.
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
    """Read height and width of an image in pixels from its header.

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
