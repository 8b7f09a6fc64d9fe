"""Image folders: every file lands where it belongs, faults are named, the cache is honest."""

import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder as Torchvisions

from sculpt.data import decoding, image_folder, tensor_cache
from sculpt.data.image_folder import ImageFolder
from sculpt.data.images import ImageArrays, ImageSpec
from sculpt.errors import DataError, SculptWarning


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sculpt"


@pytest.fixture
def decoded(monkeypatch):
    """The files decoded so far."""
    paths: list[str] = []
    original = decoding.decode_image

    def recording(path: str, size: int, channels: int) -> np.ndarray:
        paths.append(path)
        return original(path, size, channels)

    monkeypatch.setattr(decoding, "decode_image", recording)
    return paths


def read(folder: Path, **options: int) -> ImageArrays:
    return ImageFolder(root=str(folder), **options).read()


# ---- what is read


def test_order_and_labels_are_torchvisions(image_folder):
    arrays = read(image_folder)
    assert arrays.class_names == ("ant", "bee", "cat")
    for split, ours, labels in (
        ("train", arrays.train_images, arrays.train_labels),
        ("test", arrays.test_images, arrays.test_labels),
    ):
        theirs = Torchvisions(str(image_folder / split))
        assert tuple(theirs.classes) == arrays.class_names
        assert theirs.targets == labels.tolist()
        for (image, _), our_image in zip(theirs, ours, strict=True):
            assert torch.equal(torch.from_numpy(np.array(image)).permute(2, 0, 1), our_image)


def test_more_files_than_one_task_takes_keep_their_order(image_folder, monkeypatch):
    expected = read(image_folder)
    shutil.rmtree(tensor_cache.cache_folder())
    monkeypatch.setattr(decoding, "_FILES_PER_TASK", 2)
    assert torch.equal(read(image_folder).train_images, expected.train_images)


def test_grey_and_resized(image_folder):
    kind = ImageFolder(root=str(image_folder), size=4, channels=1)
    assert kind.describe() == ImageSpec(channels=1, height=4, width=4, classes=3)
    arrays = kind.read()
    assert arrays.train_images.shape == (9, 1, 4, 4)
    with Image.open(image_folder / "train/ant/0.png") as image:
        expected = image.convert("L").resize((4, 4), Image.Resampling.BILINEAR)
        assert torch.equal(arrays.train_images[0, 0], torch.from_numpy(np.array(expected)))


def test_images_need_not_be_square(image_folder):
    for path in image_folder.rglob("*.png"):
        Image.new("RGB", (5, 3), (1, 2, 3)).save(path)  # Pillow's sizes are width, height
    kind = ImageFolder(root=str(image_folder))
    assert kind.describe() == ImageSpec(channels=3, height=3, width=5, classes=3)
    assert kind.read().train_images[0, :, 2, 4].tolist() == [1, 2, 3]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_8_bit_modes_are_converted(image_folder, mode):
    source = Image.new("RGB", (6, 6), (255, 255, 255)).convert(mode)
    suffix = "jpg" if mode == "CMYK" else "png"
    # Half-transparent entries are what Pillow warns about when converting.
    options = {"transparency": b"\x80\x40"} if mode == "P" else {}
    source.save(image_folder / f"train/ant/+.{suffix}", **options)  # sorts first
    arrays = read(image_folder)
    assert arrays.train_images[0].min() > 250


# ---- what is refused


DAMAGES = {
    "empty": lambda content: b"",
    "none": lambda content: b"no image" * 50,
    "truncated": lambda content: content[:-40],
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", ["train/ant/0.png", "train/bee/1.png", "test/ant/0.jpg"])
def test_a_damaged_image_is_named(image_folder, name, kind, cache):
    victim = image_folder / name
    noise = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).save(victim)
    victim.write_bytes(DAMAGES[kind](victim.read_bytes()))
    folder = ImageFolder(root=str(image_folder))
    # What images look like is told by the beginning of the first of them.
    asked = name == "train/ant/0.png" and kind != "truncated"
    for method in (folder.read, *[folder.describe] * asked):
        with pytest.raises(DataError, match=r"intact image.*replace or remove it") as refusal:
            method()
        assert str(victim) in str(refusal.value)
        assert not list(cache.glob("*"))


