"""Splits are disjoint, proportional and repeatable, and say who is in them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sculpt.data import ImageArrays, ImageSet, ImageSpec, make_splits
from sculpt.data.splits import stratified_choice
from sculpt.errors import DataError


def synthetic_arrays(
    per_class: list[int], test: int = 10, channels: int = 1, side: int = 6
) -> ImageArrays:
    """Return arrays in which every image is unique, so that its bytes identify it."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate(per_class)])
    labels = labels[torch.randperm(len(labels), generator=generator)]
    shape = (channels, side, side)
    images = torch.randint(
        0, 256, (len(labels) + test, *shape), dtype=torch.uint8, generator=generator
    )
    return ImageArrays(
        train_images=images[: len(labels)],
        train_labels=labels,
        test_images=images[len(labels) :],
        test_labels=torch.arange(test) % len(per_class),
        class_names=tuple(f"class {label}" for label in range(len(per_class))),
    )


def identity(image: Tensor) -> bytes:
    return image.numpy().tobytes()


def identities(images: Tensor) -> set[bytes]:
    return set(map(identity, images))


def small_set(count: int = 10, channels: int = 3) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, 4, 5), dtype=torch.uint8, generator=generator)
    mean, std = torch.rand(channels, generator=generator), torch.rand(channels) + 0.1
    return ImageSet(images, torch.arange(count), mean, std)


# ---- who is in which split


def test_splits_are_disjoint_and_complete_and_images_keep_their_labels():
    arrays = synthetic_arrays([40, 40, 20])
    splits = make_splits(arrays, validation_fraction=0.2)
    train, validation, test = (
        identities(part.images) for part in (splits.train, splits.validation, splits.test)
    )
    assert (len(train), len(validation), len(test)) == (80, 20, 10)
    assert not train & validation
    assert not (train | validation) & test
    assert train | validation == identities(arrays.train_images)
    assert test == identities(arrays.test_images)
    labels = arrays.train_labels.tolist()
    label_of = dict(zip(map(identity, arrays.train_images), labels, strict=True))
    for part in (splits.train, splits.validation):
        assert part.labels.tolist() == [label_of[identity(image)] for image in part.images]


def test_classes_keep_their_proportions():
    splits = make_splits(synthetic_arrays([100, 50, 10]), validation_fraction=0.3)
    assert splits.validation.labels.bincount().tolist() == [30, 15, 3]
    assert splits.train.labels.bincount().tolist() == [70, 35, 7]


def test_the_subset_is_taken_before_the_validation_split():
    splits = make_splits(synthetic_arrays([100, 100]), train_images=50, validation_fraction=0.2)
    assert splits.train.labels.bincount().tolist() == [20, 20]
    assert splits.validation.labels.bincount().tolist() == [5, 5]


