"""Signs beside published ones: which errors, which rows, and that no interval is another's."""

import json
import re
from typing import Any

import pytest
from manual import made_from_code
from published_studies import (
    BASE,
    BETTER,
    LATER,
    LIKE,
    ROWS,
    SOURCE,
    WORSE,
    add_measured,
    published_store,
    selected,
    whole_study,
)
from rigged import add_trial, attributes, keep_record, results_of, rigged_store
from whole_records import whole_epoch, whole_record, whole_run

from sculpt.results.against_published import against_published, same_parameters
from sculpt.results.published import measured_figures
from sculpt.results.ranking import rank
from sculpt.results.records import Results
from sculpt.results.statistics import judge
from sculpt.storage.store import Store

FAMILIES = ("lowest_test", "selected_test", "val")


def found(store: Store) -> dict[str, Any]:
    document = against_published(results_of(store))
    assert document is not None
    return document


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return whole_study(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def no_record(monkeypatch):
    """Let whoever reads a record fail."""

    def read(*_: Any) -> None:
        raise AssertionError("a record was read")

    monkeypatch.setattr(Results, "record", read)


def test_rows_stand_in_the_order_of_the_publication(whole):
    document = found(whole)
    assert (document["source"], document["published_protocol"]) == (SOURCE, "lowest_test")
    assert (document["compared"], document["unread"]) == (3, [])
    rows = document["rows"]
    assert [row["trial"] for row in rows] == ["base", 2, 1, None, 0]
    assert [row["role"] for row in rows] == ["base"] + ["candidate"] * 4
    assert [row["params"].get("widening") for row in rows] == [1, 4, 2, 3, 5]
    assert [row["kept_macs"] for row in rows] == [2000.0, 1500.0, 4000.0, None, 3000.0]
    assert [row["kept_parameters"] for row in rows] == [4874, 4874, 4874, None, 4874]
    *published, unpublished = [row["published"] for row in rows]
    assert [row["test_error"] for row in published] == [0.0735, 0.0612, 0.0701, 0.0799]
    assert [row["difference"] for row in published] == [None, -0.0123, -0.0034, 0.0064]
    assert unpublished is None


def test_without_a_published_base_there_is_no_published_difference(tmp_path):
    store = published_store(tmp_path, [ROWS[2]])
    add_measured(store, BASE)
    add_measured(store, BETTER, {"widening": 2, "blocks": 1})
    published = [row["published"] for row in found(store)["rows"]]
    assert published == [None, {"test_error": 0.0701, "difference": None}]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": 0.5}, {"b": 0.5, "a": 1}, True),
        ({"a": 1, "b": None}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({}, "base", False),
        ("base", "base", True),
    ],
)
def test_configurations_are_compared_by_their_parameters(one, other, same):
    assert same_parameters(one, other) is same


def test_every_interval_is_what_judge_gives(whole):
    rows = {row["trial"]: row for row in found(whole)["rows"]}
    order = [WORSE, BETTER, LIKE]
    pairs = {
        "val": [(val, BASE[0]) for val, _ in order],
        "lowest_test": [(lowest, BASE[1]) for _, lowest in order],
        "selected_test": [(selected(lowest), selected(BASE[1])) for _, lowest in order],
    }
    for family in FAMILIES:
        for trial, (judged, (errors, _)) in enumerate(
            zip(judge(pairs[family]), pairs[family], strict=True)
        ):
            measured = rows[trial][family]
            assert measured["mean"] == pytest.approx(sum(errors) / 5)
            assert measured["n"] == 5
            assert measured["verdict"] == judged["verdict"]
            for key, value in judged["difference"].items():
                expected = value if key == "method" else pytest.approx(value)
                assert measured["difference"][key] == expected, (family, trial, key)
        base = rows["base"][family]
        assert (base["difference"], base["verdict"]) == (None, "base")
    verdicts = [rows[trial]["lowest_test"]["verdict"] for trial in range(3)]
    assert verdicts == ["worse", "better", "not distinguishable"]


def test_validation_selects_the_earliest_of_its_lowest_errors(whole):
    row = next(row for row in found(whole)["rows"] if row["trial"] == 1)
    lowest = sum(BETTER[1]) / 5
    assert row["lowest_test"]["mean"] == pytest.approx(lowest)
    # The mean seed number is 2; the later of the two has the lowest test error, the last the most.
    assert row["selected_test"]["mean"] == pytest.approx(lowest + 2 * LATER)


def test_the_validation_family_is_that_of_the_ranking(whole):
    document = rank(results_of(whole))
    ranked = {row["trial"]: row for row in document["ranking"]}
    for row in document["published"]["rows"]:
        if row["trial"] is not None:
            assert row["val"]["difference"] == ranked[row["trial"]]["difference"]
            assert row["val"]["verdict"] == ranked[row["trial"]]["verdict"]
            assert row["params"] == ranked[row["trial"]]["params"]
    json.dumps(document, allow_nan=False)


