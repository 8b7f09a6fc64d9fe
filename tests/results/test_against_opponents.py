"""What is said of candidates and opponents, by hand, on studies whose trials are made up."""

from statistics import mean

import pytest
from optuna.distributions import FloatDistribution
from rigged import add_trial, attributes, printed, results_of, rigged_store

import sculpt
from sculpt.presentation.content import collect
from sculpt.presentation.markdown import write_markdown
from sculpt.results.against_opponents import best_dense
from sculpt.results.pareto import pareto_document
from sculpt.results.statistics import compare_paired, holm
from sculpt.results.tables.pareto import pareto_table
from sculpt.results.tables.ranking import ranking_tables
from sculpt.results.verdict import verdict_of
from sculpt.units import duration

LISTED = [
    {"name": "dense", "blocks": 1},
    {"name": "dense", "blocks": 2, "budget": 9999},
    {"name": "erk", "widening": 2},
    {"name": "shuffled", "widening": 2},
]

BASE = [0.30, 0.31, 0.33, 0.32]
DENSE = [0.20, 0.22, 0.22, 0.21]
WIDE = [0.05, 0.06, 0.05, 0.06]
"""Of a dense opponent of another size."""
BETTER, LIKE = [0.10, 0.12, 0.11, 0.11], [0.21, 0.21, 0.23, 0.20]
ERK, SHUFFLED = [0.15, 0.18, 0.16, 0.16], [0.10, 0.13, 0.10, 0.11]
WORSE = [0.40, 0.42, 0.41, 0.43]


@pytest.fixture
def store(tmp_path):
    store = rigged_store(tmp_path / "opposed", opponents=LISTED)
    add_trial(store.base, attributes(BASE, role="base"))
    for errors, params in (
        (BETTER, {"widening": 2, "blocks": 1}),
        (LIKE, {"widening": 2, "blocks": 2}),
        (WORSE, {"widening": 3, "blocks": 1}),
    ):
        add_trial(store.candidates, attributes(errors), params)
    found = zip(LISTED, (DENSE, WIDE, ERK, SHUFFLED), strict=True)
    for entry, errors in found:
        size = {"budget": 9999, "kept_parameters": 9950} if "budget" in entry else {}
        kept = attributes(errors, role="opponent") | size | {"opponent": entry, "kept_macs": 2000.0}
        assert store.opponents is not None
        add_trial(store.opponents, kept)
    return store


def test_opponents_are_rows_of_the_ranking_and_not_of_the_candidates_family(store):
    document = sculpt.rank(results_of(store))
    rows = {row["trial"]: row for row in document["ranking"]}
    ranked = sorted(rows.values(), key=lambda row: row["val_error"]["mean"])
    assert [row["rank"] for row in ranked] == list(range(1, 9))
    assert [row["trial"] for row in ranked][:3] == [
        "dense blocks 2, budget 9999",
        0,
        "shuffled widening 2",
    ]
    errors = {0: BETTER, 1: LIKE, 2: WORSE}
    alone = [compare_paired(found, BASE).p for found in errors.values()]
    assert [rows[n]["difference"]["p_holm"] for n in errors] == pytest.approx(holm(alone))
    opposing = {
        "dense blocks 1": DENSE,
        "dense blocks 2, budget 9999": WIDE,
        "erk widening 2": ERK,
        "shuffled widening 2": SHUFFLED,
    }
    alone = [compare_paired(found, BASE).p for found in opposing.values()]
    assert [rows[label]["difference"]["p_holm"] for label in opposing] == pytest.approx(holm(alone))
    assert {rows[label]["role"] for label in opposing} == {"opponent"}
    assert [rows[label]["arm"] for label in opposing] == ["dense", "dense", "erk", "shuffled"]
    assert "arm" not in rows[0]


def test_candidates_are_compared_with_the_best_dense_network_of_their_size_and_own_controls(store):
    rows = sculpt.rank(results_of(store))["opponents"]
    assert [(row["arm"], row["trial"], row["against"]) for row in rows] == [
        ("dense", 0, "dense blocks 1"),
        ("dense", 1, "dense blocks 1"),
        ("dense", 2, "dense blocks 1"),
        # Only of trial 0: in the others the opponent's blocks are not theirs.
        ("shuffled", 0, "shuffled widening 2"),
        ("erk", 0, "erk widening 2"),
    ]
    by_hand = [compare_paired(errors, DENSE) for errors in (BETTER, LIKE, WORSE)]
    corrected = holm([comparison.p for comparison in by_hand])
    for row, comparison, p in zip(rows, by_hand, corrected, strict=False):
        assert row["difference"]["mean"] == pytest.approx(comparison.difference)
        assert row["difference"]["p_holm"] == pytest.approx(p)
    assert [row["verdict"] for row in rows] == [
        "better",
        "not distinguishable",
        "worse",
        "not distinguishable",
        "better",
    ]
    assert rows[4]["difference"]["mean"] == pytest.approx(mean(BETTER) - mean(ERK))


