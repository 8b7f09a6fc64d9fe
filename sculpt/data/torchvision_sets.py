"""MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN, from their original files.

torchvision knows the files, their checksums and where to download them; this file only
says where to look and turns what comes back into plain arrays.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, ClassVar

import torch
from filelock import FileLock
from torch import Tensor

from sculpt.data.images import ImageArrays, ImageSpec
from sculpt.errors import DataError
from sculpt.registry import DATASETS

# What torchvision's readers raise on missing, truncated or foreign files, and on a download
# that fails half-way (URLError is an OSError, HTTPException is not).
_READ_FAULTS = (OSError, RuntimeError, ValueError, AssertionError, EOFError, HTTPException)


@dataclass(frozen=True)
class _Source:
    """Where one data set's files are, and how torchvision hands its pixels over."""

    reader: str  # class in torchvision.datasets
    spec: ImageSpec
    files: tuple[str, ...]  # relative to the root; without all of them nothing can be read
    channels_first: bool = False  # pixels come as (N, C, H, W), not as (N, H, W[, C])


def _idx_files(folder: str) -> tuple[str, ...]:
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    return tuple(f"{folder}/raw/{part}-{kind}" for part in ("train", "t10k") for kind in kinds)


class _TorchvisionSet:
    """What the five kinds share.

    Args:
        root: Folder the files lie in, in torchvision's layout. Empty for the environment variable
            SCULPT_DATA, or else `data` under the current directory.
        download: Fetch missing files into that folder first.
    """

    source: ClassVar[_Source]

    def __init__(self, *, root: str = "", download: bool = False) -> None:
        self.root = Path(root or os.environ.get("SCULPT_DATA") or "data").expanduser()
        self.download = download

    def describe(self) -> ImageSpec:
        """Return the shape and classes, which are known without reading."""
        return self.source.spec

    def available(self) -> str | None:
        """Return None if `read` can start (with `download`, always), else what is missing."""
        missing = [name for name in self.source.files if not (self.root / name).is_file()]
        if self.download or not missing:
            return None
        return (
            f"{self.source.reader} must have its {len(self.source.files)} files, unpacked, under "
            f"{self.root.resolve()}, but {missing[0]} is not there; fetch them with --set "
            "data.download=true, or say where they are with --set data.root=DIR or SCULPT_DATA"
        )

    def read(self) -> ImageArrays:
        """Return all images, downloading them first if that was asked for.

        Raises:
            DataError: files are missing or damaged, or the download failed.
        """
        missing = self.available()
        if missing is not None:
            raise DataError(missing)
        try:
            with self._alone():
                train = self._open(train=True)
                test = self._open(train=False)
        except _READ_FAULTS as error:
            cure = (
                "check the network, or put the files there yourself"
                if self.download
                else "replace the damaged files, or delete them and use --set data.download=true"
            )
            raise DataError(
                f"{self.source.reader} must be readable from {self.root.resolve()}, but "
                f"{'downloading or ' if self.download else ''}reading it failed "
                f"({type(error).__name__}: {' '.join(str(error).split())}); {cure}"
            ) from error
        train_images, train_labels = self._arrays(train)
        test_images, test_labels = self._arrays(test)
        names = getattr(train, "classes", None) or range(self.source.spec.classes)
        return ImageArrays(
            train_images, train_labels, test_images, test_labels, tuple(str(name) for name in names)
        )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other workers from downloading into the same folder meanwhile."""
        if not self.download:
            yield
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / ".sculpt-download.lock"):
            yield

    def _open(self, train: bool) -> Any:
        # Here rather than above: it takes seconds, and naming the data sets must not.
        import torchvision.datasets

        reader = getattr(torchvision.datasets, self.source.reader)
        part: dict[str, bool | str] = {"train": train}
        if self.source.reader == "SVHN":  # it alone has a third part, and so names them
            part = {"split": "train" if train else "test"}
        # Standard output belongs to the command line's answer; torchvision prints progress.
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            # numpy 2.4.0 to 2.4.4 warn about pickles as old as CIFAR's.
            warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
            return reader(str(self.root), download=self.download, **part)

    def _arrays(self, dataset: Any) -> tuple[Tensor, Tensor]:
        pixels = torch.as_tensor(dataset.data)
        if pixels.dim() == 3:
            pixels = pixels[..., None]
        if not self.source.channels_first:
            pixels = pixels.permute(0, 3, 1, 2)
        labels = dataset.labels if hasattr(dataset, "labels") else dataset.targets
        return pixels.contiguous(), torch.as_tensor(labels).long()


@DATASETS.register("mnist")
class Mnist(_TorchvisionSet):
    """Handwritten digits, 28x28 grey: 60,000 to train on, 10,000 to test on."""

    source = _Source("MNIST", ImageSpec(1, 28, 28, 10), _idx_files("MNIST"))


@DATASETS.register("fashion_mnist")
class FashionMnist(_TorchvisionSet):
    """Pieces of clothing, 28x28 grey: 60,000 to train on, 10,000 to test on."""

    source = _Source("FashionMNIST", ImageSpec(1, 28, 28, 10), _idx_files("FashionMNIST"))


@DATASETS.register("cifar10")
class Cifar10(_TorchvisionSet):
    """Animals and vehicles, 32x32 colour: 50,000 to train on, 10,000 to test on."""

    source = _Source(
        "CIFAR10",
        ImageSpec(3, 32, 32, 10),
        tuple(
            f"cifar-10-batches-py/{name}"
            for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
        ),
    )


@DATASETS.register("cifar100")
class Cifar100(_TorchvisionSet):
    """A hundred kinds of things, 32x32 colour: 50,000 to train on, 10,000 to test on."""

    source = _Source(
        "CIFAR100",
        ImageSpec(3, 32, 32, 100),
        tuple(f"cifar-100-python/{name}" for name in ("train", "test", "meta")),
    )


@DATASETS.register("svhn")
class Svhn(_TorchvisionSet):
    """House numbers, 32x32 colour: 73,257 to train on, 26,032 to test on."""

    source = _Source(
        "SVHN", ImageSpec(3, 32, 32, 10), ("train_32x32.mat", "test_32x32.mat"), channels_first=True
    )
