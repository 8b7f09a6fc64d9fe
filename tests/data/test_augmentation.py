"""Augmentation does exactly what its options say, to each image by itself."""

import numpy as np
import pytest
import torch
from torch import Tensor

from sculpt.data import augment, blend_share
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


class TestBlends:
    SHAPE = (3, 12, 20)

    def shares(self, shape=SHAPE, count=300, **alphas):
        draws = np.random.default_rng(0)
        alphas = {"mixup": 0.0, "cutmix": 0.0} | alphas
        return [blend_share(shape, **alphas, draws=draws) for _ in range(count)]

    def test_mixup_is_one_share_for_all_pixels(self):
        shares = self.shares(mixup=0.5)
        assert all(share.shape == (12, 20) and len(share.unique()) == 1 for share in shares)
        found = torch.stack(shares)[:, 0, 0].double()
        assert found.mean() == pytest.approx(0.5, abs=0.07)
        assert found.var() == pytest.approx(1 / 8, abs=0.02)  # of Beta(α, α): 1 / (8α + 4)

    def test_cutmix_is_a_rectangle_of_the_other_image(self):
        shares = self.shares(cutmix=1.0)
        for share in shares:
            assert set(share.unique().tolist()) <= {0.0, 1.0}
            rows, columns = (share == 0).any(1), (share == 0).any(0)
            assert (share == 0).sum() == rows.sum() * columns.sum()
            for line in (rows, columns):
                places = line.nonzero().flatten()
                assert len(places) == 0 or places[-1] - places[0] + 1 == len(places)
        left = torch.stack(shares).mean((1, 2))
        assert left.min() < 0.3
        assert left.max() > 0.95

    def test_both_take_turns_by_chance(self):
        kinds = [len(share.unique()) for share in self.shares(mixup=0.5, cutmix=1.0)]
        blended = sum(
            bool(((share > 0) & (share < 1)).all()) for share in self.shares(mixup=0.5, cutmix=1.0)
        )
        assert 100 < blended < 200
        assert kinds.count(2) > 80

    def test_other_inputs_than_images_have_one_number(self):
        assert self.shares((7,), 1, mixup=1.0)[0].shape == ()
        assert self.shares((3, 9), 1, mixup=1.0)[0].shape == ()