def test_the_verdict_says_so(store):
    found = verdict_of(sculpt.rank(results_of(store)))
    assert found.headline == (
        "2 of 3 candidates are better than the dense base by validation error. Against the best "
        "dense network of this size (dense blocks 1), 1 of 3 can be told to be better by "
        "validation error, and 1 to be worse. A dense network of the same validation error as "
        "trial 0 has 1.59 [1.56, 1.63] times its parameters."
    )
    facts = dict(found.facts.rows)
    assert facts["against a random mask (ERK) on its network"].startswith("1 better by validation")
    assert facts["against its own mask, shuffled in layers"].startswith("1 not distinguishable")
    assert facts["lowest validation error"].startswith("trial 0 ")


def test_the_base_is_the_best_dense_network_where_it_is(store):
    results = results_of(store)
    rows = [row | {"val_errors": [0.01] * 4, "val_error_mean": 0.01} for row in results.finished]
    base = [row for row in rows if row["role"] == "base"]
    dense = [row for row in results.opponent_rows if row["arm"] == "dense"]
    best = best_dense([*base, *dense], {"budget": 4874}, results.config)
    assert best is not None
    assert best["trial"] == "base"
    assert best_dense([*base, *dense], {"budget": 20_000}, results.config) is None


def test_opponents_are_on_no_front_and_change_no_hypervolume(store, tmp_path):
    bare = rigged_store(tmp_path / "bare", study="bare")
    add_trial(bare.base, attributes(BASE, role="base"))
    for errors in (BETTER, LIKE, WORSE):
        add_trial(bare.candidates, attributes(errors), {"widening": 2, "blocks": 1})
    document, without = pareto_document(results_of(store)), pareto_document(results_of(bare))
    (front,) = document["fronts"]
    assert [row["trial"] for row in front["opponents"]] == [
        "dense blocks 1",
        "dense blocks 2, budget 9999",
        "erk widening 2",
        "shuffled widening 2",
    ]
    assert front["hypervolume"] == without["fronts"][0]["hypervolume"]
    assert [row["trial"] for row in front["front"]] == [0]
    assert document["dominated"] == without["dominated"] == 3
    assert "opponents" not in without["fronts"][0]
    assert "erk widening 2" in printed(pareto_table(document))
    table = sculpt.pareto(results_of(store), dominated=True)
    assert not table.loc[table["role"] == "opponent", "on_front"].any()
    assert set(sculpt.pareto(results_of(store))["role"]) == {"candidate"}


def test_a_report_and_the_terminal_show_them(store, tmp_path):
    results = results_of(store)
    content = collect(results)
    assert [trial.name for trial in content.candidates] == ["trial 0", "trial 1", "trial 2"]
    assert len(content.opponents) == 4
    assert content.selected == 0
    write_markdown(results, tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert "erk widening 2" in text
    sculpt.report(results, tmp_path / "report.html")
    assert "dense blocks 1" in (tmp_path / "report.html").read_text()
    shown = printed(ranking_tables(sculpt.rank(results)))
    assert "against the opponents" in shown
    assert "best dense network of its size" in shown


def test_what_is_not_listed_is_not_shown(tmp_path):
    store = rigged_store(tmp_path, opponents=LISTED[:1])
    add_trial(store.base, attributes(BASE, role="base"))
    for entry in LISTED[:2]:
        kept = attributes(DENSE, role="opponent") | {"opponent": entry}
        assert store.opponents is not None
        add_trial(store.opponents, kept)
    rows = sculpt.rank(results_of(store))["ranking"]
    assert [row["trial"] for row in rows] == ["dense blocks 1", "base"]


def test_a_width_of_a_range_is_the_one_that_an_opponent_gives(tmp_path):
    widths = {"widening": {"low": 1.0, "high": 4.0, "step": 0.5}}
    controls = [{"name": "erk", "widening": 2}, {"name": "shuffled", "widening": 2.5}]
    store = rigged_store(tmp_path / "range", opponents=controls, space__parameters=widths)
    add_trial(store.base, attributes(BASE, role="base"))
    for width in (2.0, 2.5):
        steps = FloatDistribution(1.0, 4.0, step=0.5)
        add_trial(store.candidates, attributes(LIKE), {"widening": width}, distribution=steps)
    for entry in controls:
        add_trial(store.opponents, attributes(ERK, role="opponent") | {"opponent": entry})
    rows = sculpt.rank(results_of(store))["opponents"]
    assert [(row["arm"], row["trial"], row["against"]) for row in rows] == [
        ("shuffled", 1, "shuffled widening 2.5"),
        ("erk", 0, "erk widening 2"),
    ]


def test_the_report_counts_the_seconds_of_opponents(store):
    rows = [*results_of(store).rows, *results_of(store).opponent_rows]
    assert len(rows) == 8
    took = dict(collect(results_of(store)).reproduction.facts)["all trials took"]
    assert took == duration(sum(row["seconds"] for row in rows))


def test_without_a_base_nothing_is_said_against_it(tmp_path):
    alone = rigged_store(tmp_path / "alone", opponents=LISTED)
    add_trial(alone.candidates, attributes(BETTER), {"widening": 2})
    kept = attributes(ERK, role="opponent") | {"opponent": LISTED[2]}
    add_trial(alone.opponents, kept)
    rows = sculpt.rank(results_of(alone))["ranking"]
    assert [row["verdict"] for row in rows] == ["base not known"] * 2
