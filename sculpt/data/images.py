"""Images in memory: arrays as read from files, and sets that networks are fed from."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sculpt.errors import DataError
from sculpt.seeding import derive_seed

EVERYTHING = slice(None)


@dataclass(frozen=True)
class ImageSpec:
    """Shape of the images of a data set, and number of its classes."""

    channels: int
    height: int
    width: int
    classes: int


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """A whole data set as read from its files, before any split.

    Args:
        train_images: uint8, (N, C, H, W).
        train_labels: int64, (N,), each the index of a class name.
        test_images: uint8, (M, C, H, W).
        test_labels: int64, (M,).
        class_names: One name per class, in the order of the labels.

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
        _check_labels("train", self.train_labels, len(self.class_names))
        _check_labels("test", self.test_labels, len(self.class_names))

    @property
    def spec(self) -> ImageSpec:
        """The shape of one image and the number of classes."""
        channels, height, width = self.train_images.shape[1:]
        return ImageSpec(channels, height, width, len(self.class_names))


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images on one device, normalised when a batch is taken.

    As uint8 they take a quarter of the memory and bandwidth; converting a batch to floats costs
    next to nothing beside the network's own work.

    Args:
        images: uint8, (N, C, H, W).
        labels: int64, (N,).
        mean: float32, (C,), in units where a pixel lies between 0 and 1.
        std: float32, (C,), in the same units, positive.

    Raises:
        DataError: a shape or a type is wrong, or the tensors are on several devices.
    """

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor

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
        return ImageSet(*(tensor.to(device) for tensor in tensors))

    def normalize(self, images: Tensor) -> Tensor:
        """Compute `(images / 255 - mean) / std`.

        Args:
            images: uint8 pixels, (..., C, H, W), on this set's device.

        Returns:
            float32 of the same shape; a batch (4-d) is channels-last, the fastest layout for
            convolutions.
        """
        layout = torch.channels_last if images.dim() == 4 else torch.contiguous_format
        pixels = images.to(torch.float32, memory_format=layout)
        # The factor 255 is moved onto the two small vectors: one pass over the pixels less.
        return pixels.sub_((self.mean * 255).view(-1, 1, 1)).div_((self.std * 255).view(-1, 1, 1))

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
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise DataError(
            f"{which} images must be uint8 of shape (N, C, H, W), but got {images.dtype} of "
            f"shape {tuple(images.shape)}; scale pixels to 0..255 and add the missing axes"
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{which} labels must be one int64 per image ({len(images)}), but got {labels.dtype} "
            f"of shape {tuple(labels.shape)}; give each image the index of its class"
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
