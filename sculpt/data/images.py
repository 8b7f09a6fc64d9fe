"""Inputs in memory: arrays as read from files, and sets that networks are fed from."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from sculpt.data.task import CLASSIFICATION, Task
from sculpt.errors import DataError
from sculpt.seeding import derive_seed

EVERYTHING = slice(None)


TargetKind = Literal["classes", "numbers"]


@dataclass(frozen=True)
class ImageSpec:
    """Shape of the images of a data set, and number of its classes."""

    channels: int
    height: int
    width: int
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.channels, self.height, self.width

    @property
    def outputs(self) -> int:
        """Numbers that a network returns for one image: a logit for each class."""
        return self.classes

    @property
    def targets(self) -> TargetKind:
        """They have classes."""
        return "classes"

    @property
    def pixels(self) -> bool:
        """They are images of 8 bits, which can be augmented."""
        return True


@dataclass(frozen=True)
class TensorSpec:
    """The same of any other data set: other inputs than images, or other targets than classes."""

    shape: tuple[int, ...]
    """Shape of one input, channels (or features) first."""
    outputs: int
    targets: TargetKind
    pixels: bool


Spec = ImageSpec | TensorSpec


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """A whole data set as read from its files, before any split.

    Most are images with classes; any other inputs and targets have the same names here.

    Args:
        train_images: uint8, (N, C, H, W); or other inputs, finite float32, (N, C, ...).
        train_labels: int64, (N,), each the index of a class name; or finite float32, (N, K).
        test_images: (M, ...), of the same type and shape.
        test_labels: (M, ...).
        class_names: One name per class, in the order of the labels; none for other targets.

    Raises:
        DataError: a shape, type or label breaks these rules.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_images("train", self.train_images, self.train_labels)
        _check_images("test", self.test_images, self.test_labels)
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise DataError(
                "training and test images must have one shape, but they have "
                f"{tuple(self.train_images.shape[1:])} and {tuple(self.test_images.shape[1:])} "
                "(channels, height, width); resize one of them"
            )
        for what in ("images", "labels"):
            train, test = getattr(self, f"train_{what}"), getattr(self, f"test_{what}")
            if train.dtype != test.dtype or (
                what == "labels" and train.shape[1:] != test.shape[1:]
            ):
                raise DataError(
                    f"training and test {what} must be of one kind, but they are {train.dtype} of "
                    f"shape {tuple(train.shape)} and {test.dtype} of shape {tuple(test.shape)}; "
                    "convert one of them"
                )
        if self.train_labels.dtype == torch.int64:
            _check_labels("train", self.train_labels, len(self.class_names))
            _check_labels("test", self.test_labels, len(self.class_names))

    @property
    def spec(self) -> Spec:
        """The shape of one input, and how many numbers networks return for it."""
        shape = tuple(self.train_images.shape[1:])
        pixels = self.train_images.dtype == torch.uint8
        if self.train_labels.dtype != torch.int64:
            return TensorSpec(shape, self.train_labels.shape[1], "numbers", pixels)
        if not pixels:
            return TensorSpec(shape, len(self.class_names), "classes", pixels)
        channels, height, width = shape
        return ImageSpec(channels, height, width, len(self.class_names))


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images on one device, normalised when a batch is taken; or other inputs so.

    As uint8 they take a quarter of the memory and bandwidth; converting a batch to floats costs
    next to nothing beside the network's own work.

    Args:
        images: uint8, (N, C, H, W); or float32, (N, C, ...).
        labels: int64, (N,); or float32, (N, K).
        mean: float32, (C,), in units where a pixel lies between 0 and 1.
        std: float32, (C,), in the same units, positive.
        task: What networks learn from them.

    Raises:
        DataError: a shape or a type is wrong, or the tensors are on several devices.
    """

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    task: Task = CLASSIFICATION

    def __post_init__(self) -> None:
        _check_images("image set's", self.images, self.labels)
        for name, statistic in (("mean", self.mean), ("std", self.std)):
            if statistic.dtype != torch.float32 or statistic.shape != self.images.shape[1:2]:
                raise DataError(
                    f"{name} must hold one float32 per channel ({self.images.shape[1]}), but got "
                    f"{statistic.dtype} of shape {tuple(statistic.shape)}; measure it per channel"
                )
        tensors = (self.images, self.labels, self.mean, self.std)
        devices = sorted({str(tensor.device) for tensor in tensors})
        if len(devices) > 1:
            raise DataError(
                "images, labels, mean and std must be on one device, but they are on "
                f"{', '.join(devices)}; move them together, with ImageSet.to(device)"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def device(self) -> torch.device:
        """Device of the images and of their batches."""
        return self.images.device

    def to(self, device: torch.device | str) -> "ImageSet":
        """Copy the images to `device`."""
        tensors = (self.images, self.labels, self.mean, self.std)
        images, labels, mean, std = (tensor.to(device) for tensor in tensors)
        return ImageSet(images, labels, mean, std, self.task)

    def normalize(self, images: Tensor) -> Tensor:
        """Compute `(images / 255 - mean) / std`; of other inputs than pixels, without the 255.

        Args:
            images: Inputs (..., C, H, W), or of the other shape of this set, on its device.

        Returns:
            float32 of the same shape; a batch (4-d) is channels-last, the fastest layout for
            convolutions.
        """
        layout = torch.channels_last if images.dim() == 4 else torch.contiguous_format
        along = (-1, *[1] * (self.images.dim() - 2))
        if images.dtype != torch.uint8:
            return ((images - self.mean.view(along)) / self.std.view(along)).contiguous(
                memory_format=layout
            )
        pixels = images.to(torch.float32, memory_format=layout)
        # The factor 255 is moved onto the two small vectors: one pass over the pixels less.
        return pixels.sub_((self.mean * 255).view(along)).div_((self.std * 255).view(along))

    def sample(self, count: int | None, *, seed: int) -> "ImageSet":
        """Draw `count` images without replacement; keep the statistics of all.

        Without more than `count` images, or if it is None: all of them, in their order.
        """
        if count is None or count >= len(self):
            return self
        generator = torch.Generator().manual_seed(derive_seed(seed, "sample"))
        chosen = torch.randperm(len(self), generator=generator)[:count].to(self.device)
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def inputs(self, indices: Tensor | slice = EVERYTHING) -> Tensor:
        """Normalise the chosen images, or all: float32, (n, C, H, W), channels-last."""
        return self.normalize(self.images[indices])

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once, in order, as `(inputs, labels)`; the last may be smaller.

        Raises:
            DataError: `batch_size` is below 1.
        """
        if batch_size < 1:
            raise DataError(f"batch_size must be at least 1, but got {batch_size}; raise it")
        # Not by `yield`, which would raise only when first iterated, far from the mistake.
        windows = (slice(start, start + batch_size) for start in range(0, len(self), batch_size))
        return ((self.inputs(window), self.labels[window]) for window in windows)