def without_split(root: Path, split: str) -> None:
    shutil.rmtree(root / split)


def without_classes(root: Path, split: str) -> None:
    shutil.rmtree(root / split)
    (root / split).mkdir()


def without_images(root: Path, split: str) -> None:
    for path in (root / split / "bee").iterdir():
        path.unlink()


def with_another_class(root: Path, split: str) -> None:
    (root / split / "bee").rename(root / split / "wasp")


def with_16_bits(root: Path, split: str) -> None:
    Image.fromarray(np.full((6, 6), 40_000, dtype=np.uint16)).save(root / split / "ant/0.png")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root, split: shutil.rmtree(root / split),
            "{} must hold one folder .*is not a folder",
        ),
        (without_classes, "{} must hold one folder .*holds none"),
        (without_images, r"under .*{} must hold images, but bee holds none; images end in \.bmp"),
        (
            lambda root, split: (root / split / "bee").rename(root / split / "wasp"),
            r"only one of them .* holds: bee, wasp",
        ),
        (
            lambda root, split: (root / split / os.fsdecode(b"\xe9t\xe9")).mkdir(),
            "is not UTF-8; rename it",
        ),
        (with_16_bits, r"8 bits per channel, but .*{}/ant/0\.png"),  # and they are not clipped
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(image_folder, split, change, message):
    change(image_folder, split)
    folder = ImageFolder(root=str(image_folder))
    with pytest.raises(DataError, match=message.format(split)):
        folder.read()
    if change is without_split:
        assert str(image_folder / split) in folder.available()


def test_differing_sizes_are_named_with_both_files(image_folder):
    Image.new("RGB", (8, 5)).save(image_folder / "test/cat/0.png")
    with pytest.raises(DataError, match=r"data\.size=PIXELS") as refusal:
        read(image_folder)
    assert f"{image_folder / 'train/ant/0.png'} has 6x6" in str(refusal.value)
    assert f"{image_folder / 'test/cat/0.png'} has 8x5" in str(refusal.value)
    assert read(image_folder, size=6).test_images.shape[2:] == (6, 6)


def test_a_root_is_required():
    kind = ImageFolder()
    assert "data.root=DIR" in kind.available()
    for method in (kind.describe, kind.read):
        with pytest.raises(DataError, match="root is empty"):
            method()


@pytest.mark.parametrize(("option", "value"), [("channels", 2), ("channels", 0), ("size", -1)])
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(DataError, match=f"{option} must be .*got {value}"):
        ImageFolder(root="anywhere", **{option: value})


# ---- what is left out


def read_with_warning(folder: Path, **options: int) -> tuple[ImageArrays, str]:
    """Read a folder, of which not all is read; also return the one warning."""
    with pytest.warns(SculptWarning) as warned:
        arrays = read(folder, **options)
    (text,) = [str(warning.message) for warning in warned]
    assert text.startswith(f"not everything under {folder} is read (")
    return arrays, text


def test_hidden_entries_are_no_images(image_folder):
    expected = read(image_folder)
    for folder in (
        ".ipynb_checkpoints",
        "train/.ipynb_checkpoints",
        "train/ant/.ipynb_checkpoints",
    ):
        shutil.copytree(image_folder / "train/cat", image_folder / folder)
    shutil.copy(image_folder / "train/cat/0.png", image_folder / "train/ant/._0.png")
    (image_folder / "test/.DS_Store").touch()
    arrays = read(image_folder)
    assert torch.equal(arrays.train_images, expected.train_images)
    assert arrays.class_names == expected.class_names


def test_what_is_not_read_is_counted_by_folder_and_reason(image_folder):
    for index, name in enumerate(["5.gif", "6.gif", "7.JFIF", "8.avif", "notes"]):
        (image_folder / "train/bee" / name).write_bytes(b"x" * index)
    (image_folder / "test/labels.csv").touch()
    shutil.copy(image_folder / "test/cat/0.png", image_folder / "test/cat/9.PNG")
    arrays, text = read_with_warning(image_folder)
    assert (len(arrays.train_images), len(arrays.test_images)) == (9, 7)
    assert "train/bee: 3 read, 2 .gif, 1 .jfif, 1 .avif, 1 without an ending left out" in text
    assert "test: 0 read, 1 files outside of class folders left out" in text
    assert text.count(" read, ") == 2


