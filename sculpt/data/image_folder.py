"""Image sets of your own: a folder per class, in a folder per split."""

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from sculpt.data.decoding import decode_images, image_size
from sculpt.data.image_tree import ImageTree
from sculpt.data.images import ImageArrays, ImageSpec
from sculpt.data.tensor_cache import load_tensor, save_tensor
from sculpt.errors import DataError, SculptWarning
from sculpt.registry import DATASETS

# Part of every cache key; raise it when decoding gives other pixels.
_DECODING_VERSION = 2


@DATASETS.register("image_folder")
class ImageFolder:
    """Images under `root/train/<class>/` and `root/test/<class>/`, at any depth below.

    Classes are numbered in alphabetical order, as `torchvision.datasets.ImageFolder` does; what is
    read of a tree says `ImageTree`, and of a file `decode_image`.
    The first `read` decodes every file and keeps the pixels in the user's cache folder;
    later ones take them from there until a file is added, removed, renamed or changed.

    Args:
        root: The folder that holds `train` and `test`. Required.
        size: Resize every image to size x size pixels. 0: keep their size, which must be one.
        channels: 3 for colour, 1 for grey. Files of the other kind are converted.

    Raises:
        DataError: `size` or `channels` is out of range.
    """

    def __init__(
        self,
        *,
        root: str = "",
        size: Annotated[int, Field(ge=0, le=8192)] = 0,
        channels: Literal[1, 3] = 3,
    ) -> None:
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
        tree = ImageTree(self._folder())
        height = width = self.size
        if not self.size:
            height, width = image_size(tree.images("train", tree.classes[0])[0])
        return ImageSpec(self.channels, height, width, len(tree.classes))

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

        Warns:
            SculptWarning: of some folders not everything is read; how much, and why.
        """
        tree = ImageTree(self._folder())
        paths, labels = [], {}
        for split in ("train", "test"):
            found = [tree.images(split, name) for name in tree.classes]
            paths += [path for listed in found for path in listed]
            labels[split] = _labels([len(listed) for listed in found])
        if left_out := tree.left_out():
            warnings.warn(left_out, SculptWarning, stacklevel=2)
        key = self._key(paths)
        images = load_tensor(key)
        if images is None:
            images = decode_images(paths, self.size, self.channels)
            save_tensor(key, images)
        train = len(labels["train"])
        return ImageArrays(
            train_images=images[:train],
            train_labels=labels["train"],
            test_images=images[train:],
            test_labels=labels["test"],
            class_names=tuple(tree.classes),
        )

    def _folder(self) -> Path:
        if not self.root:
            raise DataError(
                "image_folder must have a folder of images, but root is empty; "
                "name the folder that holds train/ and test/ with --set data.root=DIR"
            )
        return Path(self.root).expanduser().resolve()

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
            # A file that replaces another may have its size and its time of writing, but not the
            # number and the time of change that the file system gives it.
            facts = (
                len(name),
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_ino,
            )
            digest.update(f"{facts}/".encode() + name)
        return digest.hexdigest()[:32]


def _labels(sizes: list[int]) -> Tensor:
    """Return the labels of so many images of each class, one class after another."""
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