def _check_images(which: str, images: Tensor, labels: Tensor) -> None:
    pixels = images.dtype == torch.uint8 and images.dim() == 4
    if not pixels and (images.dtype != torch.float32 or images.dim() < 2):
        raise DataError(
            f"{which} images must be uint8 of shape (N, C, H, W), but got {images.dtype} of "
            f"shape {tuple(images.shape)}; scale pixels to 0..255 and add the missing axes, or "
            "give other inputs as float32 of shape (N, C, ...)"
        )
    classes = labels.dtype == torch.int64 and labels.dim() == 1
    numbers = labels.dtype == torch.float32 and labels.dim() == 2
    if not (classes or numbers) or len(labels) != len(images):
        raise DataError(
            f"{which} labels must be one int64 per image ({len(images)}), but got {labels.dtype} "
            f"of shape {tuple(labels.shape)}; give each image the index of its class, or other "
            "targets as float32 of shape (N, K)"
        )


def _check_labels(which: str, labels: Tensor, classes: int) -> None:
    if len(labels) == 0:
        return  # `make_splits` reports an empty set, and what it is needed for
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise DataError(
            f"{which} labels must lie in 0..{classes - 1} (one per class name), but they span "
            f"{lowest}..{highest}; renumber the labels or name every class"
        )
