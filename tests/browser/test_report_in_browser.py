"""`sculpt report` in a real browser: what a click shows, on a screen and on a phone."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

import sculpt
from sculpt.results.report.page import write_report


@pytest.fixture(scope="module")
def report(finished_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(sculpt.open_results(finished_study), path)
    return path


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_point_of_the_front_shows_its_trial(
    report: Path, finished_study: Path, page: Page, width: int, scheme: Any
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.goto(report.as_uri())
    drawn = page.locator("#front .main-svg").first
    expect(drawn).to_be_visible()
    # The verdict is the first that is read.
    expect(page.locator("main h2, body h2").first).to_have_text("Verdict")
    expect(page.get_by_text("Of 2 candidates confirmed on 3 fresh seeds").first).to_be_visible()

    results = sculpt.open_results(finished_study)
    front = sculpt.pareto(results)
    values = results.complete.set_index("trial")
    panel = page.locator("#trial-panel")
    for trial in front["trial"]:
        click_on(page, trial)
        expect(panel).to_have_attribute("data-trial", str(trial))
        error = f"{100 * values.loc[trial, 'val_error']:.2f} ± "
        expect(panel.get_by_text(error)).to_be_visible()
        expect(panel.locator(".plot .main-svg").first).to_be_visible()

    page_width, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert page_width <= window, "the page scrolls sideways"
    assert overlapping(page) == []


def click_on(page: Page, trial: int | str) -> None:
    """Click where the front has a trial: at its values, as Plotly places them."""
    # Plotly's own click takes what is nearest to the pointer, so the place must be the right one.
    page.locator("#front").scroll_into_view_if_needed()
    found = page.evaluate(
        """wanted => {
            const plot = document.getElementById("front"), box = plot.getBoundingClientRect();
            const { xaxis, yaxis } = plot._fullLayout;
            for (const trace of plot.data)
                for (const [i, data] of (trace.customdata ?? []).entries())
                    if (String([data].flat()[0]) === String(wanted))
                        return [box.x + xaxis._offset + xaxis.d2p(trace.x[i]),
                                box.y + yaxis._offset + yaxis.d2p(trace.y[i])];
            return null;
        }""",
        trial,
    )
    assert found, f"trial {trial} is not drawn"
    page.mouse.move(*found)
    page.mouse.click(*found)


def overlapping(page: Page) -> list[str]:
    """Return pairs of titles, tick labels and legend entries of one figure that overlap."""
    found = page.evaluate(
        """() => [...document.querySelectorAll(".plot")].flatMap(plot => {
            const texts = [...plot.querySelectorAll(
                ".xtick text, .ytick text, .xtitle, .ytitle, .legendtext, .gtitle")]
                .map(e => [e.textContent, e.getBoundingClientRect()])
                .filter(([text, box]) => text && box.width);
            return texts.flatMap(([a, p], i) => texts.slice(i + 1)
                .filter(([, q]) => Math.min(p.right, q.right) - Math.max(p.left, q.left) > 2
                    && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 2)
                .map(([b]) => `${plot.id}: ${a} / ${b}`));
        })"""
    )
    return json.loads(json.dumps(found))
