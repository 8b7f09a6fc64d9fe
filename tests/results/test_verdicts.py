"""Verdicts: by the adjusted p and the sign, over a whole family of comparisons."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from sculpt.results.statistics import Comparison, holm, judge, verdict


@pytest.mark.parametrize(
    ("given", "adjusted"),
    [
        # By hand: 4 · 0.005, 3 · 0.01, 2 · 0.03, and 0.04 may not fall below the one before.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.2, 0.5, 0.6], [0.6, 1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.0, 1.0], [0.0, 1.0]),
        ([0.03], [0.03]),
        ([], []),
    ],
)
def test_holm_by_hand(given, adjusted):
    assert holm(given) == pytest.approx(adjusted)


def test_holm_rejects_as_its_definition_does():
    """Step down: reject the smallest while it is below α over how many are left."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.uniform(0, rng.choice([0.02, 0.2, 1]), rng.integers(1, 12))
        rejected = np.zeros(len(p), dtype=bool)
        for step, index in enumerate(np.argsort(p)):
            if p[index] >= 0.05 / (len(p) - step):
                break
            rejected[index] = True
        assert ((np.array(holm(p.tolist())) < 0.05) == rejected).all()


@pytest.mark.parametrize(
    ("difference", "p", "expected"),
    [
        (-0.01, 0.049, "better"),
        (0.01, 0.049, "worse"),
        (-0.01, 0.05, "not distinguishable"),
        (0.0, 1.0, "not distinguishable"),
    ],
)
def test_verdict(difference, p, expected):
    found = Comparison(difference, difference - 1, difference + 1, 0.0, 5, "student")
    assert verdict(found, p) == expected


@pytest.mark.parametrize(
    ("candidate", "base", "expected"),
    [
        ([0.10, 0.11, 0.12], [0.20, 0.21, 0.23], "better"),
        ([0.20, 0.21, 0.23], [0.10, 0.11, 0.12], "worse"),
        # Better on average, but one seed of three says otherwise.
        ([0.10, 0.10, 0.21], [0.20, 0.20, 0.20], "not distinguishable"),
        # Only pairing shows this one: the seeds differ by far more than the networks.
        ([0.09, 0.39, 0.69], [0.10, 0.401, 0.70], "better"),
        ([0.1], [0.2], "single seed"),
    ],
)
def test_one_pair(candidate, base, expected):
    assert judge([(candidate, base)])[0]["verdict"] == expected


def test_a_family_is_judged_together():
    """Holm's factor is the number of comparisons, those to come included."""
    base, good = [0.20, 0.21, 0.22, 0.20], [0.15, 0.18, 0.17, 0.17]
    p = ttest_rel(good, base).pvalue
    assert 0.05 / 9 < p < 0.05 / 8
    unclear = ([0.1, 0.3, 0.2, 0.2], base)
    for others, family, factor, expected in [
        (0, 0, 1, "better"),
        (7, 0, 8, "better"),
        (8, 0, 9, "not distinguishable"),
        (0, 9, 9, "not distinguishable"),
        (2, 8, 8, "better"),
    ]:
        first = judge([(good, base), *[unclear] * others, ([0.1], [0.1])], family)[0]
        assert first["verdict"] == expected
        assert first["difference"]["p"] == pytest.approx(p)
        assert first["difference"]["p_holm"] == pytest.approx(factor * p)
