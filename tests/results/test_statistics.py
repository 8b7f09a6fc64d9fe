"""Intervals cover what they say, p agrees with them, and many comparisons stay honest."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import ttest_rel

from sculpt.results.statistics import (
    CONFIDENCE,
    FEWEST,
    RESAMPLES,
    bootstrap_t,
    compare_paired,
    compare_unpaired,
    student_t,
    verdict,
)

# Differences of mean zero. The numbers in the docstring of `statistics` come from these.
DRAW: dict[str, Callable[..., np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
    "lognormal": lambda rng, shape: np.exp(rng.normal(0, 0.5, shape)) - np.exp(0.125),
    "heavy": lambda rng, shape: rng.standard_t(3, shape),
}
COVERAGE = {  # seeds, differences -> bootstrap-t, Student; None: not asserted
    (3, "normal"): (None, 0.951),
    (3, "exponential"): (None, 0.885),
    (5, "normal"): (0.949, 0.951),
    (5, "exponential"): (0.930, 0.883),
    (5, "lognormal"): (0.933, 0.913),
    (5, "heavy"): (0.950, 0.964),
    (8, "normal"): (0.947, 0.948),
    (8, "exponential"): (0.934, 0.891),
    (8, "lognormal"): (0.939, 0.919),
    (8, "heavy"): (0.933, 0.963),
    (10, "normal"): (0.951, 0.950),
    (10, "exponential"): (0.942, 0.900),
    (10, "heavy"): (0.931, 0.960),
}


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "kind"), COVERAGE, ids=str)
def test_coverage(seeds, kind):
    """3,000 draws: shares have standard errors of 0.4 to 0.6 points, and 3 are allowed."""
    rng = np.random.default_rng(seeds)
    differences = DRAW[kind](rng, (3000, seeds))
    for stated, judged in zip(COVERAGE[seeds, kind], (fast_bootstrap, student_t), strict=True):
        if stated is None:
            continue
        low, high, p = judged(differences)
        inside = (low <= 0) & (high >= 0)
        assert inside.mean() == pytest.approx(stated, abs=0.016)
        if kind == "normal":
            assert inside.mean() == pytest.approx(CONFIDENCE, abs=0.013)
        assert (inside == (p >= 0.05)).all(), "the p and the interval say the same"
    if seeds >= FEWEST:
        assert fast_bootstrap(differences)[2].min() > 0
        assert COVERAGE[seeds, kind][0] > 0.92, "whatever the differences are like"


def fast_bootstrap(differences: np.ndarray) -> tuple[np.ndarray, ...]:
    parts = [bootstrap_t(part, resamples=3999) for part in np.array_split(differences, 10)]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def test_few_seeds_are_too_coarse_to_be_resampled():
    """Why `FEWEST` is what it is: differences of 4 standard deviations among 40 candidates."""
    found = {}
    for seeds in (5, FEWEST - 1, FEWEST):
        differences = np.random.default_rng(1).normal(4, 1, (300, seeds))
        parts = np.array_split(differences, 10)
        p = np.concatenate([bootstrap_t(part, resamples=19_999)[2] for part in parts])
        found[seeds] = np.mean(p < 0.05 / 40)
        assert np.mean(student_t(differences)[2] < 0.05 / 40) > found[seeds] - 0.02
    assert found[5] < 0.35
    assert found[FEWEST - 1] < 0.85 < found[FEWEST]


@pytest.mark.parametrize("seeds", [2, 3, 5, FEWEST - 1])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_few_seeds_as_scipy_has_it(seeds, confidence):
    rng = np.random.default_rng(seeds)
    base = rng.normal(0.2, 0.02, seeds)
    candidate = base + rng.normal(-0.01, 0.01, seeds)
    found = compare_paired(candidate.tolist(), base.tolist(), confidence)
    expected = ttest_rel(candidate, base)
    interval = expected.confidence_interval(confidence)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.n, found.method) == (seeds, "student")


def test_bootstrap_against_itself_written_out():
    """The oracle draws and studentises one resample after another."""
    rng = np.random.default_rng(3)
    differences = rng.exponential(0.01, 9)
    found = compare_paired((0.1 + differences).tolist(), [0.1] * 9)
    mean, error = differences.mean(), differences.std(ddof=1) / 3
    studentised = []
    for _ in range(20_000):
        drawn = rng.choice(differences, 9)
        studentised.append((drawn.mean() - mean) / (drawn.std(ddof=1) / 3))
    assert found is not None
    assert found.method == "bootstrap"
    assert found.difference == pytest.approx(mean)
    # Shares and no quantiles, because between two of so few resamples there may be a gap.
    above, below = (mean - found.low) / error, (mean - found.high) / error
    assert np.mean(np.array(studentised) > above) == pytest.approx(0.025, abs=0.004)
    assert np.mean(np.array(studentised) < below) == pytest.approx(0.025, abs=0.004)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_zero_is_outside_exactly_where_p_is_small(confidence):
    rng = np.random.default_rng(0)
    inside = set()
    for shift in np.linspace(0, 1.2, 40):
        low, high, p = bootstrap_t(rng.normal(shift, 1, (1, 10)), confidence)
        assert (low[0] <= 0 <= high[0]) == (p[0] >= 1 - confidence - 1e-12)
        inside.add(bool(low[0] <= 0 <= high[0]))
    assert inside == {True, False}


def test_the_same_at_every_call_and_mirrored():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.1, 0.01, (2, 12)).tolist()
    found, again, mirrored = (compare_paired(*x) for x in ((one, other),) * 2 + ((other, one),))
    assert found == again
    assert found is not None
    assert mirrored is not None
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert mirrored.p == pytest.approx(found.p)


@pytest.mark.parametrize("count", [2, 3, 5, 8, 20])
@pytest.mark.parametrize("shift", [0.0, -0.1, 0.3])
def test_equal_differences(count, shift):
    base = np.random.default_rng(count).uniform(0.1, 0.9, count)
    found = compare_paired((base + shift).tolist(), base.tolist())
    assert found is not None
    assert found.low == found.high == found.difference == pytest.approx(shift)
    # As flipping signs has it; two seeds that agree on few images are no proof.
    assert found.p == (2.0 ** (1 - count) if shift else 1.0)


@pytest.mark.parametrize(
    ("differences", "method"),
    [
        ([0.0] * 7 + [0.002], "student"),  # 34 % of resamples are zeros alone
        ([0.01] * 7 + [0.02], "student"),
        ([0.0] * 6 + [-0.002, 0.002], "bootstrap"),
        ([0.01, 0.02] * 4, "bootstrap"),
    ],
)
def test_many_ties_leave_a_finite_interval(differences, method):
    found = compare_paired([0.1 + d for d in differences], [0.1] * 8)
    assert found is not None
    assert found.method == method
    assert np.isfinite([found.low, found.high, found.p]).all()
    assert found.low < found.difference < found.high
    assert (found.low <= 0 <= found.high) == (found.p >= 0.05)


@pytest.mark.parametrize(
    ("candidate", "base"), [([], []), ([0.1], [0.2]), ([0.1, 0.2], [0.1]), ([0.1], [0.1, 0.2])]
)
def test_what_cannot_be_paired(candidate, base):
    assert compare_paired(candidate, base) is None
    assert verdict(None, 1.0) == "single seed"


def test_the_best_of_a_thousand_can_be_told():
    assert 2 / (RESAMPLES + 1) * 1000 < 0.05


def test_unpaired_is_welchs():
    from scipy.stats import ttest_ind

    one, other = [0.31, 0.29, 0.35, 0.30], [0.41, 0.33, 0.37]
    found = compare_unpaired(one, other)
    expected = ttest_ind(one, other, equal_var=False)
    assert found is not None
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.n, found.method) == (3, "welch")
    assert compare_unpaired([0.1], other) is None
    assert compare_unpaired([0.1, 0.1], [0.2, 0.2]) is None


def test_a_seed_on_which_both_diverged_hides_no_other():
    worst = 3.4e38
    found = compare_paired([worst, 1, 1.1, 1, 1.05], [worst, 2, 2.3, 2.1, 2.2])
    assert found.method == "student"
    assert found.low < found.difference < found.high


@pytest.mark.parametrize("values", [(0.1, 0.2), (0.1, 0.1001), (0.25, 0.5), (1e-9, 3e-9)])
def test_rounding_is_no_spread(values):
    one, other = values
    assert compare_unpaired([one] * 3, [other] * 6) is None