def test_many_folders_are_not_all_named(image_folder):
    for index in range(20):
        for split in ("train", "test"):
            folder = image_folder / split / f"class {index:02}"
            shutil.copytree(image_folder / "train/ant", folder)
            (folder / "more.gif").touch()
    _, text = read_with_warning(image_folder)
    assert text.count(" read, ") == 10
    assert "; and 30 more folders)" in text


def test_a_class_of_which_nothing_is_read_is_refused_with_the_reason(image_folder):
    for path in (image_folder / "train/bee").iterdir():
        path.rename(path.with_suffix(".gif"))
    with pytest.raises(DataError, match=r"but bee holds none \(3 \.gif left out\); images end in"):
        read(image_folder)


@pytest.mark.parametrize("target", ["", "train", "train/ant", "train/bee", "test/ant", "..", "/"])
def test_no_folder_is_entered_twice(image_folder, target):
    expected = read(image_folder)
    (image_folder / "train/ant/link").symlink_to(image_folder / target)
    arrays, text = read_with_warning(image_folder)
    assert torch.equal(arrays.train_images, expected.train_images)
    assert torch.equal(arrays.test_images, expected.test_images)
    assert "train/ant: 3 read, 1 links to folders that are read anyway left out" in text


def test_links_to_images_elsewhere_are_followed(image_folder, tmp_path):
    expected = read(image_folder)
    for name in ("train/ant", "test"):  # a class, a split
        (image_folder / name).rename(tmp_path / "moved")
        (image_folder / name).symlink_to(tmp_path / "moved")
        (tmp_path / "moved").rename(tmp_path / name.replace("/", " "))
        (image_folder / name).unlink()
        (image_folder / name).symlink_to(tmp_path / name.replace("/", " "))
    (tmp_path / "more").mkdir()
    (image_folder / "train/cat/2.png").rename(tmp_path / "more/2.png")
    (image_folder / "train/cat/more").symlink_to(tmp_path / "more")
    assert torch.equal(read(image_folder).train_images, expected.train_images)
    # The same folder in training and in test images: the first is read.
    (image_folder / "test/cat/more").symlink_to(tmp_path / "more")
    arrays, text = read_with_warning(image_folder)
    assert len(arrays.test_images) == 6
    assert "test/cat: 2 read, 1 links" in text


@pytest.mark.parametrize(
    ("name", "target"), [("test/ant", "train/ant"), ("test", "train"), ("train/ant", ".")]
)
def test_a_class_or_a_split_that_is_another_by_a_link_is_refused(image_folder, name, target):
    shutil.rmtree(image_folder / name)
    (image_folder / name).symlink_to(image_folder / target)
    target = str(image_folder / target)
    with pytest.raises(DataError, match=f"{name} is {target} under another name"):
        read(image_folder)


# ---- what a file may be


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_images_stand_upright(tmp_path, orientation, suffix):
    pixels = np.zeros((24, 40, 3), dtype=np.uint8)
    pixels[:8, :8] = 250  # the upper left corner of the scene, which is wider than high
    laid = Image.fromarray(pixels)
    for turn in {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}.get(orientation, []):
        laid = laid.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(suffix, {})
    laid.save(tmp_path / f"0.{suffix}", exif=exif, **lossless)
    assert decoding.image_size(f"{tmp_path}/0.{suffix}") == (24, 40)
    decoded = decoding.decode_image(f"{tmp_path}/0.{suffix}", 0, 3)
    assert decoded.shape == (3, 24, 40)
    assert decoded[:, 1:7, 1:7].min() > 240
    assert decoded[:, 10:, 10:].max() < 10


