"""The report: what it says, that it is safe to open, and that it is written whatever is missing."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import altair as alt
import pytest
import yaml
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState
from rigged import SIZE, add_trial, attributes, keep_record, results_of, rigged_store
from typer.testing import CliRunner
from whole_records import whole_epoch, whole_layer, whole_record, whole_run

from sculpt.cli import app
from sculpt.errors import InputError
from sculpt.presentation.content import collect
from sculpt.presentation.details import curve_of
from sculpt.presentation.figures.rendering import write_picture
from sculpt.presentation.markdown import describe
from sculpt.presentation.network_figures import forward_order, layer_densities
from sculpt.presentation.page import render, to_json, write_report
from sculpt.presentation.parameter_figures import parameter_figures
from sculpt.record import TrialRecord
from sculpt.results.ranking import rank
from sculpt.results.verdict import verdict_of
from sculpt.storage.store import Store
from sculpt.study_file import load_study
from sculpt.typed_json import from_json

BASE = [0.10, 0.11, 0.12]
ORTHOGONALITY = {f"orthogonality_{k}": 1.0 for k in ("before", "after", "bound")}
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "</script><script>alert(3)</script>",
    "{{7*7}} {% raw %}",
    "%{x} <a href='https://evil.example'>here</a> %{customdata[0]}",
    "<!--<script>",
    "'\"><svg/onload=alert(4)>\u2028\u2029\ud800",
]


class Parsed(HTMLParser):
    """A page as a browser reads it: elements, their attributes, texts, and scripts."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._script = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = tag == "script"
        if self._script:
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script:
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def data(self, name: str) -> Any:
        """Return what stands in a script element of JSON."""
        return json.loads(next(text for attrs, text in self.scripts if attrs.get("id") == name))


@pytest.fixture(autouse=True)
def _small_library(monkeypatch):
    """Stand in for what draws in a browser, whose bytes say nothing here."""
    monkeypatch.setattr("sculpt.presentation.page.browser_library", lambda: "/* vega */")


def page_of(store: Store) -> Parsed:
    results = results_of(store)
    return Parsed(render(content := collect(results), parameter_figures(content, results.config)))


def record(layers: list[tuple[str, int]], errors: list[list[float]], **changes: Any) -> dict:
    """Return a trial's record: names of layers and what is kept of 100, errors of each seed."""
    runs = [
        whole_run(seed[-1], history=[whole_epoch(n, e) for n, e in enumerate(seed, start=1)])
        for seed in errors
    ]
    rows = [whole_layer(f"{name}.weight", kept=kept) for name, kept in layers]
    return whole_record([seed[-1] for seed in errors], layers=rows, runs=runs) | changes


