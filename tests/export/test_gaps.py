"""Steps between kept weights give their positions back, whatever the mask."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sculpt.export.gaps import encode_gaps


@given(
    st.lists(st.integers(0, 200_000), unique=True, max_size=20),
    st.integers(0, 400),
    st.sampled_from([np.uint8, np.uint16]),
)
def test_positions_come_back(positions, behind, dtype):
    kept = np.zeros(max(positions, default=0) + 1 + behind, bool)
    kept[positions] = True
    steps, fillers = encode_gaps(kept, dtype)
    entries = np.cumsum(steps)
    assert steps.dtype == dtype
    assert steps.shape == fillers.shape
    assert entries[~fillers].tolist() == sorted(positions)
    assert len(set(entries)) == len(entries)


@pytest.mark.parametrize(
    ("position", "steps"),
    [(0, [0]), (255, [255]), (256, [255, 1]), (510, [255, 255]), (511, [255, 255, 1])],
)
def test_only_steps_that_are_too_long_are_filled(position, steps):
    kept = np.zeros(600, bool)
    kept[position] = True
    found, fillers = encode_gaps(kept)
    assert found.tolist() == steps
    assert fillers.tolist() == [True] * (len(steps) - 1) + [False]
