"""The contract of every data set kind, and the real files of those that can be had."""

import socket

import pytest
import scipy.io
import torch
from sklearn.datasets import load_digits

from sculpt.errors import DataError
from sculpt.registry import DATASETS

TORCHVISION_KINDS = ["cifar10", "cifar100", "fashion_mnist", "mnist", "svhn"]
PROMISED = {*TORCHVISION_KINDS, "digits", "image_folder"}


@pytest.mark.parametrize("name", sorted({*DATASETS.names(), *PROMISED}))
def test_what_is_described_is_what_is_read_each_time(name, fabricate):
    options = fabricate(name)
    kind, again = (DATASETS.get(name)(**options) for _ in range(2))
    assert kind.available() is None
    arrays, second = kind.read(), again.read()
    assert arrays.spec == kind.describe()
    assert len(arrays.train_images) > len(arrays.test_images) > 0
    assert arrays.train_images.is_contiguous()
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(arrays, part), getattr(second, part))
    assert arrays.class_names == second.class_names


@pytest.mark.parametrize("name", sorted(set(DATASETS.names()) - {"digits"}))
def test_missing_files_are_announced_and_then_refused(name, tmp_path):
    kind = DATASETS.get(name)(root=str(tmp_path / "nowhere"))
    message = kind.available()
    assert str(tmp_path / "nowhere") in message
    assert "data.root=DIR" in message or name not in TORCHVISION_KINDS
    assert "data.download=true" in message or name not in TORCHVISION_KINDS
    with pytest.raises(DataError) as refusal:
        kind.read()
    assert str(refusal.value) == message


def test_the_root_is_the_option_then_the_environment_then_the_current_folder(tmp_path, monkeypatch):
    kind = DATASETS.get("mnist")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCULPT_DATA", raising=False)
    assert kind().root.resolve() == tmp_path / "data"
    monkeypatch.setenv("SCULPT_DATA", str(tmp_path / "lab"))
    assert kind().root == tmp_path / "lab"
    assert kind(root=str(tmp_path / "mine")).root == tmp_path / "mine"


def test_a_truncated_file_is_refused(fabricate, tmp_path):
    options = fabricate("mnist")
    damaged = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(DataError, match="MNIST must be readable from"):
        DATASETS.get("mnist")(**options).read()


def test_a_file_with_another_checksum_is_refused(fabricate, monkeypatch):
    options = fabricate("cifar10")
    monkeypatch.undo()  # brings torchvision's checksums back
    with pytest.raises(DataError, match="corrupted"):
        DATASETS.get("cifar10")(**options).read()


@pytest.mark.parametrize("name", TORCHVISION_KINDS)
def test_a_failed_download_is_refused(name, tmp_path, monkeypatch):
    def unreachable(*_args: object, **_options: object) -> None:
        raise socket.gaierror("no network here")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    kind = DATASETS.get(name)(root=str(tmp_path), download=True)
    assert kind.available() is None
    with pytest.raises(DataError, match=r"downloading or reading it failed .*check the network"):
        kind.read()


def test_channels_and_pixels_are_where_the_file_has_them(fabricate, tmp_path):
    # SVHN's files have (row, column, channel, image); CIFAR's a flat (channel, row, column).
    svhn = DATASETS.get("svhn")(**fabricate("svhn")).read()
    pixels = torch.from_numpy(scipy.io.loadmat(tmp_path / "train_32x32.mat")["X"])
    assert torch.equal(svhn.train_images, pixels.permute(3, 2, 0, 1))
    assert svhn.train_labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1], "its ten is 0"
    cifar = DATASETS.get("cifar10")(**fabricate("cifar10")).read()
    with open(tmp_path / "cifar-10-batches-py" / "test_batch", "rb") as file:
        flat = file.read()
    assert cifar.test_images[3].numpy().tobytes() in flat


def test_digits_spread_their_grey_levels_over_a_byte():
    arrays = DATASETS.get("digits")().read()
    assert (len(arrays.train_images), len(arrays.test_images)) == (1438, 359)
    together = torch.cat([arrays.train_images, arrays.test_images])
    assert (int(together.min()), int(together.max())) == (0, 255)
    assert len(together.unique()) == 17
    # The same multiset of images as scikit-learn's, so none is lost or there twice.
    originals = torch.from_numpy(load_digits().images * 255 / 16).round().byte()
    ours, theirs = (sorted(i.numpy().tobytes() for i in images) for images in (together, originals))
    assert ours == theirs
    labels = torch.cat([arrays.train_labels, arrays.test_labels])
    shares = arrays.test_labels.bincount() / labels.bincount()
    assert 0.19 < shares.min() <= shares.max() < 0.21


@pytest.mark.slow
def test_real_mnist(mnist_root):
    kind = DATASETS.get("mnist")(root=str(mnist_root))
    assert kind.available() is None
    arrays = kind.read()
    assert arrays.train_images.shape == (60_000, 1, 28, 28)
    assert arrays.test_images.shape == (10_000, 1, 28, 28)
    assert arrays.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert arrays.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    # The widely quoted mean and std of the training pixels.
    pixels = arrays.train_images.double() / 255
    assert pixels.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.3081, abs=5e-5)
