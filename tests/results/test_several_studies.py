"""One front of several studies: whose rows they are, and whether they can be compared."""

from pathlib import Path
from typing import Any

import pytest
from rigged import SIZE
from test_pareto_front import BOTH, Candidates, study

from sculpt.errors import InputError
from sculpt.results.pareto import pareto, pareto_document
from sculpt.results.tables.pareto import pareto_table


def two(folder: Path, first: Candidates, second: Candidates, **changes: Any) -> list[Any]:
    """Return a study `one`, and a study `other` that differs from it by changes."""
    return [
        study(folder / "one", first, study="one"),
        study(folder / "other", second, study="other", **changes),
    ]


def test_their_trials_compete(tmp_path):
    studies = two(tmp_path, [(SIZE, 0.1, 10.0)], [(SIZE, 0.05, 12.0), (SIZE, 0.3, 20.0)])
    front = pareto(studies, BOTH)
    assert list(zip(front["study"], front["trial"], strict=True)) == [
        ("other", 0),
        ("one", 0),
        ("one", "base"),
        ("other", "base"),  # as good as the other base
    ]
    document = pareto_document(studies, BOTH)
    assert document["studies"] == ["one", "other"]
    assert [(row["study"], row["trial"]) for row in document["front"]] == [
        *zip(front["study"], front["trial"], strict=True)
    ]
    assert document["dominated"] == 1
    assert document["notes"] == ["the hypervolume is taken up to the dense base of one"]
    table = pareto_table(document)
    assert table.headers[0] == "study"
    assert [cells[0] for cells in table.cells] == ["other", "one", "one", "other"]
    kept = pareto(studies, BOTH, "study == 'other' and state == 'complete'")
    assert set(kept["study"]) == {"other"}


@pytest.mark.slow
def test_budgets_of_all_of_them_have_a_front(tmp_path):
    share = {"sparsity": 0.5}
    studies = two(tmp_path, [(2000, 0.3, 10.0)], [(SIZE, 0.3, 10.0), (99, 0.1, 10.0)])
    studies.append(study(tmp_path / "share", [(500, 0.3, 8.0)], study="share", budget=share))
    document = pareto_document(studies, BOTH)
    found = {
        front["budget"]: [(row["study"], row["trial"]) for row in front["front"]]
        for front in document["fronts"]
    }
    assert found == {
        99: [("other", 1)],
        2000: [("one", 0)],
        SIZE: [("one", "base"), ("other", "base")],
        None: [("share", "base"), ("share", 0)],
    }
    assert "a share" in [cells[0] for cells in pareto_table(document).cells]


def test_the_base_of_the_first_that_has_one(tmp_path):
    first = study(tmp_path / "one", [(SIZE, 0.1, 8.0)], base_size=None, study="one")
    other = study(tmp_path / "other", [(SIZE, 0.3, 8.0)], study="other")
    document = pareto_document([first, other], BOTH)
    assert document["fronts"][0]["hypervolume"]["volume"] == pytest.approx(0.1)
    assert document["notes"] == ["the hypervolume is taken up to the dense base of other"]


def test_what_only_one_of_them_measured(tmp_path):
    studies = two(tmp_path, [(SIZE, 0.1, 10.0)], [(SIZE, 0.01, None)])
    document = pareto_document(studies, BOTH)
    assert document["missing"] == 1
    assert len(document["front"]) == 3


def test_an_unfinished_one_adds_nothing(tmp_path):
    one = study(tmp_path / "one", [(SIZE, 0.1, 10.0)], study="one")
    empty = study(tmp_path / "empty", [], base_size=None, study="empty")
    for studies in ([one, empty], [empty, one]):
        assert pareto(studies, BOTH)["trial"].tolist() == [0, "base"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"images": "others"}, "not trained on the same images"),
        ({"counting": "total"}, "count parameters by different rules"),
        ({"training__epochs": 7}, None),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path, changes, note):
    notes = pareto_document(two(tmp_path, [], [], **changes), BOTH)["notes"]
    differing = [text for text in notes if text.startswith("one and other ")]
    assert [note in text for text in differing if note] == [True] * (note is not None)
    assert bool(differing) == bool(note)


def test_which_rows_are_whose_must_be_clear(tmp_path):
    one = study(tmp_path / "one", [])
    with pytest.raises(InputError, match="given once, but got 'tiny' twice"):
        pareto([one, one])
    with pytest.raises(InputError, match="two named 'tiny' from different storages; run one of"):
        pareto([one, study(tmp_path / "other", [])])
    with pytest.raises(InputError, match="at least one study"):
        pareto([])