def add_kept(
    store: Store,
    found: dict[str, Any],
    kept: dict[str, Any] | None = None,
    base: bool = False,
    **params: Any,
) -> None:
    """Add a finished trial, whose parameters are categories, and its record."""
    system = None if kept is None else keep_record(store, kept)
    choices = CategoricalDistribution([*HOSTILE[:6], *"ab", *range(10)])
    study = store.base if base else store.candidates
    add_trial(study, found, params, system=system, distribution=choices)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a study of everything: base, candidates, a stopped one, an infeasible one."""
    store = rigged_store(tmp_path_factory.mktemp("study"))
    layers = [("stem", 50), ("stages.0", 0), ("classifier", 100)]
    base = attributes(BASE, "base", kept_macs=900.0)
    add_kept(store, base, record(layers, [[0.5, 0.1], [0.4, 0.12]]), base=True)
    for number in range(5):
        errors = [error + 0.01 * number + 0.001 * number**2 for error in BASE]
        found = attributes(errors, kept_macs=1000.0 - 100 * number, sparsity=0.9)
        for step in ("initial", "pruned", "repaired"):
            found |= {f"{step}_effective_nodes": 100 - number, f"{step}_jacobian_mean": 0.5}
        kept = record(layers, [[0.6, 0.2]]) if number < 2 else None
        add_kept(store, found, kept, widening=number)
    stopped = {"stopped_because": "after epoch 3: beaten", "rungs": {"3": 0.4}}
    add_trial(store.candidates, stopped, {"blocks": 8}, TrialState.PRUNED)
    add_trial(store.candidates, {"infeasible": "too large"}, {"blocks": 9}, TrialState.FAIL)
    return store


def test_a_report_says_what_was_found(study, tmp_path):
    results = results_of(study)
    path = tmp_path / "deep" / "report.html"
    write_report(results, path)
    page = Parsed(path.read_text(encoding="utf-8"))
    verdict = verdict_of(rank(results))
    for text in (verdict.headline, *verdict.facts.cells[0], *verdict.facts.cells[-1]):
        assert " ".join(text.split()) in page.text
    names = [tag for tag, _ in page.tags]
    assert names.count("h1") == 1
    assert names.count("caption") == names.count("table")
    assert {"nav", "main", "noscript", "section"} <= set(names)
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    linked = {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    assert linked <= {f"#{name}" for name in ids}
    assert {"front", "trial-panel", "ranking", "reproduce"} <= ids
    panel = next(attrs for _, attrs in page.tags if attrs.get("id") == "trial-panel")
    assert panel["data-trial"] == "0", "the best candidate"
    for part in ("1 stopped", "after epoch 3: beaten", "1 infeasible", "too large", "feed"):
        assert part in page.text
    found = page.data("trials-data")
    assert [row["trial"] for row in found["trials"]] == ["base", 0, 1, 2, 3, 4]
    assert found["axes"] == ["val_error", "kept_macs"]
    assert found["trials"][1]["values"] == pytest.approx([1000.0, 0.5, 0.11]), "by name"
    details = found["details"]
    assert [layer["kept"] for layer in details["0"]["layers"]] == [50, 0, 100]
    assert "must lie in" in details["4"]["problem"], "its record is not there, the page is"
    figures = page.data("figures-data")
    places = {attrs["data-figure"] for _, attrs in page.tags if "data-figure" in attrs}
    assert places == figures.keys()
    assert {"errors", "layers", "curves", "signal_jacobian_mean", "proxy_0"} <= places


def test_nothing_is_fetched_and_only_its_own_scripts_run(study):
    page = page_of(study)
    policy = next(attrs["content"] for tag, attrs in page.tags if "http-equiv" in attrs) or ""
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert "unsafe-eval" not in policy
    for attrs, text in page.scripts:
        assert "src" not in attrs
        if attrs.get("type") != "application/json":
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy
    for tag, attrs in page.tags:
        assert tag not in ("img", "iframe", "object", "embed", "base", "form")
        assert tag != "link" or attrs["href"] == "data:,"
        assert not [name for name in attrs if name.startswith("on")]
    scripts = [text for attrs, text in page.scripts if not attrs]
    assert "editor: false" in "".join(scripts), "or it offers to upload"
    assert not [text for text in scripts if "innerHTML" in text or "eval(" in text]


def test_what_is_hostile_is_shown_as_text(tmp_path):
    published = {"source": HOSTILE[0], "figures": ["val_error"], "rows": []}
    published["rows"] = [{"params": {"model.x": HOSTILE[1]}, "val_error": 0.1}]
    data = {"data__name": "image_folder", "data__root": f"/data/{HOSTILE[2]}"}
    store = rigged_store(tmp_path, published=published, **data)
    versions = {"torch": HOSTILE[5], HOSTILE[4]: "1"}
    kept = record([("a", 1)], [[0.1]], versions=versions)
    add_kept(store, attributes(BASE, "base"), kept, base=True)
    for number, text in enumerate(HOSTILE[:6]):
        found = attributes([e + 0.01 * number for e in BASE], kept_macs=900.0 + number)
        kept = record([(HOSTILE[1], 1), (HOSTILE[4], 0)], [[0.2, 0.1]])
        add_kept(store, found, kept, **{"model.x": text, "pruning.y": "ab"[number % 2]})
        failed = {"error": f"{text} broke"}
        add_trial(store.candidates, failed, {"widening": number}, TrialState.FAIL)
    page = page_of(store)
    scripts = [attrs for attrs, _ in page.scripts]
    assert scripts.count({}) == 2, "the page's own, and no other"
    assert len(scripts) == 4
    allowed = {"a", "img", "svg", "form", "iframe"}
    assert not [t for t, attrs in page.tags if t in allowed - {"a"} or "onerror" in attrs]
    assert all(attrs["href"].startswith("#") for tag, attrs in page.tags if tag == "a")
    for text in HOSTILE[:6]:
        assert " ".join(f"{text} broke".split()) in page.text
    untimed = re.sub(r"\d\d:\d\d UTC", "", page.text)  # it may be written at 08:49
    assert "49" not in re.findall(r"\b49\b", untimed)
    assert f"Published errors are those of {HOSTILE[0]}" in page.text
    assert "/data/" not in page.text, "where the images lay is nobody's business"
    assert "sculpt run tiny.yaml --set data.root=DIR" in page.text
    assert HOSTILE[1] in page.text
    assert HOSTILE[5] in page.text
    # What is hostile is data of the figures, and in no expression of theirs.
    figures = page.data("figures-data")
    assert {"importances", "parallel", "layers", "errors"} <= figures.keys()
    assert HOSTILE[1] in {row["layer"] for row in figures["layers"]["datasets"]["layers"]}
    for text in expressions([*figures.values(), page.data("trials-data")]):
        assert not any(hostile in text for hostile in HOSTILE), text


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE[:6])
def test_names_are_shown_as_text(tmp_path, text):
    """Of a study (which its schema would refuse), and of the folder that lacks a record."""
    store = rigged_store(tmp_path / text.replace("/", "∕"))
    add_trial(store.base, attributes(BASE, "base"))
    content = replace(collect(results_of(store)), study=text)
    page = Parsed(render(content, []))
    assert " ".join(text.split()) in page.text
    assert [attrs for attrs, _ in page.scripts].count({}) == 2
    assert not [tag for tag, _ in page.tags if tag in ("img", "iframe", "form")]
    problem = page.data("trials-data")["details"]["base"]["problem"]
    assert text.replace("/", "∕") in problem
    assert describe(content, {}).count("\n# ") == 0, "one heading in Markdown, and no other"


def expressions(value: Any, key: str = "") -> list[str]:
    """Return every text that Vega-Lite evaluates."""
    if isinstance(value, dict):
        return [text for name, part in value.items() for text in expressions(part, name)]
    if isinstance(value, list):
        return [text for part in value for text in expressions(part, key)]
    known = ("expr", "calculate", "filter", "test", "labelExpr", "signal", "href", "url")
    return [value] if isinstance(value, str) and key in known else []


@pytest.mark.slow
def test_every_figure_is_a_chart_that_can_be_drawn(study, tmp_path):
    page = page_of(study)
    found = page.data("trials-data")
    figures = page.data("figures-data") | {"front": found["front"]} | found["panel"]
    assert len(figures) > 9
    for name, figure in figures.items():
        alt.LayerChart.from_dict(figure)
        write_picture(figure, tmp_path / f"{name}.svg")
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()


def test_json_cannot_leave_its_script_element():
    text = to_json({"a": HOSTILE})
    assert json.loads(text) == {"a": HOSTILE}
    assert not set("<>&\u2028\u2029") & set(text)
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(float("nan"))


@pytest.mark.parametrize(
    ("rows", "said", "selected"),
    [
        ("none", "Nothing has finished yet", None),
        ("base", "Only the dense base has finished", "base"),
        ("candidate", "The dense base has no result yet", 0),
    ],
)
def test_a_report_of_almost_nothing(tmp_path, rows, said, selected):
    store = rigged_store(tmp_path, search__objectives=["val_error"])
    if rows == "base":
        add_trial(store.base, attributes([0.1], "base"))
    if rows == "candidate":  # with missing numbers, and an empty record
        found = attributes([0.2]) | {"initial_jacobian_mean": float("inf"), "diverged": 1}
        bare = {k: v for k, v in found.items() if k not in ("dense_memory", "score_kept")}
        add_kept(store, bare, {"format": 1})
    page = page_of(store)
    assert said in page.text
    assert "it takes 4 finished candidates" in page.text
    shown = page.data("trials-data")
    assert shown["selected"] == selected
    if rows == "candidate":
        assert shown["axes"] == ["val_error", "kept_macs"]
        details = shown["details"]["0"]
        assert (details["layers"], details["curve"]) == ([], None)
        assert "the record of trial 0 must be whole, but" in details["problem"]
        assert "seeds diverged of 1 finished trial" in page.text


def test_each_budget_has_a_front_and_a_sentence(tmp_path):
    store = rigged_store(tmp_path)
    add_trial(store.base, attributes(BASE, "base"))
    for number, budget in enumerate([2000, SIZE, 2000, SIZE]):
        errors = [error + 0.001 * number for error in BASE]
        found = attributes(errors, budget=budget, kept_parameters=budget, kept_macs=100.0 * number)
        add_trial(store.candidates, found, {"budget": budget})
    content = collect(results_of(store))
    assert content.budgets == [2000, SIZE]
    groups = {trial.label: trial.group for trial in content.trials}
    assert groups == {"base": SIZE, 0: 2000, 1: SIZE, 2: 2000, 3: SIZE}
    names = [name for name, _ in content.verdict.facts.rows]
    assert [f"lowest validation error with {budget:,} parameters" for budget in (2000, SIZE)] == [
        name for name in names if "parameters" in name
    ]


def test_layers_stand_in_forward_order_and_collapsed_ones_are_marked(study):
    names = [["stem", "a.0", "b.0", "fc"], ["stem", "a.0", "a.1", "b.0", "b.1", "fc"]]
    assert forward_order(names) == ["stem", "a.0", "a.1", "b.0", "b.1", "fc"]
    figure = layer_densities(collect(results_of(study)))
    assert figure is not None
    encoding = figure["encoding"]
    assert encoding["y"]["scale"]["domain"] == ["dense base", "trial 0", "trial 1"]
    assert encoding["x"]["scale"]["domain"] == ["stem", "stages.0", "classifier"]
    rows = [row for row in figure["datasets"]["layers"] if row["trial"] == "trial 0"]
    assert [row["density"] for row in rows] == [0.5, 0.0, 1.0]
    assert "none of 100 kept" in rows[1]["text"]
    assert len(figure["layer"]) == 2, "collapsed layers have a mark of their own"


def test_a_seed_that_ended_early_keeps_its_error():
    kept = record([], [[0.5, 0.3, 0.1], [0.9]])
    curve = curve_of(from_json(TrialRecord, kept, "a record"))
    assert curve is not None
    assert curve["mean"] == pytest.approx([0.7, 0.6, 0.5])
    assert curve["n"] == 2


def test_the_study_can_be_run_from_what_stands_there(study, tmp_path, monkeypatch):
    monkeypatch.setattr("sculpt.presentation.details.MOST_RECORDS", 2)
    content = collect(results_of(study))
    assert list(content.details) == ["base", 0], "few records are read"
    file = tmp_path / "again.yaml"
    file.write_text(content.reproduction.yaml)
    assert load_study(file).fingerprint() == study.config.fingerprint()
    assert "storage" not in yaml.safe_load(file.read_text())


def test_the_command(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = ["--storage", study.config.storage_url]
    done = CliRunner().invoke(app, ["report", "tiny", *storage])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "tiny-report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert not list(tmp_path.glob("*.part"))
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["report", "tiny", *storage, "--output", "file/report.html"])
    assert isinstance(done.exception, InputError)
    assert "--output must be a file that can be written" in str(done.exception)
    assert done.exception.exit_code == 2
