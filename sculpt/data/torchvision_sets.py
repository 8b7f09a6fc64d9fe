"""MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN, from their original files.

torchvision reads, checks and downloads the files; here they are located and become plain arrays.
"""

import contextlib
import os
import sys
import warnings
from http.client import HTTPException
from pathlib import Path
from typing import Any, ClassVar

import torch
from filelock import FileLock
from torch import Tensor

from sculpt.data.images import ImageArrays, ImageSpec
from sculpt.errors import DataError
from sculpt.registry import DATASETS

# Raised by torchvision's readers for missing, truncated or foreign files and failed downloads
# (URLError is an OSError, HTTPException is not).
_READ_FAULTS = (OSError, RuntimeError, ValueError, AssertionError, EOFError, HTTPException)


def _idx_files(folder: str) -> tuple[str, ...]:
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    return tuple(f"{folder}/raw/{part}-{kind}" for part in ("train", "t10k") for kind in kinds)


class _TorchvisionSet:
    """A data set that torchvision can read.

    Args:
        root: Folder the files lie in, in torchvision's layout. Empty for the environment variable
            SCULPT_DATA, or else `data` under the current directory.
        download: Fetch missing files into that folder first.
    """

    reader: ClassVar[str]
    """Class in torchvision.datasets."""
    spec: ClassVar[ImageSpec]
    files: ClassVar[tuple[str, ...]]
    """Relative to the root; all of them are needed."""
    channels_first: ClassVar[bool] = False
    """Pixels come as (N, C, H, W), not as (N, H, W[, C])."""

    def __init__(self, *, root: str = "", download: bool = False) -> None:
        self.root = Path(root or os.environ.get("SCULPT_DATA") or "data").expanduser()
        self.download = download

    def describe(self) -> ImageSpec:
        """Return the shape and classes, known without reading."""
        return self.spec

    def available(self) -> str | None:
        """Name the missing files; None if `read` can start (with `download`, always)."""
        missing = [name for name in self.files if not (self.root / name).is_file()]
        if self.download or not missing:
            return None
        return (
            f"{self.reader} must have its {len(self.files)} files, unpacked, under "
            f"{self.root.resolve()}, but {missing[0]} is not there; fetch them with --set "
            "data.download=true, or say where they are with --set data.root=DIR or SCULPT_DATA"
        )

    def read(self) -> ImageArrays:
        """Read all images, after downloading them if `download` is set.

        Raises:
            DataError: files are missing or damaged, or the download failed.
        """
        missing = self.available()
        if missing is not None:
            raise DataError(missing)
        try:
            lock: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
            if self.download:  # other workers must not download into the same folder
                self.root.mkdir(parents=True, exist_ok=True)
                lock = FileLock(self.root / ".sculpt-download.lock")
            with lock:
                train = self._open(train=True)
                test = self._open(train=False)
        except _READ_FAULTS as error:
            cure = (
                "check the network, or put the files there yourself"
                if self.download
                else "replace the damaged files, or delete them and use --set data.download=true"
            )
            raise DataError(
                f"{self.reader} must be readable from {self.root.resolve()}, but "
                f"{'downloading or ' if self.download else ''}reading it failed "
                f"({type(error).__name__}: {' '.join(str(error).split())}); {cure}"
            ) from error
        train_images, train_labels = self._arrays(train)
        test_images, test_labels = self._arrays(test)
        names = getattr(train, "classes", None) or range(self.spec.classes)
        return ImageArrays(
            train_images, train_labels, test_images, test_labels, tuple(str(name) for name in names)
        )

    def _open(self, train: bool) -> Any:
        # Imported here because it takes seconds, and listing the data sets must not.
        import torchvision.datasets

        reader = getattr(torchvision.datasets, self.reader)
        part: dict[str, bool | str] = {"train": train}
        if self.reader == "SVHN":  # which has a third part, and names them
            part = {"split": "train" if train else "test"}
        # torchvision prints progress, and standard output belongs to the command's result.
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            # numpy 2.4.0 to 2.4.4 warn about pickles as old as CIFAR's.
            warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
            return reader(str(self.root), download=self.download, **part)

    def _arrays(self, dataset: Any) -> tuple[Tensor, Tensor]:
        pixels = torch.as_tensor(dataset.data)
        if pixels.dim() == 3:
            pixels = pixels[..., None]
        if not self.channels_first:
            pixels = pixels.permute(0, 3, 1, 2)
        labels = dataset.labels if hasattr(dataset, "labels") else dataset.targets
        return pixels.contiguous(), torch.as_tensor(labels).long()


@DATASETS.register("mnist")
class Mnist(_TorchvisionSet):
    """Handwritten digits, 28x28 grey: 60,000 to train on, 10,000 to test on."""

    reader, spec, files = "MNIST", ImageSpec(1, 28, 28, 10), _idx_files("MNIST")


@DATASETS.register("fashion_mnist")
class FashionMnist(_TorchvisionSet):
    """Pieces of clothing, 28x28 grey: 60,000 to train on, 10,000 to test on."""

    reader, spec, files = "FashionMNIST", ImageSpec(1, 28, 28, 10), _idx_files("FashionMNIST")


@DATASETS.register("cifar10")
class Cifar10(_TorchvisionSet):
    """Animals and vehicles, 32x32 colour: 50,000 to train on, 10,000 to test on."""

    reader, spec = "CIFAR10", ImageSpec(3, 32, 32, 10)
    files = tuple(
        f"cifar-10-batches-py/{name}"
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
    )


@DATASETS.register("cifar100")
class Cifar100(_TorchvisionSet):
    """A hundred kinds of things, 32x32 colour: 50,000 to train on, 10,000 to test on."""

    reader, spec = "CIFAR100", ImageSpec(3, 32, 32, 100)
    files = tuple(f"cifar-100-python/{name}" for name in ("train", "test", "meta"))


@DATASETS.register("svhn")
class Svhn(_TorchvisionSet):
    """House numbers, 32x32 colour: 73,257 to train on, 26,032 to test on."""

    reader, spec = "SVHN", ImageSpec(3, 32, 32, 10)
    files = ("train_32x32.mat", "test_32x32.mat")
    channels_first = True