def test_the_seed_decides_and_repeats():
    arrays = synthetic_arrays([50, 50])
    first, again, other = (make_splits(arrays, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.validation.images, again.validation.images)
    assert identities(first.validation.images) != identities(other.validation.images)
    subsets = [make_splits(arrays, seed=seed, train_images=20).train.images for seed in (1, 1, 2)]
    assert torch.equal(subsets[0], subsets[1])
    assert identities(subsets[0]) != identities(subsets[2])


@pytest.mark.parametrize("count", [0, 1, 6, 59, 60])
def test_a_choice_has_exactly_the_count_and_is_at_most_one_image_off(count):
    labels = torch.tensor([0] * 30 + [1] * 20 + [3] * 10)  # class 2 has none
    chosen, rest = stratified_choice(labels, count, seed=0)
    assert len(chosen) == count
    assert sorted(chosen.tolist() + rest.tolist()) == list(range(60))
    assert chosen.tolist() == sorted(chosen.tolist())
    sizes = labels[chosen].bincount(minlength=4)
    exact = torch.tensor([30, 20, 0, 10]) * count / 60
    assert (sizes - exact).abs().max() < 1
    assert sizes[2] == 0


def test_no_class_is_favoured_when_shares_do_not_divide():
    labels = torch.arange(10).repeat(10)
    favoured = torch.zeros(10, dtype=torch.int64)
    for seed in range(200):
        chosen, _ = stratified_choice(labels, 5, seed)
        favoured += labels[chosen].bincount(minlength=10)
    # 100 expected for each; the standard deviation of such a count is 7.
    assert favoured.min() > 60
    assert favoured.max() < 140


# ---- what is refused

FRACTIONS = [0.0, 1.0, -0.1, 1.5, float("nan")]


@pytest.mark.parametrize(
    ("per_class", "options", "message"),
    [
        *(([20], {"validation_fraction": f}, "strictly between 0 and 1") for f in FRACTIONS),
        *(([20, 20], {"train_images": count}, "between 1 and 40") for count in (0, -1, 41)),
        ([4], {"validation_fraction": 0.1}, "validation would be empty"),
        ([4], {"validation_fraction": 0.9}, "train would be empty"),
        ([100, 1], {"train_images": 20}, "none would be left of: class 1"),
    ],
)
def test_splits_that_cannot_be_made_are_refused(per_class, options, message):
    with pytest.raises(DataError, match=message):
        make_splits(synthetic_arrays(per_class), **options)


def test_a_constant_channel_and_an_empty_test_split_are_refused():
    arrays = synthetic_arrays([20], channels=3)
    arrays.train_images[:, 1] = 7
    with pytest.raises(DataError, match="all pixels of channel 1 are 7"):
        make_splits(arrays)
    with pytest.raises(DataError, match="test would be empty"):
        make_splits(synthetic_arrays([40], test=0))


# ---- statistics and fingerprint


def test_mean_and_std_are_those_of_the_training_split_alone():
    arrays = synthetic_arrays([60, 60], channels=3)
    splits = make_splits(arrays, validation_fraction=0.5)
    pixels = splits.train.images.double() / 255
    torch.testing.assert_close(splits.train.mean.double(), pixels.mean((0, 2, 3)))
    torch.testing.assert_close(splits.train.std.double(), pixels.std((0, 2, 3), correction=0))
    everything = (arrays.train_images.double() / 255).mean((0, 2, 3))
    assert (splits.train.mean - everything).abs().max() > 1e-4
    for part in (splits.validation, splits.test):
        assert torch.equal(part.mean, splits.train.mean)
        assert torch.equal(part.std, splits.train.std)


def test_the_fingerprint_names_images_labels_and_membership():
    def fingerprint(arrays: ImageArrays, **options: int) -> str:
        return make_splits(arrays, **options).fingerprint

    original = fingerprint(synthetic_arrays([30, 30]))
    assert len(original) == 16
    assert fingerprint(synthetic_arrays([30, 30])) == original
    pixel = synthetic_arrays([30, 30])
    pixel.test_images[0, 0, 0, 0] ^= 1
    label = synthetic_arrays([30, 30])
    label.test_labels[0] = 1
    others = [
        fingerprint(pixel),
        fingerprint(label),
        fingerprint(synthetic_arrays([30, 30]), seed=1),
        fingerprint(synthetic_arrays([30, 30]), train_images=40),
    ]
    assert len({original, *others}) == 5


def test_all_three_splits_move_together_and_the_spec_is_that_of_the_arrays():
    splits = make_splits(synthetic_arrays([20, 20], channels=3, side=5))
    assert splits.spec == ImageSpec(channels=3, height=5, width=5, classes=2)
    moved = splits.to("meta")
    assert {part.device.type for part in (moved.train, moved.validation, moved.test)} == {"meta"}
    assert moved.fingerprint == splits.fingerprint


# ---- image sets


def test_normalisation_is_the_formula_of_the_images_that_are_chosen():
    images = small_set()
    before = images.images.clone()
    mean, std = images.mean.view(-1, 1, 1).double(), images.std.view(-1, 1, 1).double()
    expected = (images.images.double() / 255 - mean) / std
    inputs = images.normalize(images.images)
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(inputs.double(), expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(images.normalize(images.images[3]), inputs[3])
    for chosen in (torch.tensor([7, 2, 2]), slice(3, 6)):
        assert torch.equal(images.inputs(chosen), inputs[chosen])
    images.inputs(slice(0, 5)).zero_()
    assert torch.equal(images.images, before), "the stored images are left alone"
    assert len(images) == 10


def test_batches_cover_everything_in_order():
    images = small_set(count=10)
    batches = list(images.batches(4))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(10))
    inputs = torch.cat([inputs for inputs, _ in batches])
    assert torch.equal(inputs, images.normalize(images.images))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("train_images", torch.zeros(4, 1, 6, 6), "training and test images must be of one kind"),
        ("train_images", torch.zeros(4, 6, 6, dtype=torch.uint8), "train images must be uint8"),
        ("train_labels", torch.zeros(3, dtype=torch.int64), "train labels must be one int64"),
        ("test_labels", torch.zeros(10), "test labels must be one int64"),
        ("train_labels", torch.tensor([0, 1, 2, 0]), r"in 0\.\.1 .*span 0\.\.2"),
        ("test_labels", torch.full((10,), -1), r"test labels must lie in 0\.\.1"),
        ("test_images", torch.zeros(10, 3, 6, 6, dtype=torch.uint8), "must have one shape"),
    ],
)
def test_malformed_arrays_are_refused(field, value, message):
    arrays = synthetic_arrays([2, 2])
    with pytest.raises(DataError, match=message):
        replace(arrays, **{field: value})


def test_a_malformed_image_set_is_refused():
    images = small_set()
    with pytest.raises(DataError, match="one device, but they are on cpu, meta"):
        replace(images, mean=images.mean.to("meta"))
    for statistic in (torch.ones(2), torch.ones(3, dtype=torch.float64)):
        with pytest.raises(DataError, match="one float32 per channel"):
            replace(images, std=statistic)
    with pytest.raises(DataError, match="at least 1"):
        images.batches(0)
