"""What a study's report, its Markdown and its dashboard say first: no more than is known."""

import re
from typing import Any

import pytest

from sculpt import units
from sculpt.results.verdict import Verdict, verdict_of


def difference(mean: float, low: float, high: float) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high, "p": 0.01, "p_holm": 0.02, "method": "student"}


def row(trial: int | str, error: float, verdict: str, found: Any = None, **changes: Any) -> dict:
    role = "base" if trial == "base" else "candidate"
    val = {"mean": error, "std": 0.01, "n": 3}
    facts = {"trial": trial, "role": role, "params": {"widening": 2}, "budget": 100, "diverged": 0}
    facts |= {"kept_macs": 2e6 if role == "candidate" else 1e6}
    return facts | {"val_error": val, "verdict": verdict, "difference": found} | changes


BASE = row("base", 0.05, "base")
BETTER = row(0, 0.03, "better", difference(-0.02, -0.03, -0.01))
LIKE = row(1, 0.04, "not distinguishable", difference(-0.01, -0.03, 0.01))
WORSE = row(2, 0.09, "worse", difference(0.04, 0.03, 0.05))
CORRECTED = row(3, 0.04, "not distinguishable", difference(-0.01, -0.02, -0.001))
ALONE = row(4, 0.04, "single seed")
OPPONENT = BETTER | {"trial": "erk widening 2", "role": "opponent", "arm": "erk"}
CHEAP = {"kept_macs": 1e6}


def verdict(*rows: dict[str, Any], confirmation: Any = None, published: Any = None) -> Verdict:
    found: Any = {"ranking": list(rows), "confirmation": confirmation, "published": published}
    return verdict_of(found)


def facts(*rows: dict[str, Any], **parts: Any) -> dict[str, str]:
    return dict(verdict(*rows, **parts).facts.rows)


@pytest.mark.parametrize(
    ("rows", "headline", "counts"),
    [
        ([], "Nothing has finished yet", None),
        ([BASE], "Only the dense base has finished", None),
        ([OPPONENT, BASE, OPPONENT], "Only the dense base and 2 opponents have finished", None),
        ([OPPONENT], "Only 1 opponent has finished yet", None),
        ([LIKE], "The dense base has no result yet", None),
        (
            [BETTER, LIKE, BASE, WORSE],
            "1 of 3 candidates is better than the dense base by validation error",
            "1 better, 1 not distinguishable, 1 worse",
        ),
        ([BETTER, BETTER, BASE], "2 of 2 candidates are better than the dense base", "2 better"),
        ([LIKE, BASE], "The candidate cannot be told from the dense base", "1 not distinguishable"),
        (
            [LIKE, BASE, LIKE],
            "None of 2 candidates can be told from the dense base",
            "2 not distinguishable",
        ),
        ([BASE, WORSE, WORSE], "All 2 candidates are worse", "2 worse"),
        ([BASE, WORSE], "The candidate is worse", "1 worse"),
        (
            [LIKE, BASE, WORSE],
            "None of 2 candidates is better than the dense base",
            "1 not distinguishable, 1 worse",
        ),
        ([ALONE, BASE], "No candidate can be compared with the base seed by seed", None),
    ],
)
def test_the_headline_of_a_search(rows, headline, counts):
    assert verdict(*rows).headline.startswith(headline)
    found = facts(*rows)
    if counts is None:
        assert "compared with the base" not in found
    else:
        family = units.counted(len(rows) - 1, "comparison")
        expected = f"{counts} by validation errors, corrected for {family}"
        assert found["compared with the base"] == expected
        assert "95 % interval" in found["how to read it"]
        assert "not to be told apart is not to be equal" in found["how to read it"]
    if BASE in rows:
        assert found["dense base"] == "5.00 ± 1.00 % (n 3)"


def test_single_seeds_are_named_as_such():
    error = {"mean": 0.05, "std": None, "n": 1}
    rows = ALONE | {"val_error": error}, BASE | {"val_error": error}
    text = f"{verdict(*rows).headline} {facts(*rows)}"
    assert "a single seed each" in text
    assert "search.replicates" in text
    assert "better" not in text
    assert "± " not in text


def test_a_search_is_to_be_confirmed():
    for rows in ([BETTER, LIKE, BASE, WORSE], [LIKE, BASE]):
        assert "best by luck, too" in facts(*rows)["to confirm"]
        assert "search.confirm={top: 3, seeds: 8}" in facts(*rows)["to confirm"]
    assert "to confirm" not in facts(LIKE) | facts(BASE) | facts(ALONE, BASE)


