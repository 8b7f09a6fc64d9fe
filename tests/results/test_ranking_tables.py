"""What `sculpt rank` shows: every figure of the document, in the right place."""

from typing import Any

from rigged import printed

from sculpt.results.tables.ranking import ranking_tables


def difference(mean: float, method: str = "student") -> dict[str, Any]:
    ends = {"low": mean - 0.01, "high": mean + 0.0125, "p": 0.2, "p_holm": 0.4}
    return {"mean": mean, **ends, "method": method}


def row(trial: int | str, **changes: Any) -> dict[str, Any]:
    return {
        "rank": 1,
        "trial": trial,
        "role": "base" if trial == "base" else "candidate",
        "params": {"widening": 2},
        "budget": 4874,
        "kept_parameters": 4874,
        "sparsity": 0.75,
        "val_error": {"mean": 0.0512, "std": 0.0034, "n": 3},
        "diverged": 0,
        "kept_macs": 123_456.0,
        "difference": None if trial == "base" else difference(-0.0042),
        "verdict": "base" if trial == "base" else "not distinguishable",
        "seconds": 12.3,
    } | changes


def document(**changes: Any) -> dict[str, Any]:
    return {
        "study": "tiny",
        "trials": {"total": 3, "complete": 2, "stopped": 1},
        "ranking": [row("base"), row(0)],
        "unranked": [],
        "confirmation": None,
        "proxies": [],
        "published": None,
        **changes,
    }


def show(shown: dict[str, Any]) -> tuple[str, list[list[str]]]:
    """Return the printed text, and its rows as cells."""
    text = printed(ranking_tables(shown), 220)
    rows = [line.strip("│").split("│") for line in text.splitlines() if line.startswith("│")]
    return text, [[cell.strip() for cell in cells] for cells in rows]


def test_the_ranking():
    text, rows = show(document())
    assert "tiny: 2 of 3 trials complete, 1 stopped" in text
    sizes = ["widening 2", "5.12 ± 0.34 % (n 3)", "4,874", "75.00%", "123.46 k"]
    judged = ["−0.42 [−1.42, +0.83]", "not distinguishable"]
    assert rows == [["1", "base", *sizes, "", "base", "12.3"], ["1", "0", *sizes, *judged, "12.3"]]
    assert "Holm-corrected over 1 candidate, 95 %" in " ".join(text.split())
    assert not [part for part in ("confirmation", "correlation") if part in text]


def test_what_is_compared_is_said():
    several, rows = show(document(ranking=[row("base"), row(0), row(1, budget=2000)]))
    assert [cells[4] for cells in rows] == ["4,874", "4,874", "2,000"]
    assert "over 2 candidates" in several
    single = {"difference": None, "verdict": "single seed", "diverged": 1}
    text, rows = show(document(ranking=[row("base"), row(0, **single)]))
    assert rows[1][-2:] == ["single seed (1 diverged)", "12.3"]
    assert "Holm" not in text


def test_nothing_that_ended_is_hidden():
    one = {"params": {"widening": 3}, "seconds": None, "error": None}
    failed = {"trial": 7, "state": "failed", **one}
    stopped = {"state": "stopped", **one, "seconds": 1.25, "error": "after epoch 3: beaten"}
    many = [failed] + [{"trial": 8 + i, **stopped} for i in range(12)]
    text, rows = show(document(unranked=many))
    assert "not ranked: 1 failed, 12 stopped" in text
    assert rows[2] == ["7", "failed", "widening 3", "", "interrupted too often"]
    assert rows[3] == ["8", "stopped", "widening 3", "1.2", "after epoch 3: beaten"]
    assert len(rows) == 2 + 10
    assert "and 3 more" in text


def test_the_confirmation():
    error = {"mean": 0.06, "std": 0.001, "n": 8}
    base = {"budget": 4874, "kept_parameters": 4874, "kept_macs": 1e6}
    base |= {"val_error": error, "test_error": error | {"mean": 0.07}}
    sculpted = base | {"trial": 4, "arm": "sculpted", "params": {"widening": 3}}
    sculpted |= {"against": "base", "difference": difference(0.02, "bootstrap"), "verdict": "worse"}
    shuffled = sculpted | {"arm": "shuffled", "against": 4, "difference": None, "verdict": None}
    found = {"top": 2, "seeds": 8, "selected": [4, 2], "complete": False, "base": base}
    found["rows"] = [sculpted, shuffled]
    text, rows = show(document(ranking=[], confirmation=found))
    errors = ["6.00 ± 0.10 % (n 8)", "7.00 ± 0.10 % (n 8)", "4,874", "1.00 M"]
    assert rows == [
        ["base", "", "", *errors, "", "", "base"],
        ["4", "sculpted", "widening 3", *errors, "+2.00 [+1.00, +3.25]", "base", "worse"],
        ["4", "shuffled", "widening 3", *errors, "", "4", "to come"],
    ]
    for part in ("8 fresh seeds, not complete", "bootstrap-t", "over 2 candidates"):
        assert part in text


def test_the_strongest_proxies():
    proxies = [
        {"proxy": f"proxy_{n}", "rho": (-1) ** n * (0.95 - n / 10), "p": 0.0123, "n": 9}
        for n in range(9)
    ]
    proxies.append({"proxy": "constant", "rho": None, "p": None, "n": 9})
    text, rows = show(document(ranking=[], proxies=proxies))
    assert len(rows) == 8
    assert rows[:2] == [["proxy_0", "+0.95", "0.012", "9"], ["proxy_1", "-0.85", "0.012", "9"]]
    assert "constant" not in text
    assert "all budgets" not in text
    text, _ = show(document(ranking=[row(0), row(1, budget=2000)], proxies=proxies))
    assert "all budgets together" in " ".join(text.split())
    assert "correlation" not in show(document(proxies=proxies[-1:]))[0]
