"""`sculpt report` in a real browser: what a click shows, on a screen and on a phone."""

import json

import pytest
from playwright.sync_api import Page, expect

import sculpt
from sculpt.presentation.page import write_report

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(finished_study, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(sculpt.open_results(finished_study), path)
    return path


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_point_of_the_front_shows_its_trial(report, finished_study, page, width, scheme):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.goto(report.as_uri())
    drawn = page.locator("#front svg").first
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
        expect(panel.locator(".plot svg").first).to_be_visible()
    page_width, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert page_width <= window, "the page scrolls sideways"
    assert overlapping(page) == []


def test_the_front_zooms_and_comes_back(report, page):
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(report.as_uri())
    page.locator("#front").scroll_into_view_if_needed()
    drawn, labels = page.locator("#front svg"), page.locator("#front .role-axis-label text")
    expect(labels.first).to_be_visible()
    whole = set(labels.all_text_contents())
    middle = drawn.evaluate("svg => ({ x: svg.clientWidth / 2, y: svg.clientHeight / 2 })")
    drawn.hover(position=middle)
    page.keyboard.down("Shift")
    page.mouse.wheel(0, -400)
    page.keyboard.up("Shift")
    wanted = "wanted => new Set([...document.querySelectorAll('#front .role-axis-label text')]"
    wanted += ".map(label => label.textContent)).symmetricDifference(new Set(wanted)).size"
    page.wait_for_function(f"({wanted} > 0)", arg=sorted(whole))
    drawn.dblclick(position=middle)
    page.wait_for_function(f"({wanted} === 0)", arg=sorted(whole))


def click_on(page: Page, trial: int | str) -> None:
    """Click on the mark of a trial on the front."""
    page.locator("#front").scroll_into_view_if_needed()
    found = page.evaluate(
        """wanted => {
            const marks = [...document.querySelectorAll("#front .mark-symbol path")]
                .filter(mark => String(mark.__data__?.datum?.trial) === String(wanted));
            if (!marks.length) return null;
            const box = marks[0].getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
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
            const roles = ["axis-label", "axis-title", "legend-label", "title-text"];
            const texts = [...plot.querySelectorAll(
                roles.map(role => `.role-${role} text`).join(", "))]
                .filter(e => getComputedStyle(e).opacity !== "0")
                .map(e => [e.textContent, e.getBoundingClientRect()])
                .filter(([text, box]) => text && box.width);
            return texts.flatMap(([a, p], i) => texts.slice(i + 1)
                .filter(([, q]) => Math.min(p.right, q.right) - Math.max(p.left, q.left) > 2
                    && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 2)
                .map(([b]) => `${plot.id}${plot.dataset.figure}: ${a} / ${b}`));
        })"""
    )
    return json.loads(json.dumps(found))


def test_hovering_other_axes_and_print(report, page):
    page.emulate_media(color_scheme="dark")
    page.goto(report.as_uri())
    expect(page.locator("#front svg")).to_be_visible()
    page.locator("#axis-x").select_option(label="val_error")
    across = page.locator("#front .role-axis-title text").first
    expect(across).to_have_text("val_error (%)")
    page.locator("#front .mark-symbol path").first.hover(force=True)
    tooltip = page.locator("#vg-tooltip-element.visible")
    expect(tooltip).to_contain_text("validation error")
    ink = "() => document.querySelector('#front .role-axis-title text').getAttribute('fill')"
    dark = page.evaluate(ink)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(ink) != dark, "light on paper"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(ink) == dark
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"dark => ({ink})() !== dark", arg=dark)
