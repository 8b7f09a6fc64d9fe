"""The paired interval covers what it says, and the verdict reads it correctly."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from sculpt.results.statistics import CONFIDENCE, paired_interval, verdict


@pytest.mark.parametrize("count", [2, 3, 5, 10, 50])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_as_scipy_has_it(count, confidence):
    rng = np.random.default_rng(count)
    base = rng.normal(0.2, 0.02, count)
    candidate = base + rng.normal(-0.01, 0.01, count)
    low, high = paired_interval(candidate.tolist(), base.tolist(), confidence)
    expected = ttest_rel(candidate, base).confidence_interval(confidence)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_by_hand():
    """Differences 1, 2, 3: mean 2, std 1, and t(0.975, 2) = 4.302653."""
    half = 4.302653 / 3**0.5
    interval = paired_interval([11, 22, 33], [10, 20, 30])
    assert interval == pytest.approx((2 - half, 2 + half), abs=1e-6)
    assert CONFIDENCE == 0.95


@pytest.mark.parametrize("count", [3, 4, 6, 10])
def test_coverage_of_normal_differences(count):
    """2,000 draws: the share that covers has a standard error of half a point."""
    rng = np.random.default_rng(100 + count)
    truth, draws = -0.013, 2000
    base = rng.normal(0.3, 0.1, (draws, count))  # shared by both: pairing takes it out
    candidate = base + rng.normal(truth, 0.02, (draws, count))
    intervals = [paired_interval(c, b) for c, b in zip(candidate, base, strict=True)]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert 0.93 < covered < 0.97
    below = np.mean([high < truth for _, high in intervals])
    above = np.mean([low > truth for low, _ in intervals])
    assert 0.01 < below < 0.04
    assert 0.01 < above < 0.04


def test_verdict_is_wrong_once_in_twenty_without_a_difference():
    rng = np.random.default_rng(0)
    verdicts = [verdict(*rng.normal(0.1, 0.01, (2, 5))) for _ in range(2000)]
    shares = {word: verdicts.count(word) / 2000 for word in set(verdicts)}
    assert shares["not distinguishable"] == pytest.approx(0.95, abs=0.02)
    assert shares["better"] == pytest.approx(0.025, abs=0.015)
    assert shares["worse"] == pytest.approx(0.025, abs=0.015)


@pytest.mark.parametrize(
    ("candidate", "base", "expected"),
    [
        ([0.10, 0.11, 0.12], [0.20, 0.21, 0.23], "better"),
        ([0.20, 0.21, 0.23], [0.10, 0.11, 0.12], "worse"),
        ([0.10, 0.30, 0.20], [0.20, 0.20, 0.21], "not distinguishable"),
        # Better on average, but one seed of three says otherwise.
        ([0.10, 0.10, 0.21], [0.20, 0.20, 0.20], "not distinguishable"),
        # Only pairing shows this one: the seeds differ by far more than the networks.
        ([0.09, 0.39, 0.69], [0.10, 0.401, 0.70], "better"),
        ([0.1], [0.2], "single seed"),
        ([0.2], [0.1], "single seed"),
    ],
)
def test_verdict(candidate, base, expected):
    assert verdict(candidate, base) == expected


@pytest.mark.parametrize(
    ("shift", "expected"), [(0.0, "not distinguishable"), (-0.25, "better"), (0.25, "worse")]
)
def test_identical_differences(shift, expected):
    base = [0.5, 0.25, 0.75]
    candidate = [value + shift for value in base]
    assert paired_interval(candidate, base) == (shift, shift)
    assert verdict(candidate, base) == expected


def test_the_two_sides_are_mirror_images():
    one, other = [0.1, 0.3, 0.25, 0.2], [0.2, 0.25, 0.3, 0.35]
    low, high = paired_interval(one, other)
    assert paired_interval(other, one) == pytest.approx((-high, -low))


@pytest.mark.parametrize(
    ("candidate", "base"), [([], []), ([0.1], [0.2]), ([0.1, 0.2], [0.1]), ([0.1], [0.1, 0.2])]
)
def test_too_few_values_or_unpaired_ones_are_refused(candidate, base):
    with pytest.raises(ValueError, match=rf"got {len(candidate)} and {len(base)}"):
        paired_interval(candidate, base)