def png(path: Path, depth: int, color: int, channels: int, value: int, side: int = 6) -> None:
    """Write a PNG file by hand, of any depth and size; a large one has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    line = b"\0" + value.to_bytes(depth // 8, "big") * channels * side
    pixels = zlib.compress(line * side if side < 100 else b"")
    header = struct.pack(">IIBBBBB", side, side, depth, color, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("color", [0, 2, 4, 6])
def test_16_bits_of_any_kind_are_refused(image_folder, color):
    path = image_folder / "train/ant/1.png"
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    png(path, 8, color, channels, 200)
    assert read(image_folder).train_images[1, 0].unique().tolist() == [200]
    png(path, 16, color, channels, 200)
    with pytest.raises(DataError, match=r"8 bits per channel, but .*ant/1\.png has more"):
        read(image_folder)


def test_16_bits_of_other_types_are_refused(image_folder):
    (image_folder / "train/ant/1.ppm").write_bytes(b"P6 6 6 65535\n" + b"\0\xc8" * 108)
    with pytest.raises(DataError, match=r"8 bits per channel, but .*1\.ppm has more"):
        read(image_folder)
    (image_folder / "train/ant/1.ppm").write_bytes(b"P6 6 6 255\n" + b"\xc8" * 108)
    assert len(read(image_folder).train_images) == 10
    pixels = np.full((6, 6), 200, dtype=np.uint16)
    Image.fromarray(pixels).save(image_folder / "train/ant/2.tif")
    with pytest.raises(DataError, match=r"8 bits per channel, but .*2\.tif has more"):
        read(image_folder)


@pytest.mark.parametrize("kind", ["GIF", "ICO", "EPS", "PDF"])
def test_other_types_are_not_read_under_another_ending(image_folder, kind):
    path = image_folder / "train/ant/0.png"
    Image.new("RGB", (6, 6)).save(path, format=kind)
    with pytest.raises(DataError, match=r"intact image, but .*ant/0\.png cannot be decoded"):
        read(image_folder)


@pytest.mark.parametrize("side", [8193, 13_000, 60_000])
def test_a_huge_image_is_refused_by_its_header(image_folder, side):
    path = image_folder / "train/ant/0.png"
    png(path, 8, 2, 3, 0, side=side)
    for size in (0, 6):
        folder = ImageFolder(root=str(image_folder), size=size)
        with pytest.raises(DataError, match=r"at most 67108864 pixels, but .*0\.png has more"):
            folder.read()
    assert "at most 67108864 pixels" in ImageFolder(root=str(image_folder)).available()


def test_images_that_exceed_the_memory_are_refused_before_it_is_asked_for(
    image_folder, monkeypatch
):
    monkeypatch.setattr(decoding, "MOST_BYTES", 15 * 3 * 36)
    assert len(read(image_folder).train_images) == 9
    monkeypatch.setattr(np, "empty", lambda *_, **__: pytest.fail("it was asked for"))
    with pytest.raises(DataError, match=r"15 images of 7x7 pixels take .* data\.size=PIXELS"):
        read(image_folder, size=7)


@pytest.mark.parametrize("kind", ["pipe", "device", "broken link"])
def test_what_is_no_file_is_named(image_folder, kind):
    path = image_folder / "train/ant/0.png"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    for size in (0, 6):
        with pytest.raises(DataError, match=r"ant/0\.png"):
            read(image_folder, size=size)


# ---- the cache


def test_the_second_read_decodes_nothing(image_folder, decoded):
    first = read(image_folder)
    assert len(decoded) == 15
    second = read(image_folder)
    assert len(decoded) == 15
    assert torch.equal(first.train_images, second.train_images)
    assert torch.equal(first.test_images, second.test_images)


def test_options_have_caches_of_their_own(image_folder, decoded):
    for options in ({}, {"size": 4}, {"size": 6, "channels": 1}, {"channels": 1}):
        decoded.clear()
        read(image_folder, **options)
        assert len(decoded) == 15


def change_bytes_keeping_size(root: Path) -> None:
    path = root / "train/ant/0.png"
    before = path.stat()
    Image.new("RGB", (6, 6), (9, 9, 9)).save(path)
    content = path.read_bytes()
    path.write_bytes(content + b"\x00" * (before.st_size - len(content)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert path.stat().st_size == before.st_size


def replace_keeping_size_and_time(root: Path) -> None:
    path = root / "train/ant/0.png"
    before, content = path.stat(), path.read_bytes()
    Image.new("RGB", (6, 6), (9, 9, 9)).save(root / "new.png")
    other = (root / "new.png").read_bytes()
    (root / "new.png").write_bytes(other + b"\x00" * (len(content) - len(other)))
    os.utime(root / "new.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    (root / "new.png").replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def rewrite_keeping_size_and_time(root: Path) -> None:
    path = root / "train/ant/0.png"
    before = path.stat()
    change_bytes_keeping_size(root)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def change_size_keeping_time(root: Path) -> None:
    path = root / "train/ant/0.png"
    before = path.stat()
    Image.new("RGB", (6, 6), (9, 9, 9)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size != before.st_size


@pytest.mark.parametrize(
    "change",
    [
        change_bytes_keeping_size,
        replace_keeping_size_and_time,
        rewrite_keeping_size_and_time,
        change_size_keeping_time,
        lambda root: (root / "train/ant/0.png").rename(root / "train/ant/9.png"),
        lambda root: (root / "train/ant/0.png").rename(root / "train/bee/00.png"),
        lambda root: shutil.copy2(root / "train/ant/0.png", root / "test/bee/7.png"),
        lambda root: (root / "test/bee/0.png").unlink(),
    ],
)
def test_any_change_of_a_file_decodes_again(image_folder, decoded, change):
    read(image_folder)
    change(image_folder)
    decoded.clear()
    arrays = read(image_folder)
    assert len(decoded) == len(arrays.train_images) + len(arrays.test_images)


CACHE_DAMAGES = {
    "cut short": lambda content: content[:-10],
    "another pixel": lambda content: content[:-1] + bytes([content[-1] ^ 255]),
    "empty": lambda content: b"",
    "garbage": lambda content: b"garbage" * 50,
}


@pytest.mark.parametrize("damage", CACHE_DAMAGES.values(), ids=CACHE_DAMAGES)
def test_a_damaged_cache_is_rebuilt(image_folder, cache, decoded, damage):
    original = read(image_folder).train_images.clone()
    (file,) = cache.glob("*")
    good = file.read_bytes()
    file.write_bytes(damage(good))
    decoded.clear()
    assert torch.equal(read(image_folder).train_images, original)
    assert len(decoded) == 15
    assert file.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, image_folder, monkeypatch):
    # A file where the folder should be stops even root, whom permissions do not.
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert len(read(image_folder).train_images) == 9


def test_a_failed_write_leaves_nothing_behind(image_folder, cache, monkeypatch):
    def full_disk(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_cache, "save_file", full_disk)
    assert len(read(image_folder).train_images) == 9
    assert list(cache.glob("*")) == []


def test_the_home_folder_is_used_without_xdg(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tensor_cache.cache_folder() == tmp_path / ".cache" / "sculpt"


# ---- the real thing


@pytest.mark.slow
def test_real_cifar10(cifar10_folder, monkeypatch):
    kind = ImageFolder(root=str(cifar10_folder))
    assert kind.describe() == ImageSpec(channels=3, height=32, width=32, classes=10)
    arrays = kind.read()
    assert arrays.train_images.shape == (50_000, 3, 32, 32)
    assert arrays.test_images.shape == (10_000, 3, 32, 32)
    assert arrays.class_names[0] == "airplane"
    assert arrays.train_labels.bincount().tolist() == [5000] * 10
    assert arrays.test_labels.bincount().tolist() == [1000] * 10
    # The widely quoted channel means of CIFAR-10, through JPEG.
    means = torch.stack([arrays.train_images[:, c].double().mean() / 255 for c in range(3)])
    torch.testing.assert_close(
        means, torch.tensor([0.4914, 0.4822, 0.4465], dtype=torch.float64), atol=2e-3, rtol=0
    )
    monkeypatch.setattr(image_folder, "decode_images", None)  # calling it would fail
    cached = kind.read()
    assert torch.equal(cached.train_images, arrays.train_images)
    assert torch.equal(cached.test_images, arrays.test_images)
