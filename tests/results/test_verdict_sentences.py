"""What a study's report, its Markdown and its dashboard say first: no more than is known."""

import re
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
    text = " ".join(said(ALONE | {"val_error": error}, BASE | {"val_error": error}))
    assert "a single seed each" in text
    assert "search.replicates" in text
    assert "better" not in text
    assert "± " not in text


def test_the_last_word_of_a_search_is_a_warning() -> None:
    assert "the best of 3 is best by luck, too" in said(BETTER, LIKE, BASE, WORSE)[-1]
    assert "search.confirm={top: 3, seeds: 8}" in said(LIKE, BASE)[-1]


def test_an_interval_without_zero_that_is_not_enough_is_explained() -> None:
    text = said(CORRECTED, LIKE, BASE)[1]
    assert "−1.00 [−2.00, −0.10] points" in text
    assert "not distinguishable once corrected for 2 comparisons" in text


def test_each_sampled_budget_has_its_best() -> None:
    small = LIKE | {"params": {"budget": 50}, "budget": 50, "trial": 7}
    _, *text = said(BETTER | {"params": {"budget": 100}}, small, BASE)
    assert re.search("50 parameters .* trial 7 ", text[0])
    assert re.search("100 parameters .* trial 0 ", text[1])


def confirmed(*rows: dict[str, Any], selected: int = 2, complete: bool = True) -> dict[str, Any]:
    test = {"mean": 0.06, "std": 0.01, "n": 8}
    shown = [{"arm": "sculpted", "test_error": test} | found for found in rows]
    found = {"top": selected, "seeds": 8, "selected": list(range(selected)), "complete": complete}
    return found | {"base": {"test_error": test, "kept_macs": 1e6}, "rows": shown}


@pytest.mark.parametrize(
    ("search", "rows", "complete", "words"),
    [
        (WORSE, [BETTER, LIKE], True, ["2 candidates confirmed on 8 fresh seeds, 1 has a lower"]),
        (BETTER, [LIKE, WORSE], True, ["none can be told to have a lower", "1 has a higher one"]),
        (BETTER, [], False, ["1 of 1 candidate is better"]),
        (BETTER, [LIKE], False, ["none has been told to have a lower", "so far"]),
    ],
)
def test_the_confirmation_has_the_last_word(
    search: Any, rows: list[Any], complete: bool, words: list[str]
) -> None:
    text = said(search, BASE, confirmation=confirmed(*rows, complete=complete))
    assert all(part in text[0] for part in words)
    if complete:
        assert "6.00 ± 1.00 % (n 8) test error" in text[1]
        assert not [sentence for sentence in text if "luck" in sentence or "validation" in sentence]
    else:
        assert "are being confirmed" in text[-1] or "confirmation is not complete" in text[1]


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
    ("rows", "words"),
    [
        ([BETTER, LIKE, BASE], "No candidate is as cheap as the base"),
        ([BETTER | CHEAP, LIKE | CHEAP, BASE, WORSE], "2 of 3 candidates .*; 1 of these is better"),
        ([BETTER | {"kept_macs": 1e6 + 1}, LIKE | CHEAP, BASE], "1 of 2 candidates .*; none of th"),
        ([BETTER | CHEAP, BETTER | CHEAP, BASE], "2 of 2 candidates .*; 2 of these are better"),
        ([ALONE | CHEAP, BASE], r"1 of 1 candidate has no more [a-z -]*\."),
    ],
)
def test_what_costs_no_more_than_the_base(rows: list[dict[str, Any]], words: str) -> None:
    text = said(*rows)
    (found,) = [line for line in text if "multiply-accumulates" in line]
    assert re.match(words, found)
    assert 0 < text.index(found) < len(text) - 1, "neither the headline nor the last word"


def test_the_best_that_costs_no_more_is_named_with_its_interval() -> None:
    text = said(BETTER, CORRECTED | CHEAP, WORSE | CHEAP, BASE)
    (found,) = [line for line in text if line.startswith("The lowest validation error of these")]
    assert "trial 3 (widening 2): 4.00 ± 1.00 % (n 3)" in found
    assert "−1.00 [−2.00, −0.10] points" in found
    assert "not distinguishable once corrected for 3 comparisons" in found
    assert "(widening 2): 4.00 ± 1.00 % (n 3)." in " ".join(said(ALONE | CHEAP, BASE))
    assert not [line for line in said(BETTER, LIKE, BASE) if line.startswith("The lowest valid")]
    assert not [line for line in said(LIKE) if "multiply" in line], "there is no base"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([BETTER, LIKE], "No candidate .* is as cheap as the base"),
        ([BETTER, LIKE | CHEAP], "1 of 2 candidates .*; none of these can be told"),
        (
            [BETTER | CHEAP, LIKE | CHEAP, BETTER | CHEAP | {"trial": 9}, BETTER],
            "3 of 4 candidates .*; 2 of these .*: trial 0, trial 9.$",
        ),
        (
            [BETTER | CHEAP | {"trial": number} for number in range(7)],
            "7 of 7 candidates .*; 7 of these .*: trial 0, .*, trial 4 and 2 more.$",
        ),
    ],
)
def test_what_was_confirmed_and_costs_no_more(rows: list[Any], words: str) -> None:
    shuffled = WORSE | CHEAP | {"arm": "shuffled"}
    text = said(WORSE | CHEAP, BASE, confirmation=confirmed(*rows, shuffled, selected=len(rows)))
    (sentence,) = [line for line in text if "multiply" in line]
    assert re.match(words, sentence)
    assert text.index(sentence) < len(text) - 1, "the control comes last"


def test_numbers_in_sentences() -> None:
    assert percent(None) == ""
    assert percent({"mean": 0.1234, "std": None, "n": 1}) == "12.34 % (n 1)"
    assert points(None) == ""
    assert points(difference(0.01, -0.02, 0.04)) == "+1.00 [−2.00, +4.00]"
