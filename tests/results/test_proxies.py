"""Rank correlations where they are known beforehand."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rigged import RiggedResults, attributes
from scipy.stats import spearmanr

from sculpt.results.proxies import proxies, spearman


def table(errors: list[float], columns: dict[str, list[Any]]) -> Any:
    """Return results with one candidate for each error, and these columns."""
    rows = [{"trial": "base"} | attributes([0.5], "base", kept_macs=1e9)]
    for number, error in enumerate(errors):
        changes = {name: values[number] for name, values in columns.items()}
        rows.append({"trial": number} | attributes([error]) | changes)
    return RiggedResults(rows)


def found(errors: list[float], **columns: list[Any]) -> dict[str, dict[str, Any]]:
    return {row["proxy"]: row for row in proxies(table(errors, columns))}


ERRORS = [0.1, 0.2, 0.3, 0.4, 0.5]


def test_monotone_and_constant():
    rows = found(
        ERRORS,
        pruned_effective_nodes=[50, 40, 30, 20, 10],
        pruned_orthogonality_score=[1.0, 8.0, 9.0, 9.5, 99.0],
        kept_macs=[7.0] * 5,
    )
    # 2 of the 120 orders of 5 agree or disagree entirely.
    assert rows["effective_nodes"] == {
        "proxy": "effective_nodes",
        "rho": -1.0,
        "p": pytest.approx(2 / 120),
        "n": 5,
    }
    assert rows["orthogonality_score"]["rho"] == 1.0
    assert rows["kept_macs"] == {"proxy": "kept_macs", "rho": None, "p": None, "n": 5}
    assert "score_kept" not in rows, "no candidate has it"


def test_ties_by_hand():
    """Ranks 1.5 1.5 3 4.5 4.5 against 1 2 3 4 5: rho = 9 / √(9 · 10)."""
    rows = found(ERRORS, score_share=[0.1, 0.1, 0.2, 0.7, 0.7])
    assert rows["score_share"]["rho"] == pytest.approx(9 / math.sqrt(90))


def test_the_last_step_that_was_taken():
    rows = found(
        ERRORS,
        pruned_effective_parameters=[5, 4, 3, 2, 1],
        repaired_effective_parameters=[None, 10, 20, 30, 40],
    )
    expected = spearmanr([5, 10, 20, 30, 40], ERRORS).statistic
    assert rows["effective_parameters"]["rho"] == pytest.approx(expected)


def test_isometry_is_as_far_from_half_as_from_twice():
    rows = found([0.3, 0.1, 0.3, 0.5, 0.5], repaired_jacobian_mean=[0.5, 1.0, 2.0, 1 / 16, 16.0])
    assert rows["jacobian_mean"]["rho"] == pytest.approx(1.0)
    assert found(ERRORS, pruned_jacobian_mean=[1.0, 0.5, 0.1, 0.01, 0.0])["jacobian_mean"][
        "rho"
    ] == pytest.approx(1.0)


def test_no_path_is_fewest_paths():
    rows = found(
        ERRORS,
        pruned_effective_nodes=[9, 8, 7, 6, 0],
        pruned_log10_paths=[40.0, 30.0, 20.0, -3.0, None],
    )
    assert (rows["log10_paths"]["rho"], rows["log10_paths"]["n"]) == (-1.0, 5)


def test_errors_at_the_rungs():
    rungs = [{"1": 0.9, "3": 0.1}, {"1": 0.8, "3": 0.2}, {"1": 0.7, "3": 0.3}, {"1": 0.6}, None]
    rows = found(ERRORS, rungs=rungs)
    after_one, after_three = rows["val_error_after_1"], rows["val_error_after_3"]
    assert (after_one["rho"], after_one["n"]) == (-1.0, 4)
    assert (after_three["rho"], after_three["n"]) == (1.0, 3)


def test_the_strongest_first_and_two_candidates_say_nothing():
    rows = proxies(
        table(
            ERRORS,
            {
                "score_kept": [1.0, None, None, None, 2.0],
                "score_share": [0.3, 0.1, 0.2, 0.5, 0.4],
                "dense_parameters": [5, 4, 3, 2, 1],
            },
        )
    )
    shown = [(row["proxy"], row["rho"] is None) for row in rows]
    assert shown[:2] == [("dense_parameters", False), ("score_share", False)]
    assert {("score_kept", True), ("kept_macs", True)} == set(shown[2:])
    assert next(row["n"] for row in rows if row["proxy"] == "score_kept") == 2
    assert proxies(table([], {})) == []


@pytest.mark.parametrize("count", [4, 8, 40])
def test_as_scipy_has_it(count):
    rng = np.random.default_rng(count)
    for levels in (3, 1000):
        one, other = rng.integers(0, levels, (2, count)).astype(float)
        expected = spearmanr(one, other)
        rho, p = spearman(pd.Series(one), pd.Series(other))
        assert rho == pytest.approx(expected.statistic)
        assert p == pytest.approx(max(expected.pvalue, 2 / math.factorial(count)))
