"""Streams of randomness: stable for ever, and apart from each other."""

import pytest
import torch

from sculpt.seeding import derive_seed

# The first 63 bits of `printf '0/data order/1' | sha256sum`, and so on. A change of these would
# change every result: old studies could not be repeated.
KNOWN = {
    (0,): 3456079177858693020,
    (0, "data order", 1): 31000212871636934,
    (0, "augmentation"): 7033547830291986484,
    (0, "criterion"): 699900108451546841,
    (123, "weights", "stem.conv"): 5552856841384551776,
}


@pytest.mark.parametrize(("arguments", "seed"), KNOWN.items())
def test_known_values(arguments, seed):
    """In whichever process: Python's own `hash` of a string would differ."""
    assert derive_seed(*arguments) == seed


def test_every_use_has_a_stream_of_its_own():
    uses = [
        (seed, *purpose)
        for seed in range(50)
        for purpose in [
            (),
            ("augmentation",),
            ("criterion",),
            ("weights", "stem"),
            *(("data order", epoch) for epoch in range(1, 60)),
        ]
    ]
    assert len({derive_seed(*use) for use in uses}) == len(uses)
    assert derive_seed(1, "a", 23) != derive_seed(1, "a2", 3)
    assert derive_seed(1, "a", "b") != derive_seed(1, "b", "a")
    assert derive_seed(11, "a") != derive_seed(1, 1, "a")


def test_range_is_what_a_generator_takes():
    seeds = [derive_seed(seed, "range") for seed in range(2000)]
    assert all(isinstance(seed, int) and 0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62  # all 63 bits are in use
    assert {seed % 2 for seed in seeds} == {0, 1}
    torch.Generator().manual_seed(max(seeds))
