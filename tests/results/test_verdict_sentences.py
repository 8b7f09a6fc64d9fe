"""What a study's report, its Markdown and its dashboard say first: no more than is known."""

from typing import Any

import pytest

from sculpt.results.numbers import percent, points
from sculpt.results.verdict import verdict_sentences


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


def said(*rows: dict[str, Any], confirmation: Any = None, published: Any = None) -> list[str]:
    found = {"ranking": list(rows), "confirmation": confirmation, "published": published}
    return verdict_sentences(found)


@pytest.mark.parametrize(
    ("rows", "headline"),
    [
        ([], "Nothing has finished yet"),
        ([BASE], "Only the dense base has finished, with 5.00 ± 1.00 % (n 3)"),
        ([LIKE], "The dense base has no result yet"),
        ([BETTER, LIKE, BASE, WORSE], "1 of 3 candidates is better than the dense base"),
        ([LIKE, BASE], "The candidate cannot be told from the dense base"),
        ([LIKE, BASE, LIKE], "None of 2 candidates can be told from the dense base"),
        ([BASE, WORSE, WORSE], "All 2 candidates are worse"),
        ([LIKE, BASE, WORSE], "None of 2 candidates is better than the dense base"),
        ([ALONE, BASE], "No candidate can be compared with the base seed by seed"),
    ],
)
def test_the_headline_of_a_search(rows: list[dict[str, Any]], headline: str) -> None:
    assert said(*rows)[0].startswith(headline)


def test_single_seeds_are_named_as_such() -> None:
    error = {"mean": 0.05, "std": None, "n": 1}
    base = BASE | {"val_error": error}
    text = " ".join(said(ALONE | {"val_error": error}, base))
    assert text.startswith("Base and candidates were trained with a single seed each")
    assert "better" not in text
    assert "± " not in text
    assert "search.replicates" in text


def test_the_best_of_many_is_best_by_luck_too() -> None:
    assert "the best of 3 is best by luck, too" in said(BETTER, LIKE, BASE, WORSE)[-1]
    assert "search.confirm={top: 3, seeds: 8}" in said(LIKE, BASE)[-1]


def test_an_interval_without_zero_that_is_not_enough_is_explained() -> None:
    text = said(CORRECTED, LIKE, BASE)[1]
    assert "−1.00 [−2.00, −0.10] points" in text
    assert text.endswith(
        "not distinguishable once corrected for 2 comparisons, though its own interval is not."
    )


def test_each_sampled_budget_has_its_best() -> None:
    small = LIKE | {"params": {"budget": 50}, "budget": 50, "trial": 7}
    text = said(BETTER | {"params": {"budget": 100}}, small, BASE)
    assert text[1].startswith("With 50 parameters the lowest mean error is that of trial 7")
    assert text[2].startswith("With 100 parameters the lowest mean error is that of trial 0")


def confirmed(*rows: dict[str, Any], selected: int = 2, complete: bool = True) -> dict[str, Any]:
    test = {"mean": 0.06, "std": 0.01, "n": 8}
    shown = [{"arm": "sculpted", "test_error": test} | found for found in rows]
    base = {"test_error": test, "kept_macs": 1e6}
    return {
        "top": selected,
        "seeds": 8,
        "selected": list(range(selected)),
        "complete": complete,
        "base": base,
        "rows": shown,
    }


def test_the_confirmation_has_the_last_word() -> None:
    text = said(WORSE, BASE, confirmation=confirmed(BETTER, LIKE))
    assert text[0] == (
        "Of 2 candidates confirmed on 8 fresh seeds, 1 has a lower test error than the dense base."
    )
    assert "6.00 ± 1.00 % (n 8) test error" in text[1]
    assert not [sentence for sentence in text if "luck" in sentence or "validation" in sentence]
    text = said(BETTER, BASE, confirmation=confirmed(LIKE, WORSE))
    assert text[0].endswith(
        "none can be told to have a lower test error than the dense base, 1 has a higher one."
    )


def test_a_confirmation_that_is_under_way_says_so() -> None:
    text = said(BETTER, BASE, confirmation=confirmed(complete=False))
    assert text[0].startswith("1 of 1 candidate is better")
    assert "are being confirmed on fresh seeds" in text[-1]
    text = said(BETTER, BASE, confirmation=confirmed(LIKE, complete=False))
    assert "none has been told to have a lower test error than the dense base so far" in text[0]
    assert text[1].startswith("The confirmation is not complete yet")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (WORSE, "which weights are kept within the layers matters here"),
        (LIKE, "nothing here shows that it matters"),
        (BETTER, "its own mask is the worse one"),
    ],
)
def test_the_control_is_read_with_care(found: dict[str, Any], words: str) -> None:
    text = said(BETTER, BASE, confirmation=confirmed(BETTER, found | {"arm": "shuffled"}))
    assert words in text[-1]


