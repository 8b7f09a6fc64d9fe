"""Augmentation does exactly what its options say, to each image by itself."""

import pytest
import torch
from torch import Tensor

from sculpt.data import augment
from sculpt.errors import DataError

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def positive_images(count: int = 50, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Random images of 7 x 9 pixels without a zero, so that what is wiped is recognisable."""
    return torch.randint(1, 256, (count, 3, 7, 9), generator=seeded(9)).to(dtype)


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """The oracle: move an image pixel by pixel."""
    _, height, width = image.shape
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[:, row, column] = image[:, row - down, column - right]
    return result


def candidates(image: Tensor, flip: bool, translate: int) -> dict[tuple, Tensor]:
    """Everything that flip and translate may make of one image."""
    reach = range(-translate, translate + 1)
    return {
        (mirrored, down, right): shifted(image.flip(2) if mirrored else image, down, right)
        for mirrored in ((False, True) if flip else (False,))
        for down in reach
        for right in reach
    }


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("flip", "translate", "cutout"), [(True, 2, 3), (True, 0, 0), (False, 0, 2), (False, 0, 0)]
)
def test_type_shape_layout_and_input_are_kept(dtype, layout, flip, translate, cutout):
    images = positive_images(dtype=dtype).contiguous(memory_format=layout)
    before, state = images.clone(), torch.random.get_rng_state()
    options = {"flip": flip, "translate": translate, "cutout": cutout}
    result = augment(images, **options, generator=seeded())
    assert result.dtype == dtype
    assert result.shape == images.shape
    assert result.is_contiguous(memory_format=layout)
    assert torch.equal(result, images) == (not any(options.values())), "all off is the identity"
    assert torch.equal(images, before)
    assert torch.equal(torch.random.get_rng_state(), state), "the global one is left alone"
    assert augment(images[:0], **options, generator=seeded()).shape == images[:0].shape


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flips_mirror_half_of_the_images(layout):
    images = positive_images(2000).contiguous(memory_format=layout)
    result = augment(images, flip=True, translate=0, cutout=0, generator=seeded())
    mirrored = (result == images.flip(3)).flatten(1).all(1)
    untouched = (result == images).flatten(1).all(1)
    assert bool((mirrored ^ untouched).all())
    # 1000 expected, with a standard deviation of 22.
    assert 880 < int(mirrored.sum()) < 1120


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("flip", [False, True])
def test_shifts_are_those_of_the_naive_loop(dtype, flip):
    images = positive_images(60, dtype)
    result = augment(images, flip=flip, translate=1, cutout=0, generator=seeded())
    seen = set()
    for image, output in zip(images, result, strict=True):
        moves = candidates(image, flip, 1).items()
        (found,) = [move for move, moved in moves if torch.equal(moved, output)]
        seen.add(found)
    # Each of the 9 (18 with flips) moves is equally likely; 60 draws meet most of them.
    assert len(seen) > (12 if flip else 7)


def test_every_shift_is_equally_likely():
    marker = torch.zeros(9000, 1, 7, 7, dtype=torch.uint8)
    marker[:, :, 3, 3] = 1
    result = augment(marker, flip=False, translate=1, cutout=0, generator=seeded())
    counts = result.long().sum((0, 1))
    assert int(counts[2:5, 2:5].sum()) == 9000
    # 1000 expected for each, with a standard deviation of 30.
    assert counts[2:5, 2:5].min() > 850
    assert counts[2:5, 2:5].max() < 1150


@pytest.mark.parametrize("side", [1, 4, 7])
def test_cutout_wipes_exactly_one_square_per_image(side):
    images = positive_images(300)
    result = augment(images, flip=False, translate=0, cutout=side, generator=seeded())
    wiped = result == 0
    assert bool((wiped == wiped[:, :1]).all())  # the same place in every channel
    assert bool((wiped | (result == images)).all())
    places = set()
    for mask in wiped[:, 0]:
        rows, columns = mask.nonzero(as_tuple=True)
        assert len(rows) == side**2
        assert int(rows.max() - rows.min()) == side - 1
        assert int(columns.max() - columns.min()) == side - 1
        places.add((int(rows.min()), int(columns.min())))
    possible = (7 - side + 1) * (9 - side + 1)
    assert len(places) > 0.9 * possible


def test_the_generator_decides():
    images = positive_images()
    options = {"flip": True, "translate": 3, "cutout": 2}
    first, again, other = (augment(images, generator=seeded(seed), **options) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    generator = seeded(1)
    augment(images, generator=generator, **options)
    assert not torch.equal(augment(images, generator=generator, **options), first)


@pytest.mark.parametrize(
    ("translate", "cutout", "message"),
    [
        (-1, 0, "translate must lie between 0 and 6"),
        (7, 0, "translate must lie between 0 and 6"),
        (0, -1, "cutout must lie between 0 and 7"),
        (0, 8, "cutout must lie between 0 and 7"),
    ],
)
def test_extents_beyond_the_image_are_refused(translate, cutout, message):
    with pytest.raises(DataError, match=message):
        augment(
            positive_images(), flip=False, translate=translate, cutout=cutout, generator=seeded()
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_the_device_is_never_waited_for():
    images = positive_images().cuda()
    generator = torch.Generator("cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = augment(images, flip=True, translate=2, cutout=3, generator=generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert result.device == images.device