def test_a_missing_record_takes_only_what_stood_in_it(tmp_path):
    store = published_store(tmp_path)
    add_measured(store, BASE)
    add_measured(store, BETTER, {"widening": 2, "blocks": 1})
    add_measured(store, LIKE, {"widening": 4, "blocks": 1}, with_record=False)
    document = rank(results_of(store))["published"]
    assert document["unread"] == [1]
    rows = {row["trial"]: row for row in document["rows"]}
    assert rows[1]["selected_test"] is None
    assert rows[1]["lowest_test"]["difference"]["mean"] < 0
    difference = rows[0]["selected_test"]["difference"]
    assert difference["p_holm"] == pytest.approx(2 * difference["p"]), "the other one counts"


def test_without_the_record_of_the_base_nothing_is_compared(tmp_path):
    store = published_store(tmp_path)
    add_measured(store, BASE, with_record=False)
    add_measured(store, BETTER, {"widening": 2, "blocks": 1})
    rows = {row["trial"]: row for row in found(store)["rows"]}
    assert rows["base"]["selected_test"] is None
    assert rows[0]["selected_test"]["mean"] > 0
    assert rows[0]["selected_test"]["difference"] is rows[0]["selected_test"]["verdict"] is None
    assert rows[0]["lowest_test"]["verdict"] == "better"


def test_before_the_base_has_finished(tmp_path):
    store = published_store(tmp_path)
    assert [row["trial"] for row in found(store)["rows"]] == [None] * 4
    add_measured(store, BETTER, {"widening": 2, "blocks": 1})
    base, _, row, _ = found(store)["rows"]
    assert (base["trial"], base["role"], base["published"]["test_error"]) == (None, "base", 0.0735)
    for family in FAMILIES:
        assert base[family] is None
        assert row[family]["difference"] is row[family]["verdict"] is None


def test_one_seed_has_no_difference(tmp_path):
    store = published_store(tmp_path)
    add_measured(store, ([0.1], [0.2]))
    add_measured(store, ([0.05], [0.1]), {"widening": 2, "blocks": 1})
    row = next(row for row in found(store)["rows"] if row["trial"] == 0)
    for family in FAMILIES:
        assert (row[family]["std"], row[family]["n"]) == (None, 1)
        assert (row[family]["difference"], row[family]["verdict"]) == (None, "single seed")


@pytest.mark.slow
def test_an_evaluation_without_test_images_is_not_chosen_around(tmp_path):
    store = published_store(tmp_path)
    add_measured(store, BASE)
    history = [whole_epoch(1, 0.1), whole_epoch(2, 0.2, test_error=0.3)]
    whole = [whole_epoch(1, 0.1, test_error=0.2)]
    runs = [whole_run(0.1, history=h) for h in ([], history, whole, whole, whole)]
    errors = attributes(LIKE[0], test_errors=LIKE[1])
    add_trial(
        store.candidates,
        errors,
        {"widening": 2},
        system=keep_record(store, whole_record(LIKE[0], runs=runs)),
    )
    row = next(row for row in found(store)["rows"] if row["trial"] == 0)
    assert row["selected_test"] is None
    assert row["lowest_test"]["n"] == 5


@pytest.mark.usefixtures("no_record")
def test_a_study_that_did_not_read_its_test_images(tmp_path):
    document = found(whole_study(tmp_path, protocol="validation"))
    assert document["published_protocol"] is None
    assert document["unread"] == []
    for row in document["rows"]:
        assert row["lowest_test"] is row["selected_test"] is None
    assert document["rows"][2]["val"]["verdict"] == "better"


@pytest.mark.usefixtures("no_record")
@pytest.mark.parametrize("rows", [None, [], [{"params": "base", "val_error": 0.1}]])
def test_nothing_is_read_where_no_test_error_is_published(tmp_path, rows):
    changes = {"training__protocol": "lowest_test"}
    store = rigged_store(tmp_path, **changes) if rows is None else published_store(tmp_path, rows)
    add_measured(store, BASE)
    add_measured(store, BETTER, {"widening": 2, "blocks": 1})
    document = rank(results_of(store))
    assert document["published"] is None
    assert len(document["ranking"]) == 2


def test_the_measured_file_has_signs_and_intervals(whole):
    document = found(whole)
    measured_rows = measured_figures(results_of(whole))["rows"]
    assert ["difference" in row for row in measured_rows if row["params"] == "base"] == [False]
    for row in document["rows"]:
        if row["role"] == "base" or row["trial"] is None:
            continue
        (written,) = [r["difference"] for r in measured_rows if r["params"] == row["params"]]
        published = [] if row["published"] is None else ["published"]
        assert list(written) == published + list(FAMILIES)
        if published:
            assert written["published"] == row["published"]["difference"]
        for family in FAMILIES:
            measured = row[family]
            interval = written[family]
            assert list(interval) == ["mean", "low", "high", "n", "verdict"]
            assert (interval["n"], interval["verdict"]) == (5, measured["verdict"])
            for key in ("mean", "low", "high"):
                assert interval[key] == pytest.approx(
                    measured["difference"][key], rel=1e-5, abs=1e-12
                )
                assert len(f"{interval[key]:.12g}") <= 10, "six digits"


def test_every_key_is_documented(whole):
    types = "\n".join(made_from_code().json_types())
    section = types.split("## sculpt rank")[1].split("## sculpt pareto")[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE))

    def keys(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(keys, node))
        if not isinstance(node, dict):
            return set()
        below = [keys(value) for key, value in node.items() if key != "params"]
        return set(node).union(*below)

    assert keys(rank(results_of(whole))["published"]) - documented == set()
