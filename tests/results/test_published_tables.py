"""What is shown beside published figures: in a terminal, on a page, and in Markdown."""

import pytest
from published_studies import BASE, BETTER, SOURCE, add_measured, published_store, whole_study
from rigged import printed, results_of, rigged_store

from sculpt.presentation.content import collect
from sculpt.presentation.figures.rendering import write_picture
from sculpt.presentation.interval_figures import published_intervals
from sculpt.presentation.markdown import describe, write_markdown
from sculpt.presentation.page import render
from sculpt.results.ranking import rank
from sculpt.results.tables.ranking import published_tables, ranking_tables
from sculpt.storage.store import Store
from sculpt.units import error, points, signed

TITLES = [
    "beside the published figures: lowest test error",
    "beside the published figures: test error, selected by validation",
]

TITLES_OF = {
    "lowest_test": "lowest test error",
    "selected_test": "test error, selected by validation",
}


@pytest.fixture(autouse=True)
def _small_library(monkeypatch):
    monkeypatch.setattr("sculpt.presentation.page.browser_library", lambda: "/* vega */")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return whole_study(tmp_path_factory.mktemp("whole"))


def verdicts(store: Store) -> list[list[str]]:
    """Return the last column but one of each table."""
    tables = published_tables(rank(results_of(store))["published"])
    return [[row[6] for row in table.cells] for table in tables]


def test_the_rows_of_both_protocols(whole):
    document = rank(results_of(whole))["published"]
    tables = published_tables(document)
    assert [table.title for table in tables] == TITLES
    for table, family in zip(tables, ("lowest_test", "selected_test"), strict=True):
        rows = {row[0]: row for row in table.cells}
        assert list(rows) == ["base", "2", "1", "–", "0"]
        measured = {str(row["trial"]): row[family] for row in document["rows"]}
        expected = ["widening 2, blocks 1", "7.01 %", signed(-0.34), error(measured["1"])]
        expected += [points(measured["1"]["difference"]), "better", "4,000"]
        assert rows["1"] == ["1", *expected]
        assert rows["base"][2:] == ["7.35 %", "", error(measured["base"]), "", "base", "2,000"]
        assert rows["–"][2:] == ["7.99 %", "+0.64", "", "", "to come", ""]
        assert rows["0"][2:4] == ["", ""], "not published"
        assert rows["0"][6] == "worse"
    assert tables[0].cells[2][4] != tables[1].cells[2][4]


def test_how_it_was_judged_and_what_could_not_be_read_is_said(tmp_path):
    store = whole_study(tmp_path / "whole")
    lowest, selected = published_tables(rank(results_of(store))["published"])
    for table in (lowest, selected):
        assert all(part in table.note for part in (SOURCE, "over 3 candidates", "Student's t"))
    assert "optimistic" in lowest.note
    assert "optimistic" not in selected.note
    store = published_store(tmp_path / "unread")
    add_measured(store, BASE)
    add_measured(store, BETTER, {"widening": 2, "blocks": 1}, with_record=False)
    tables = published_tables(rank(results_of(store))["published"])
    found = [[row[6] for row in table.cells if row[0] == "0"] for table in tables]
    assert found == [["better"], ["record not read"]]
    assert "records cannot be read: 0." in tables[1].note
    assert "Holm" not in tables[1].note, "nothing was compared"


def test_without_a_base_or_test_errors(tmp_path):
    store = published_store(tmp_path / "no base")
    add_measured(store, BETTER, {"widening": 2, "blocks": 1})
    assert verdicts(store) == [["to come", "to come", "base not known", "to come"]] * 2
    blind = whole_study(tmp_path / "blind", protocol="validation")
    assert verdicts(blind) == [["base", "not distinguishable", "better", "to come", "worse"]]
    (table,) = published_tables(rank(results_of(blind))["published"])
    assert table.headers[4] == "validation error"
    assert "test images were not read" in table.note


def test_a_terminal_of_160_columns_holds_them(whole):
    document = rank(results_of(whole))
    text = printed(ranking_tables(document), 160)
    assert [line.strip() for line in text.splitlines() if "beside the" in line] == TITLES
    assert text.index(TITLES[0]) > text.index("tiny: 4 of 99")
    assert max(map(len, text.splitlines())) <= 160
    assert "…" not in text
    for table in published_tables(document["published"]):
        for row in table.cells:
            assert any(all(c in line for c in row[2:]) for line in text.splitlines()), row
    assert "beside" not in printed(ranking_tables(document | {"published": None}))


def test_the_page_and_markdown_show_them(whole, tmp_path):
    results = results_of(whole)
    content = collect(results)
    page, text = render(content, []), describe(content, {"published": "p.png"})
    assert page.index('id="h-errors"') < page.index('id="h-beside"') < page.index('id="h-pareto"')
    assert '<a href="#beside">' in page
    assert 'data-figure="published"' in page
    assert "(<p.png>)" in text
    for table in published_tables(content.document["published"]):
        assert table.title[1:] in page
        for row in table.cells:
            assert all(f">{cell}</" in page for cell in row), row
            shown = text.replace("\\", "")
            assert f"| {' | '.join(row)} |" in shown
        assert table.note.replace("'", "&#39;") in page
    files = write_markdown(results, tmp_path / "report.md")
    assert "published.png" in [file.name for file in files]


def test_a_long_publication_is_folded(whole, monkeypatch):
    monkeypatch.setattr("sculpt.presentation.page.SHOWN_ROWS", 3)
    monkeypatch.setattr("sculpt.presentation.markdown.SHOWN_ROWS", 3)
    content = collect(results_of(whole))
    page = render(content, [])
    assert page.count("<summary>2 more rows</summary>") == 2
    assert page.count("selected by validation, the rest</span>") == 1
    assert describe(content, {}).count("and 2 more\n\nPublished") == 2


def test_nothing_is_shown_without_published_errors(tmp_path):
    store = rigged_store(tmp_path)
    add_measured(store, BASE)
    add_measured(store, BETTER, {"widening": 2, "blocks": 1})
    content = collect(results_of(store))
    assert published_tables(content.document["published"]) == []
    assert published_intervals(content) is None
    assert "Beside the published" not in render(content, []) + describe(content, {})


def test_the_figure_has_intervals_and_marks(whole, tmp_path):
    content = collect(results_of(whole))
    figure = published_intervals(content)
    assert figure is not None
    drawn = figure["datasets"]["intervals"]
    assert list(dict.fromkeys(row["label"] for row in drawn)) == ["trial 2", "trial 1", "trial 0"]
    published = [row for row in drawn if row["series"] == "published"]
    assert [row["x"] for row in published] == pytest.approx([-1.23, -0.34])
    assert not any("low" in row for row in published)
    rows = {f"trial {row['trial']}": row for row in content.document["published"]["rows"]}
    for family, name in TITLES_OF.items():
        measured = [row for row in drawn if row["series"] == name]
        assert len(measured) == 3
        for row in measured:
            difference = rows[row["label"]][family]["difference"]
            for end, key in (("x", "mean"), ("low", "low"), ("high", "high")):
                assert row[end] == pytest.approx(100 * difference[key], rel=1e-4, abs=1e-6)
    write_picture(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5_000
