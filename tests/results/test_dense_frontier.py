"""What sparse networks are worth in dense ones, by hand, on studies whose trials are made up."""

from dataclasses import replace
from math import exp, log, sqrt

import numpy as np
import pytest
from rigged import add_trial, attributes, printed, results_of, rigged_store
from scipy.stats import t as student

import sculpt
from sculpt.presentation.candidate_figures import error_against_size
from sculpt.presentation.content import collect
from sculpt.presentation.figures.rendering import write_picture
from sculpt.presentation.markdown import write_markdown
from sculpt.results.dense_frontier import dense_frontier
from sculpt.results.tables.ranking import ranking_tables
from sculpt.results.verdict import verdict_of
from sculpt.search.confirmation_queue import best_dense

SIZES = {1000: [0.40, 0.42, 0.41], 2000: [0.30, 0.33, 0.30], 4000: [0.20, 0.21, 0.22]}
"""Parameters of dense networks, the base's first: errors of three seeds."""
WIDE_AND_BAD = [0.39, 0.40, 0.41]


def study(folder, candidates, sizes=None, **kept):
    """Return the results of a study with a dense base, dense opponents and candidates."""
    sizes = dict(SIZES if sizes is None else sizes)
    base, *others = sizes
    entries = [{"name": "dense", "budget": size} for size in others]
    store = rigged_store(folder, opponents=[*entries, {"name": "erk", "widening": 2}])

    def dense(size, role):
        found = {"budget": size, "kept_parameters": size, "kept_macs": 10.0 * size}
        found |= {key: value * size for key, value in kept.items()}
        return attributes(sizes[size], role=role, **found)

    add_trial(store.base, dense(base, "base"))
    for entry, size in zip(entries, others, strict=True):
        add_trial(store.opponents, dense(size, "opponent") | {"opponent": entry})
    erk = {"budget": base, "kept_parameters": base, "opponent": {"name": "erk", "widening": 2}}
    add_trial(store.opponents, attributes([0.01] * 3, role="opponent") | erk)
    for errors, macs in candidates:
        size = {"budget": base, "kept_parameters": base, "kept_macs": macs}
        add_trial(store.candidates, attributes(errors, **size), {"widening": 2})
    return results_of(store)


def worth(results, cost="kept_parameters"):
    """Return the rows of one cost, by trial."""
    found = dense_frontier(results)
    assert found is not None
    return {row["trial"]: row for row in found["worth"] if row["cost"] == cost}


def test_the_line_is_straight_in_the_logarithm_of_the_size(tmp_path):
    # 0.26 lies half way between 0.31 and 0.21, and so does its size in the logarithm.
    results = study(tmp_path / "a", [([0.25, 0.27, 0.26], 30_000.0)])
    (row,) = worth(results).values()
    assert row["dense"] == pytest.approx(sqrt(2000 * 4000), rel=1e-3)
    assert row["beyond"] is None
    assert row["own"] == 1000
    # The same network has 30,000 MACs, and a dense one of its error ten for each parameter.
    (row,) = worth(results, "kept_macs").values()
    assert row["dense"] == pytest.approx(10 * sqrt(2000 * 4000), rel=1e-3)
    assert row["own"] == 30_000
    assert not worth(results, "latency")


def test_the_interval_is_where_a_t_test_on_paired_seeds_tells_nothing(tmp_path):
    errors = [0.25, 0.28, 0.26]
    (row,) = worth(study(tmp_path / "a", [(errors, 30_000.0)])).values()

    def is_told(size):
        """Tell by hand whether the candidate differs from dense networks of a size."""
        sizes = sorted(SIZES)
        right = next(place for place in range(1, 3) if size <= sizes[place])
        left = sizes[right - 1]
        part = log(size / left) / log(sizes[right] / left)
        pairs = zip(SIZES[left], SIZES[sizes[right]], strict=True)
        dense = [(1 - part) * small + part * large for small, large in pairs]
        differences = np.subtract(errors, dense)
        error = differences.std(ddof=1) / sqrt(3)
        return abs(differences.mean()) > student.ppf(0.975, 2) * error

    for end, outward in ((row["low"], -1), (row["high"], 1)):
        assert is_told(end * exp(0.004 * outward))
        assert not is_told(end * exp(-0.004 * outward))
    assert row["low"] < row["dense"] < row["high"]


