"""Masks as bytes: each comes back, has one form only, and no bytes can ask for much memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sculpt.bundle.positions import _encode_gaps, check_shape, decode_positions, encode_positions

MASKS = st.one_of(
    arrays(np.bool_, st.integers(0, 70)),
    st.builds(
        lambda size, kept: np.isin(np.arange(size), kept),
        st.integers(0, 3000),
        st.lists(st.integers(0, 2999), max_size=12),
    ),
)
EMPTY = np.empty(0, np.uint8)


@given(MASKS)
def test_a_mask_comes_back(mask):
    code, stored = encode_positions(mask)
    assert np.array_equal(decode_positions(code, stored, mask.size), mask)
    assert len(stored) <= -(-mask.size // 8)


@given(st.lists(st.sampled_from([0, 1, 7, 200, 254, 255]) | st.integers(0, 255)), st.data())
def test_bytes_that_can_be_read_are_those_that_are_written(stored, data):
    """One mask, one file: gaps have no second form, whatever they are."""
    stored = np.array(stored, np.uint8)
    end = int(sum(int(b) + (b < 255) for b in stored))
    size = data.draw(st.integers(end, end + 254))
    mask = decode_positions("gaps", stored, size)
    assert np.array_equal(_encode_gaps(mask), stored)
    for wrong in (end - 1, end + 255):
        if wrong >= 0:
            with pytest.raises(ValueError, match="gaps must end"):
                decode_positions("gaps", stored, wrong)


@pytest.mark.parametrize(
    ("every", "code", "size"),
    [(2, "bitmask", 100), (100, "gaps", 8), (801, "gaps", 3)],
)
def test_the_smaller_code_is_taken(every, code, size):
    found, stored = encode_positions((np.arange(800) + 1) % every == 0)
    assert (found, len(stored)) == (code, size)


@pytest.mark.parametrize(
    ("code", "stored", "size"),
    [
        ("bitmask", np.array([255], np.uint8), 7),
        ("bitmask", np.array([1], np.uint8), 9),
        ("bitmask", EMPTY, 1),
        ("gaps", EMPTY, 255),
        ("gaps", EMPTY, 2**31),
        ("gaps", np.array([3], np.uint8), 3),
        ("gaps", np.array([255], np.uint8), 510),
        ("gaps", np.array([3], np.int64), 4),
        ("gaps", np.array([[3]], np.uint8), 4),
    ],
)
def test_bytes_of_no_mask(code, stored, size):
    with pytest.raises(ValueError, match=r"bitmask|gaps|positions"):
        decode_positions(code, stored, size)


SHAPES_OF_NOTHING = [[0], [-1], [2, -3], [1] * 9, [2**31 + 1], [2**16, 2**16], [2**31] * 8]
SHAPES_OF_NOTHING += [[10**400], [1.0], [True], ["3"], [[3]], [None], None, 3, "33", {"3": 3}, (3,)]


@pytest.mark.parametrize("shape", SHAPES_OF_NOTHING, ids=lambda shape: str(shape)[:20])
def test_shapes_of_nothing(shape):
    with pytest.raises(ValueError, match=r"a (shape|tensor) must"):
        check_shape(shape)


def test_nothing_is_allocated_for_what_is_not_there():
    tracemalloc.start()
    for code in ("gaps", "bitmask"):
        with pytest.raises(ValueError, match=r"must end|cannot have"):
            decode_positions(code, np.full(100, 255, np.uint8), 2**31)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
