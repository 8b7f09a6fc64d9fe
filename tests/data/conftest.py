"""Small stand-ins for the files of each data set kind, in the formats of the real ones."""

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

TRAIN, TEST = 40, 20


def _write_image_folder(root: Path, train: int = 3, test: int = 2, side: int = 6) -> Path:
    """Write a tree of distinct PNG files with the classes `ant`, `bee` and `cat`."""
    generator = np.random.default_rng(3)
    for split, count in (("train", train), ("test", test)):
        for name in ("cat", "ant", "bee"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


def _write_idx(folder: Path) -> None:
    folder.mkdir(parents=True)
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        header = struct.pack(">II", 0x801, count)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


class _OldPickler(pickle.Pickler):
    """Pickles array types as numpy did in 2009, which 2.4.0 to 2.4.4 warn about on reading."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.dtype):
            return np.dtype, ("u1", 0, 1), (3, "|", None, None, None, -1, -1, 0)
        return NotImplemented


def _write_pickle(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    _OldPickler(buffer, protocol=3).dump(content)
    path.write_bytes(buffer.getvalue())


def _cifar_batch(count: int, classes: int) -> tuple[np.ndarray, list[int]]:
    pixels = np.random.default_rng(count).integers(0, 256, (count, 3072), dtype=np.uint8)
    return pixels, [index % classes for index in range(count)]


def _write_cifar10(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    for name in (*(f"data_batch_{index}" for index in range(1, 6)), "test_batch"):
        pixels, labels = _cifar_batch(TEST if name == "test_batch" else TRAIN // 5, 10)
        _write_pickle(folder / name, {"data": pixels, "labels": labels})
    _write_pickle(folder / "batches.meta", {"label_names": [f"name {i}" for i in range(10)]})


def _write_cifar100(root: Path) -> None:
    folder = root / "cifar-100-python"
    for name, count in (("train", TRAIN), ("test", TEST)):
        pixels, labels = _cifar_batch(count, 100)
        _write_pickle(folder / name, {"data": pixels, "fine_labels": labels})
    _write_pickle(folder / "meta", {"fine_label_names": [f"name {i}" for i in range(100)]})


def _write_svhn(root: Path) -> None:
    for name, count in (("train", TRAIN), ("test", TEST)):
        pixels = np.random.default_rng(count).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8)[:, None] % 10 + 1
        scipy.io.savemat(root / f"{name}_32x32.mat", {"X": pixels, "y": labels})


@pytest.fixture
def image_folder(tmp_path):
    """A tree of 3 x 3 training and 3 x 2 test images of 6 x 6 pixels."""
    return _write_image_folder(tmp_path / "images")


@pytest.fixture
def fabricate(tmp_path, monkeypatch):
    """A function that writes files for a kind and returns the options to read them with."""

    def options_for(name: str) -> dict[str, Any]:
        writers: dict[str, Callable[[Path], object]] = {
            "mnist": lambda root: _write_idx(root / "MNIST" / "raw"),
            "fashion_mnist": lambda root: _write_idx(root / "FashionMNIST" / "raw"),
            "cifar10": _write_cifar10,
            "cifar100": _write_cifar100,
            "svhn": _write_svhn,
            "image_folder": _write_image_folder,
        }
        if name == "digits":
            return {}
        if name not in writers:
            pytest.skip(f"no stand-in files for {name}; add a writer to tests/data/conftest.py")
        # torchvision takes CIFAR and SVHN only with the checksums of the real files.
        monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
        monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *_: True)
        writers[name](tmp_path)
        return {"root": str(tmp_path)}

    return options_for