@pytest.mark.parametrize(
    ("errors", "dense", "beyond", "low", "high"),
    [
        ([0.10, 0.11, 0.12], 4000, "above", 4000, None),
        ([0.18, 0.24, 0.20], 4000, "above", "some", None),
        ([0.50, 0.51, 0.52], 1000, "below", None, 1000),
        ([0.41, 0.43, 0.42], 1000, "below", None, 1000),
        ([0.10, 0.60, 0.30], "some", None, None, None),
        # A network of the frontier itself.
        (SIZES[2000], 2000, None, 2000, 2000),
    ],
)
def test_beyond_the_networks_that_were_trained(tmp_path, errors, dense, beyond, low, high):
    (row,) = worth(study(tmp_path / "a", [(errors, 1000.0)])).values()
    assert row["beyond"] == beyond
    for key, expected in (("dense", dense), ("low", low), ("high", high)):
        if expected == "some":
            assert 1000 < row[key] < 4001
        else:
            assert row[key] == (expected and pytest.approx(expected, rel=5e-3))


@pytest.mark.parametrize(
    ("sizes", "errors", "beyond"),
    [
        # The farther network spreads more, so that the candidate is told from the nearer alone.
        ({1000: [0.30, 0.31, 0.30], 2000: [0.10, 0.30, 0.20]}, [0.32, 0.33, 0.325], "below"),
        ({1000: [0.40, 0.20, 0.33], 2000: [0.20, 0.21, 0.20]}, [0.19, 0.195, 0.185], "above"),
    ],
)
def test_an_interval_never_leaves_out_what_it_is_of(tmp_path, sizes, errors, beyond):
    (row,) = worth(study(tmp_path / "a", [(errors, 1000.0)], sizes)).values()
    assert row["beyond"] == beyond
    assert row["low" if beyond == "below" else "high"] is None
    assert (row["low"] or 0) <= row["dense"] <= (row["high"] or 1e9)


def test_a_dense_network_that_another_beats_bends_no_line(tmp_path):
    candidate = [([0.25, 0.27, 0.26], 30_000.0)]
    (without,) = worth(study(tmp_path / "a", candidate)).values()
    worse = study(tmp_path / "b", candidate, SIZES | {3000: WIDE_AND_BAD})
    (row,) = worth(worse).values()
    assert row == without
    frontier = dense_frontier(worse)
    assert frontier is not None
    found = [(row["kept_parameters"], row["on_frontier"]) for row in frontier["networks"]]
    assert found == [(1000, True), (2000, True), (3000, False), (4000, True)]


def test_networks_of_no_candidates_size_are_not_confirmed(tmp_path):
    results = study(tmp_path / "a", [([0.25, 0.27, 0.26], 30_000.0)])
    assert best_dense(results.store) == []
    entry = {"name": "dense", "blocks": 1}
    both = rigged_store(tmp_path / "b", opponents=[entry, {"name": "dense", "widening": 2}])
    for found, size in ((entry, 4874), ({"name": "dense", "widening": 2}, 9000)):
        kept = attributes([0.1, 0.2], role="opponent", budget=size)
        add_trial(both.opponents, kept | {"opponent": found})
    add_trial(both.candidates, attributes([0.1, 0.2]), {"widening": 2})
    assert best_dense(both) == ["dense blocks 1"]


def test_those_of_a_candidates_size_or_macs_are_confirmed(tmp_path):
    """By the rule that compares them, whatever the budget of their own says."""
    entries = [{"name": "dense", "blocks": 1}, {"name": "dense", "widening": 2.5}]
    for name, budget in (("macs", {"macs": "base"}), ("size", "base")):
        store = rigged_store(tmp_path / name, opponents=entries, budget=budget)
        wide = {"kept_macs": 9000.0} if name == "macs" else {"kept_parameters": 9000}
        for entry, found in zip(entries, ({"budget": 4890}, wide), strict=True):
            kept = attributes([0.3, 0.3] if entry == entries[0] else [0.1, 0.1], role="opponent")
            add_trial(store.opponents, kept | found | {"opponent": entry})
        add_trial(store.candidates, attributes([0.2, 0.2]), {"widening": 2})
        assert best_dense(store) == ["dense blocks 1"]