CHEAP = {"kept_macs": 1e6}


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([BETTER, LIKE, BASE], "No candidate is as cheap as the base: each has more multiply-acc"),
        (
            [BETTER | CHEAP, LIKE | CHEAP, BASE, WORSE],
            "2 of 3 candidates have no more multiply-accumulates than the base; "
            "1 of these is better than it by validation error.",
        ),
        (
            [BETTER | {"kept_macs": 1e6 + 1}, LIKE | CHEAP, BASE],
            "1 of 2 candidates has no more multiply-accumulates than the base; "
            "none of these can be told to be better than it by validation error.",
        ),
        (
            [BETTER | CHEAP, BETTER | CHEAP, BASE],
            "2 of 2 candidates have no more multiply-accumulates than the base; "
            "2 of these are better than it by validation error.",
        ),
        (
            [ALONE | CHEAP, BASE],
            "1 of 1 candidate has no more multiply-accumulates than the base.",
        ),
    ],
)
def test_what_costs_no_more_than_the_base(rows: list[dict[str, Any]], sentence: str) -> None:
    text = said(*rows)
    (found,) = [line for line in text if "multiply-accumulates" in line]
    assert found.startswith(sentence)
    assert 0 < text.index(found) < len(text) - 1, "neither the headline nor the last word"


def test_the_best_that_costs_no_more_is_named_with_its_interval() -> None:
    text = said(BETTER, CORRECTED | CHEAP, WORSE | CHEAP, BASE)
    (found,) = [line for line in text if line.startswith("The lowest validation error of these")]
    assert found == (
        "The lowest validation error of these is that of trial 3 (widening 2): 4.00 ± 1.00 % "
        "(n 3), a difference of −1.00 [−2.00, −0.10] points, 95 % interval in brackets: not "
        "distinguishable once corrected for 3 comparisons, though its own interval is not."
    )
    alone = said(ALONE | CHEAP, BASE)
    assert "(widening 2): 4.00 ± 1.00 % (n 3)." in " ".join(alone)
    assert not [line for line in said(BETTER, LIKE, BASE) if line.startswith("The lowest valid")]


def test_without_a_base_nothing_is_said_of_cost() -> None:
    assert not [line for line in said(LIKE) if "multiply" in line]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [BETTER, LIKE],
            "No candidate compared on fresh seeds is as cheap as the base: each has more "
            "multiply-accumulates.",
        ),
        (
            [BETTER, LIKE | CHEAP],
            "1 of 2 candidates compared on fresh seeds has no more multiply-accumulates than the "
            "base; none of these can be told to have a lower test error.",
        ),
        (
            [BETTER | CHEAP, LIKE | CHEAP, BETTER | CHEAP | {"trial": 9}, BETTER],
            "3 of 4 candidates compared on fresh seeds have no more multiply-accumulates than the "
            "base; 2 of these have a lower test error: trial 0, trial 9.",
        ),
        (
            [BETTER | CHEAP | {"trial": number} for number in range(7)],
            "7 of 7 candidates compared on fresh seeds have no more multiply-accumulates than the "
            "base; 7 of these have a lower test error: trial 0, trial 1, trial 2, trial 3, trial 4 "
            "and 2 more.",
        ),
    ],
)
def test_what_was_confirmed_and_costs_no_more(rows: list[Any], sentence: str) -> None:
    shuffled = WORSE | CHEAP | {"arm": "shuffled"}
    text = said(WORSE | CHEAP, BASE, confirmation=confirmed(*rows, shuffled, selected=len(rows)))
    assert [line for line in text if "multiply" in line] == [sentence]
    assert text.index(sentence) < len(text) - 1, "the control comes last"


def test_numbers_in_sentences() -> None:
    assert percent(None) == ""
    assert percent({"mean": 0.1234, "std": None, "n": 1}) == "12.34 % (n 1)"
    assert points(None) == ""
    assert points(difference(0.01, -0.02, 0.04)) == "+1.00 [−2.00, +4.00]"