def test_the_best_is_named_with_its_interval():
    found = facts(CORRECTED, LIKE, BASE)
    named = "trial 3 (widening 2): 4.00 ± 1.00 % (n 3), −1.00 [−2.00, −0.10] points from the base"
    assert found["lowest validation error"] == f"{named}: not distinguishable"
    assert "though its own interval leaves out zero" in found["how to read it"]
    assert facts(ALONE, BASE)["lowest validation error"].endswith("4.00 ± 1.00 % (n 3)")


def test_each_sampled_budget_has_its_best():
    budgets = [row(n, 0.03, "worse", params={"budget": n}, budget=n) for n in (70, 50, 70)]
    found = facts(*budgets, BASE)
    assert re.match("trial 50 ", found["lowest validation error with 50 parameters"])
    assert re.match("trial 70 ", found["lowest validation error with 70 parameters"])
    many = [row(n, 0.03, "worse", params={"budget": n}, budget=n) for n in range(7)]
    assert facts(*many, BASE)["2 more budgets"] == "in the ranking"


def test_seeds_that_diverged_are_told():
    assert "of 1 finished trial" in facts(BETTER | {"diverged": 2}, BASE)["seeds diverged"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([BETTER, LIKE, BASE], "none of 2 candidates"),
        (
            [BETTER | CHEAP, LIKE | CHEAP, BASE, WORSE],
            "2 of 3 candidates; told to be better: trial 0",
        ),
        (
            [BETTER | {"kept_macs": 1e6 + 1}, LIKE | CHEAP, BASE],
            "1 of 2 candidates; told to be better: none",
        ),
        ([ALONE | CHEAP, BASE], "1 of 1 candidate"),
    ],
)
def test_what_costs_no_more_than_the_base(rows, words):
    found = facts(*rows)
    assert found["no more MACs than the base"] == words
    cheap = [r for r in rows if r["kept_macs"] <= 1e6 and r is not BASE]
    lowest = found.get("lowest error of these", "")
    assert lowest.startswith(f"trial {cheap[0]['trial']} " if cheap else "")
    assert bool(lowest) == bool(cheap)
    assert "no more MACs than the base" not in facts(LIKE), "there is no base"


def confirmed(*rows: dict[str, Any], selected: int = 2, complete: bool = True) -> dict[str, Any]:
    test = {"mean": 0.06, "std": 0.01, "n": 8}
    shown = [{"arm": "sculpted", "test_error": test} | found for found in rows]
    found = {"top": selected, "seeds": 8, "selected": list(range(selected)), "complete": complete}
    return found | {"base": {"test_error": test, "kept_macs": 1e6}, "rows": shown}


@pytest.mark.parametrize(
    ("search", "rows", "complete", "headline"),
    [
        (
            WORSE,
            [BETTER, LIKE],
            True,
            "Of 2 candidates confirmed on 8 fresh seeds, 1 can be told to have a lower test error "
            "than the dense base.",
        ),
        (
            BETTER,
            [LIKE, WORSE],
            True,
            "Of 2 candidates confirmed on 8 fresh seeds, none can be told to have a lower test "
            "error than the dense base, and 1 a higher one.",
        ),
        (BETTER, [], False, "1 of 1 candidate is better"),
        (BETTER, [LIKE], False, "Of 2 candidates confirmed on 8 fresh seeds, none can be told"),
    ],
)
def test_the_confirmation_has_the_last_word(search, rows, complete, headline):
    found = verdict(search, BASE, confirmation=confirmed(*rows, complete=complete))
    assert found.headline.startswith(headline)
    told = dict(found.facts.rows)
    if rows:
        assert told["dense base"] == "6.00 ± 1.00 % (n 8)"
        assert all(told[f"trial {row['trial']}"].endswith(row["verdict"]) for row in rows)
        assert "test errors on fresh seeds" in told["compared with the base"]
        assert "corrected for 2 comparisons" in told["compared with the base"]
        assert not [text for text in told.values() if "luck" in text or "validation" in text]
        assert ("not complete yet" in told) == (not complete)
    else:
        assert "being trained on fresh seeds" in told["confirmation"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([BETTER, LIKE], "none of 2 candidates"),
        ([BETTER, LIKE | CHEAP], "1 of 2 candidates; told to be better: none"),
        (
            [BETTER | CHEAP, LIKE | CHEAP, BETTER | CHEAP | {"trial": 9}, BETTER],
            "3 of 4 candidates; told to be better: trial 0, trial 9",
        ),
        (
            [BETTER | CHEAP | {"trial": number} for number in range(7)],
            "7 of 7 candidates; told to be better: trial 0, trial 1, trial 2, trial 3, trial 4 "
            "and 2 more",
        ),
    ],
)
def test_what_was_confirmed_and_costs_no_more(rows, words):
    shuffled = WORSE | CHEAP | {"arm": "shuffled"}
    found = confirmed(*rows, shuffled, selected=len(rows))
    assert facts(WORSE | CHEAP, BASE, confirmation=found)["no more MACs than the base"] == words


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (WORSE, "which weights are kept within the layers matters here"),
        (LIKE, "nothing here shows that it matters"),
        (BETTER, "its own mask is the worse one"),
    ],
)
def test_the_control_is_read_with_care(found, words):
    told = facts(BETTER, BASE, confirmation=confirmed(BETTER, found | {"arm": "shuffled"}))
    control = told[f"trial {found['trial']}, mask shuffled in layers"]
    assert words in control
    assert units.points(found["difference"]) in control