def test_latency_where_it_was_measured(tmp_path):
    results = study(tmp_path / "a", [([0.25, 0.27, 0.26], 1000.0)], latency=1e-6)
    # The candidate's own was not measured.
    assert not worth(results, "latency")
    assert dense_frontier(results)["networks"][0]["latency"] == pytest.approx(1e-3)


def test_studies_without_dense_networks_of_other_sizes_have_none(tmp_path):
    candidate = [([0.25, 0.27, 0.26], 1000.0)]
    for place, sizes in enumerate(({1000: [0.4, 0.4, 0.4]}, {1000: [0.4] * 3, 1005: [0.3] * 3})):
        results = study(tmp_path / f"{place}", candidate, sizes)
        assert dense_frontier(results) is None
        document = sculpt.rank(results)
        assert "frontier" not in document
        assert "times its parameters" not in verdict_of(document).headline
        assert "dense networks of all sizes" not in printed(ranking_tables(document))
        assert error_against_size(collect(results)) is None
    single = {size: errors[:1] for size, errors in SIZES.items()}
    assert dense_frontier(study(tmp_path / "single", [([0.3], 1000.0)], single)) is None


def test_candidates_of_other_seeds_have_no_worth_and_are_drawn(tmp_path):
    results = study(tmp_path / "a", [([0.25, 0.27], 1000.0)])
    assert worth(results) == {}
    document = sculpt.rank(results)
    assert "dense networks of all sizes" not in printed(ranking_tables(document))
    figure = error_against_size(collect(results))
    assert figure["datasets"]["worth"] == []
    write_picture(figure, tmp_path / "sizes.png")


def test_it_is_told_and_drawn(tmp_path):
    candidates = [([0.25, 0.27, 0.26], 30_000.0), ([0.10, 0.11, 0.12], 30_000.0)]
    results = study(tmp_path / "a", candidates)
    document = sculpt.rank(results)
    text = printed(ranking_tables(document))
    assert "against dense networks of all sizes" in text
    assert "> 4,000 [4,000, …]" in text
    verdict = verdict_of(document)
    assert verdict.headline.endswith(
        "A dense network of the same validation error as trial 1 has > 4 [4, …] times its "
        "parameters."
    )
    facts = dict(verdict.facts.rows)
    assert facts["parameters of a dense network of the same error"] == (
        "trial 1: > 4,000 [4,000, …], > 4 [4, …] times its own"
    )
    assert facts["MACs of a dense network of the same error"].endswith(
        "> 1.33 [1.33, …] times its own"
    )
    figure = error_against_size(collect(results))
    (line,) = figure["datasets"]["worth"]
    assert (line["x"], line["to"], line["text"]) == (1000, 4000, "> 4 times the parameters")
    assert [row["x"] for row in figure["datasets"]["frontier"]] == sorted(SIZES)
    write_markdown(results, tmp_path / "report.md")
    assert (tmp_path / "report-figures" / "sizes.png").stat().st_size > 5000
    assert "## Against dense networks of all sizes" in (tmp_path / "report.md").read_text()
    sculpt.report(results, tmp_path / "report.html")
    assert 'id="opponents"' in (tmp_path / "report.html").read_text()


def test_confirmed_candidates_are_drawn_again(tmp_path):
    content = collect(study(tmp_path / "a", [([0.25, 0.27, 0.26], 30_000.0)]))
    assert "confirmed" not in error_against_size(content)["datasets"]
    fresh = {"mean": 0.28, "std": 0.01, "n": 8}
    row = {"trial": 0, "arm": "sculpted", "kept_parameters": 1000, "val_error": fresh}
    others = [row | {"arm": "shuffled"}, row | {"trial": 1, "val_error": None}]
    document = content.document | {"confirmation": {"rows": [row, *others]}}
    figure = error_against_size(replace(content, document=document))
    (drawn,) = figure["datasets"]["confirmed"]
    found = [drawn[key] for key in ("x", "low", "y", "high")]
    assert found == [1000, *map(pytest.approx, (27, 28, 29))]
    assert drawn["text"].startswith("trial 0, on fresh seeds")
    write_picture(figure, tmp_path / "sizes.png")
