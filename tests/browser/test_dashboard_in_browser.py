"""`sculpt dashboard` as a person meets it: what its pages show, and what they let happen."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial
from playwright.sync_api import Locator, expect

from sculpt.results.records import Results
from sculpt.storage.opening import open_store

pytestmark = pytest.mark.slow

HOSTILE = (
    "ValueError: <img src='http://other.example/a.png' onerror='document.title=1'> "
    "![b](http://other.example/b.png) [c](javascript:document.title=2) `d` **e** \n\n# f"
)


@dataclass(frozen=True)
class Dashboard:
    """One that serves a copy of the finished study."""

    page: str
    results: Results
    failed: int
    """Number of a trial that was added, and that failed with a hostile message."""


@pytest.fixture(scope="module")
def dashboard(finished_study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dashboard")
    storage = folder / "copy.db"
    # Not as a file: what was written last may still be in the log beside it.
    with (
        closing(sqlite3.connect(finished_study.with_suffix(".db"))) as original,
        closing(sqlite3.connect(storage)) as copy,
    ):
        original.backup(copy)
    shutil.copytree(finished_study.with_name("tiny-artifacts"), folder / "copy-artifacts")
    store = open_store("tiny", str(storage))
    store.candidates.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"error": HOSTILE}))
    failed = len(store.candidates.trials) - 1
    store.storage.close()
    command = [sys.executable, "-m", "sculpt", "dashboard", "tiny", "--port", "0", "--storage"]
    with subprocess.Popen([*command, storage], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            printed = process.stderr.readline()
            assert printed.startswith("dashboard: http://127.0.0.1:"), printed
            yield Dashboard(printed.split()[1], Results(store), failed)
        finally:
            process.kill()


def trial_of(point: Locator) -> dict[str, Any]:
    """Return what the Pareto plot knows of the trial of a point: number, values and params."""
    return json.loads(point.evaluate("point => point.__data__.tx.replaceAll('<br>', '')"))


def test_a_point_of_the_front_leads_to_its_trial(dashboard, page):
    page.goto(dashboard.page)
    points = page.locator("#graph-pareto-front .point")
    expect(points).to_have_count(4)
    assert (dashboard.results.trials["state"] == "infeasible").any(), "some could be drawn wrongly"
    complete = dashboard.results.complete.set_index("trial").drop("base")
    drawn = [trial_of(point) for point in points.all()]
    assert {trial["number"]: trial["values"] for trial in drawn} == {
        trial: pytest.approx([row["val_error"], row["kept_macs"]])
        for trial, row in complete.iterrows()
    }
    number = drawn[-1]["number"]
    points.last.click(force=True)  # what takes the click is a layer over the whole plot
    page.wait_for_url(re.compile(rf"/trials\?numbers={number}$"))
    expect(page.get_by_role("heading", name=f"Trial {number} (")).to_be_visible()
    expect(page.get_by_text(f"Candidate {number}", exact=True)).to_be_visible()
    row = complete.loc[number]
    said = f"validation error: {100 * row['val_error']:.2f} ± {100 * row['val_error_std']:.2f} %"
    expect(page.get_by_text(said)).to_be_visible()
    plot = page.get_by_alt_text("layer sparsities")
    expect(plot).to_be_visible()
    assert (
        plot.evaluate("async image => { await image.decode(); return image.naturalWidth; }") > 300
    )
    with page.expect_download() as download:
        page.locator(".MuiCard-root", has_text="record.json").get_by_role("link").click()
    record = json.loads(Path(download.value.path()).read_text())
    assert record["val_errors"] == row["val_errors"]


def test_notes_show_strings_as_they_are(dashboard, page):
    page.goto(f"{dashboard.page}/note")
    verdict = "Of 2 candidates confirmed on 3 fresh seeds"
    expect(page.get_by_text(verdict)).to_be_visible()
    page.get_by_role("link", name="tiny/base").click()
    expect(page.get_by_text("tiny/base (id=")).to_be_visible()
    page.goto(f"{dashboard.page}/trials?numbers={dashboard.failed}")
    shown = " ".join(HOSTILE.split())
    expect(page.locator("code", has_text="ValueError")).to_have_text(shown)
    expect(page).to_have_title("Optuna Dashboard")
    expect(page.locator("img")).to_have_count(0)
