"""What is said of published signs: never more than the intervals carry."""

import re
from typing import Any

import pytest

from sculpt.results.verdict import verdict_sentences
from sculpt.results.verdict_published import published_sentences


def judged(mean: float, verdict: str = "not distinguishable") -> dict[str, Any]:
    ends = {"low": mean - 0.01, "high": mean + 0.01, "p": 0.1, "p_holm": 0.2, "method": "student"}
    error = {"mean": 0.1, "std": 0.01, "n": 5}
    return error | {"difference": {"mean": mean} | ends, "verdict": verdict}


def row(published: float | None, measured: Any, chosen: Any = None, **changes: Any) -> Any:
    figure = {"test_error": 0.07, "difference": published}
    families = {"lowest_test": measured, "selected_test": chosen, "val": measured}
    return {"trial": 0, "role": "candidate", "published": figure} | families | changes


def document(*rows: dict[str, Any], protocol: str | None = "lowest_test") -> dict[str, Any]:
    base = row(None, judged(0.0), judged(0.0), role="base", trial="base")
    return {"compared": 16, "published_protocol": protocol, "rows": [base, *rows]}


BETTER, WORSE = judged(-0.02, "better"), judged(0.02, "worse")
LOWER, HIGHER = judged(-0.001), judged(0.001)
LOWEST = "By the lowest test error of all evaluations (the published protocol), "
SELECTED = "By the test error at the lowest validation error, "


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [
                row(-0.004, BETTER),
                row(-0.004, LOWER),
                row(+0.002, WORSE),
                row(-0.001, HIGHER),
                row(None, BETTER),
                row(0.0, BETTER),
                row(-0.001, BETTER) | {"published": None},
            ],
            "3 of 4 .*: 2 of these told from the base, 1 not distinguishable",
        ),
        (
            [row(-1, LOWER), row(-1, HIGHER), row(1, HIGHER), row(-1, WORSE)],
            "2 of 4 .*: none of these told from the base, 2 not .*; 1 has the other sign and is to",
        ),
        ([row(-0.1, HIGHER)], "none of 1 published row "),
        ([row(-0.1, judged(-5e-18))], "none of 1 published row "),
        ([row(-0.1, BETTER)], r".*: 1 of these told from the base \("),
        ([row(-0.1, WORSE), row(0.1, BETTER)], "none of 2 .*; 2 have the other sign and are told"),
        (
            [row(-0.1, BETTER), row(-0.1, BETTER | {"difference": None, "verdict": None})],
            "1 of 2 .*: 1 of these told from the base; 1 cannot be compared",
        ),
        ([row(-0.1, None)], "none of 1 published row that finished here can be compared"),
        # An interval that holds zero is never a reproduction.
        ([row(-0.004, LOWER)] * 6, "6 of 6 .*: none of these told from the base, 6 not disting"),
    ],
)
def test_signs_are_counted_under_both_protocols(rows: list[dict[str, Any]], words: str) -> None:
    rows = [found | {"selected_test": found["lowest_test"]} for found in rows]
    sentences = published_sentences(document(*rows))
    for sentence, start in zip(sentences, (LOWEST, SELECTED), strict=True):
        assert sentence.startswith(start)
        assert re.match(words, sentence.removeprefix(start))
        assert "16 comparisons" in sentence or "can be compared" in sentence
        assert "reproduc" not in sentence


def test_each_protocol_is_counted_by_its_own_errors() -> None:
    lowest, selected = published_sentences(document(row(-0.1, BETTER, WORSE)))
    assert lowest.startswith(f"{LOWEST}1 of 1 ")
    assert selected.startswith(f"{SELECTED}none of 1 ")


def test_validation_errors_stand_in_where_test_images_were_not_read() -> None:
    (text,) = published_sentences(document(row(-0.004, BETTER), protocol=None))
    assert text.startswith("By validation error (the test images were not read), 1 of 1 published")


def test_where_there_is_nothing_to_say() -> None:
    assert published_sentences(None) == []
    assert published_sentences(document(row(None, BETTER))) == []
    (text,) = published_sentences(document(row(-0.1, None, trial=None)))
    assert text == "None of 1 published row has finished here yet."


def test_they_stand_below_what_was_found() -> None:
    found = {"mean": 0.05, "std": 0.01, "n": 5}
    base = {"trial": "base", "role": "base", "params": {}, "diverged": 0, "kept_macs": 1.0}
    base |= {"val_error": found, "difference": None, "verdict": "base", "budget": 1}
    candidate = base | {"trial": 0, "role": "candidate", **BETTER, "val_error": found}
    published = document(row(-0.004, BETTER, LOWER))
    ranking = {"ranking": [candidate, base], "confirmation": None, "published": published}
    text = verdict_sentences(ranking)
    assert text[0].startswith("1 of 1 candidate is better")
    assert [line[: len(LOWEST)] for line in text].index(LOWEST) == len(text) - 3
    assert "by luck" in text[-1] or "chose it" in text[-1]