def judged(mean: float, verdict: str = "not distinguishable") -> dict[str, Any]:
    found = difference(mean, mean - 0.01, mean + 0.01)
    return {"mean": 0.1, "std": 0.01, "n": 5, "difference": found, "verdict": verdict}


def published(difference: float | None, measured: Any, chosen: Any = None, **changes: Any) -> Any:
    figure = {"test_error": 0.07, "difference": difference}
    families = {"lowest_test": measured, "selected_test": chosen, "val": measured}
    return {"trial": 0, "role": "candidate", "published": figure} | families | changes


def beside(*rows: dict[str, Any], protocol: str | None = "lowest_test") -> dict[str, str]:
    """Return what is told of published signs."""
    base = published(None, judged(0.0), judged(0.0), role="base", trial="base")
    found = {"compared": 16, "published_protocol": protocol, "rows": [base, *rows]}
    told = facts(BETTER, BASE, published=found)
    return {name: text for name, text in told.items() if name.startswith("published signs")}


LOWER, HIGHER = judged(-0.001), judged(0.001)
TOLD, AGAINST = judged(-0.02, "better"), judged(0.02, "worse")
FINISHED = "that finished here with the published sign"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [
                published(-0.004, TOLD),
                published(-0.004, LOWER),
                published(+0.002, AGAINST),
                published(-0.001, HIGHER),
                published(None, TOLD),
                published(0.0, TOLD),
                published(-0.001, TOLD) | {"published": None},
            ],
            f"3 of 4 published rows {FINISHED}, 2 of these told from the base",
        ),
        (
            [
                published(-1, LOWER),
                published(-1, HIGHER),
                published(1, HIGHER),
                published(-1, AGAINST),
            ],
            f"2 of 4 published rows {FINISHED}, none of these told from the base; "
            "1 with the other sign told from it",
        ),
        ([published(-0.1, HIGHER)], f"none of 1 published row {FINISHED}"),
        ([published(-0.1, judged(-5e-18))], f"none of 1 published row {FINISHED}"),
        (
            [published(-0.1, TOLD), published(-0.1, TOLD | {"difference": None, "verdict": None})],
            f"1 of 2 published rows {FINISHED}, 1 of these told from the base; 1 cannot be",
        ),
        (
            [published(-0.1, None)],
            "none of 1 published row that finished here can be compared with the base",
        ),
        # An interval that holds zero is never a reproduction.
        (
            [published(-0.004, LOWER)] * 6,
            f"6 of 6 published rows {FINISHED}, none of these told from the base",
        ),
    ],
)
def test_signs_are_counted_under_both_protocols(rows, words):
    found = beside(*[row | {"selected_test": row["lowest_test"]} for row in rows])
    names = ["lowest test error", "test error, selected by validation"]
    assert list(found) == [f"published signs, {name}" for name in names]
    for text in found.values():
        assert text.startswith(words)
        assert "16 comparisons" in text or "can be compared" in text


def test_each_protocol_is_counted_by_its_own_errors():
    lowest, selected = beside(published(-0.1, TOLD, AGAINST)).values()
    assert lowest.startswith("1 of 1 ")
    assert selected.startswith("none of 1 ")


def test_validation_errors_stand_in_where_test_images_were_not_read():
    found = beside(published(-0.004, TOLD), protocol=None)
    assert list(found) == ["published signs, validation error"]


def test_where_nothing_published_can_be_told():
    assert beside(published(None, TOLD)) == {}
    found = beside(published(-0.1, None, trial=None))
    assert found == {"published signs": "none of 1 published row has finished"}


def test_numbers_as_people_read_them():
    assert units.error({"mean": 0.1234, "std": None, "n": 1}) == "12.34 % (n 1)"
    assert units.points(difference(0.01, -0.02, 0.04)) == "+1.00 [−2.00, +4.00]"
    assert [units.macs(n) for n in (9_999, 12_345, 1.5e6)] == ["9,999", "12.35 k", "1.50 M"]
    assert [units.duration(t) for t in (90, 600, 7200)] == ["90 s", "10 min", "2.0 h"]
