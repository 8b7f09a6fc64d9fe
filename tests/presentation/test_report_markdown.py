"""The report as Markdown: what it says, that strings stay strings, and that its figures are PNG."""

from pathlib import Path

from optuna.trial import TrialState
from PIL import Image
from rigged import add_trial, attributes, results_of, rigged_store
from typer.testing import CliRunner

import sculpt
from sculpt.cli import app
from sculpt.errors import InputError
from sculpt.presentation.candidate_figures import error_against_sparsity, pareto_front
from sculpt.presentation.content import collect
from sculpt.presentation.figures.rendering import write_picture
from sculpt.presentation.markdown import write_markdown

BASE = [0.10, 0.11, 0.12]


def write(folder: Path, **changes: object) -> tuple[str, list[Path]]:
    """Write the report of a small study; return its text, and the figures."""
    store = rigged_store(folder)
    add_trial(store.base, attributes(BASE, "base", kept_macs=500.0))
    for number in range(15):
        errors = [error + 0.01 * number for error in BASE]
        costs = {"kept_macs": 1000.0 - 10 * number, "sparsity": 0.9}
        found = attributes(errors, **costs) | {"pruned_effective_nodes": 100 - number}
        add_trial(store.candidates, found, {"widening": number})
    failed = {"error": "ValueError: <img src=x onerror=alert(1)> | `x` [a](http://b.example)\n# c"}
    add_trial(store.candidates, failed, {"widening": 99}, TrialState.FAIL)
    path = folder / "out" / "report.md"
    files = write_markdown(results_of(store), path)
    assert files[0] == path
    return path.read_text(encoding="utf-8"), files[1:]


def test_what_it_says(tmp_path):
    text, pictures = write(tmp_path)
    lines = text.splitlines()
    assert lines[0] == "# tiny"
    assert lines[2].startswith("**None of 15 candidates")
    for part in (
        "16 of 99 trials complete, 1 failed",
        "| 2 | 0 | widening 0 | 11.00 ± 1.00 % (n 3) |",
        "| 1 | base | blocks 1, stem\\_width 4, widening 1 |",
        "and 4 more",  # 15 candidates and the base, of which 12 are shown
        "| `effective_nodes` | ",
        "sculpt run tiny.yaml",
    ):
        assert part in text
    assert text.count("```") == 4
    # Strings stay strings, in one cell each.
    row = next(line for line in lines if line.startswith("| 15 | failed |"))
    assert "\\<img src=x onerror=alert(1)\\> \\| \\`x\\` \\[a\\](http://b.example) \\# c" in row
    assert row.replace("\\|", "").count("|") == 6
    assert [picture.stem for picture in pictures] == ["errors", "front"]
    for picture in pictures:
        assert f"(<report-figures/{picture.name}>)" in text
        with Image.open(picture) as image:
            assert image.format == "PNG"
            assert image.width > 900
            colours = image.convert("RGB").getcolors(2**24)
            assert len(colours or []) > 50, "something is drawn"
        assert picture.stat().st_size < 300_000


def test_the_front_is_that_of_the_query(tmp_path):
    store = rigged_store(tmp_path)
    add_trial(store.base, attributes([0.2, 0.2], "base", kept_macs=500.0))
    for error, macs in ((0.1, 900.0), (0.15, 600.0), (0.16, 700.0), (0.3, 400.0)):
        add_trial(store.candidates, attributes([error, error], kept_macs=macs), {"widening": 1})
    results = results_of(store)
    figure = pareto_front(collect(results))
    assert figure is not None
    front = next(param["value"] for param in figure["params"] if param["name"] == "front")
    assert sorted(front, key=str) == sorted(sculpt.pareto(results)["trial"], key=str)


def test_several_budgets_and_published_points_are_drawn(tmp_path):
    published = {"source": "elsewhere", "figures": ["val_error"], "rows": []}
    published["rows"] = [{"params": {"budget": 100, "widening": 2}, "val_error": 0.05}]
    store = rigged_store(tmp_path, published=published, budget=[100, 200])
    add_trial(store.base, attributes(BASE, "base"))
    for budget in (100, 200):
        for widening in (2, 3):
            found = attributes([e + widening / 100 for e in BASE], budget=budget, sparsity=0.5)
            add_trial(store.candidates, found, {"budget": budget, "widening": widening})
    content = collect(results_of(store))
    for figure in (error_against_sparsity(content), pareto_front(content)):
        assert figure is not None
        write_picture(figure, tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 5_000


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = rigged_store(tmp_path)
    arguments = ["report", "tiny", "--storage", store.config.storage_url, "--format", "md"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "Nothing has finished yet" in (tmp_path / "tiny-report.md").read_text()
    assert not (tmp_path / "tiny-report-figures").exists(), "nothing could be drawn"
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, [*arguments, "--output", "file/report.md"])
    assert isinstance(done.exception, InputError)
    assert "--output must be a file that can be written" in str(done.exception)
