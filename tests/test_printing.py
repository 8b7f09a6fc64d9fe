"""What terminals show: narrow ones, without colours or our letters; and readers that go away."""

import io
import math
import os
import sys

import pytest
from optuna.trial import TrialState
from rich.console import Console
from rigged import add_trial, attributes, printed, rigged_store

from sculpt.cli import main
from sculpt.cli.options import show_document
from sculpt.errors import InputError
from sculpt.search.progress import LiveView
from sculpt.table import Column, Table
from sculpt.units import count

LONG = "n" * 300
TABLE = Table(
    "all [red]things[/red]",
    [Column("name [bold]", "name"), Column("how many", "many", count), Column("", "more")],
    [
        {"name": "[red]x[/red]", "many": 1234567, "more": None},
        {"name": LONG, "many": None, "more": "a | b"},
    ],
    "what [it] means",
)


@pytest.fixture
def store(tmp_path):
    """A study of a base and two candidates, and a failure in letters of its own."""
    found = rigged_store(tmp_path)
    add_trial(found.base, attributes([0.2, 0.3], "base"))
    add_trial(found.candidates, attributes([0.1, 0.2]), {"widening": 2})
    add_trial(found.candidates, {"error": "Größe ☂"}, {"widening": 3}, TrialState.FAIL)
    yield found
    found.storage.close()


class TestNarrow:
    def test_nothing_is_cut(self):
        for width in (40, 80):
            shown = printed(TABLE, width)
            lines = shown.splitlines()
            assert max(map(len, lines)) <= width
            assert "…" not in shown
            assert LONG in "".join(lines)
            assert "  how many: 1,234,567" in lines
            assert "  a | b" in lines
            assert not {"  how many: ", "  "} & set(lines), "an empty cell has no line"

    def test_where_there_is_room_it_is_a_table(self):
        text = io.StringIO()
        Console(file=text, width=44, markup=False).print(TABLE.part(0, 1), highlight=False)
        assert "│ [red]x[/red] │ 1,234,567 │" in text.getvalue()

    def test_words_are_no_markup_and_colours_can_be_forbidden(self, monkeypatch):
        monkeypatch.setenv("NO_COLOR", "1")
        bad = Table("t", TABLE.columns, TABLE.rows[:1], look=lambda row: "bad")
        for width in (20, 100):
            text = io.StringIO()
            console = Console(file=text, width=width, markup=False, force_terminal=True)
            console.print(bad, highlight=False)
            assert "[red]x[/red]" in text.getvalue()
            assert "\x1b[31m" not in text.getvalue()

    def test_markdown_stays_a_table(self):
        lines = TABLE.markdown().splitlines()
        assert len(lines) == 4
        assert all(line.replace("\\|", "").count("|") == 4 for line in lines)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_progress_shows_parameters_as_they_are(encoding):
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding, write_through=True)
    view = LiveView(Console(file=stream, width=100, force_terminal=True))
    view.run_started(2, 0)
    view.trial_started(0, {"model": "a [red] [/b]"}, 3)
    view.trial_finished(0, 0.25, None)
    view.run_finished()
    assert "trial 0 model a [red] [/b]: val error 25.00%" in written.getvalue().decode(encoding)


def run(monkeypatch, stream, *arguments):
    """Run the command line with this standard output; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["sculpt", *map(str, arguments)])
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_encoding_will_do(encoding, store, monkeypatch):
    for command, expected in [
        (["rank"], {"ascii": "15.00 +- 7.07 % (n 2)", "utf-8": "15.00 ± 7.07 % (n 2)"}),
        (
            ["rank"],
            {"ascii": r"Gr\xf6\xdfe \u2602", "latin-1": r"Größe \u2602", "utf-8": "Größe ☂"},
        ),
        (["rank", "--format", "csv"], {"ascii": "rank,trial,role,budget,"}),
        (["pareto"], {"ascii": "widening 2", "latin-1": "widening 2"}),
    ]:
        written = io.BytesIO()
        stream = io.TextIOWrapper(written, encoding=encoding, write_through=True)
        arguments = [command[0], "tiny", *command[1:], "--storage", store.config.storage_url]
        assert run(monkeypatch, stream, *arguments) == 0
        assert expected.get(encoding, "") in written.getvalue().decode(encoding)


@pytest.mark.parametrize("command", [["rank"], ["rank", "--format", "csv"], ["status", "--json"]])
def test_a_reader_that_goes_away_is_no_failure(command, store, monkeypatch, capfd):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        arguments = [command[0], "tiny", *command[1:], "--storage", store.config.storage_url]
        assert run(monkeypatch, stream, *arguments) == 0
    assert capfd.readouterr().err == ""


def test_a_number_that_json_has_not_is_one_message():
    assert show_document({"a": math.inf}, False, str) is None
    with pytest.raises(InputError, match=r"must have finite numbers, .* leave out --json"):
        show_document({"a": math.inf}, True, str)


def test_a_full_disk_is_one_message(store, monkeypatch, capfd):
    arguments = ["rank", "tiny", "--storage", store.config.storage_url]
    with open("/dev/full", "w") as stream:
        assert run(monkeypatch, stream, *arguments) == 2
    message = "sculpt: what is printed must go somewhere, but cannot be written (No space left on"
    assert capfd.readouterr().err.startswith(message)


def test_no_output_at_all(store, monkeypatch, capfd):
    for command in (["rank"], ["rank", "--format", "csv"], ["show", "best"]):
        arguments = [command[0], "tiny", *command[1:], "--storage", store.config.storage_url]
        code = run(monkeypatch, None, *arguments)
        assert (code, capfd.readouterr().err.count("Traceback")) == (
            2 if "show" in command else 0,
            0,
        )


def test_help_for_a_reader_that_goes_away(monkeypatch, capfd):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        run(monkeypatch, stream, "rank", "--help")
    assert capfd.readouterr().err == ""
