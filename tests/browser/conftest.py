"""A real browser, a page that may do nothing unexpected, and a finished study to show."""

import os
import shutil
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import ConsoleMessage, Request, expect, sync_playwright

import sculpt
from studies import write_study

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 240_000  # only a hang is ever cut off by it: a busy machine takes minutes to draw

QUIET = [
    "--no-sandbox",  # which root cannot have, and every page here is ours
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window, and with a profile of its own."""
    found = os.environ.get("SCULPT_TEST_BROWSER") or next(
        filter(None, map(shutil.which, NAMES)), ""
    )
    if not found:
        pytest.skip(
            "needs Chromium or Chrome: install one (Debian: apt-get install chromium), or name "
            "its program in SCULPT_TEST_BROWSER"
        )
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield launched
        launched.close()


@pytest.fixture
def page(browser):
    """An empty page; at the end there was no error in it, and no request to anywhere else.

    Anywhere else is what is not of the origin of the first address it went to, or for a file
    any other file.
    """
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    shown = context.new_page()
    shown.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    faults: list[str] = []
    asked: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            faults.append(f"console {message.type}: {message.text}")

    def on_request(request: Request) -> None:
        if urlsplit(request.url).scheme not in ("data", "blob"):
            asked.append(request.url)

    shown.on("console", on_console)
    shown.on("pageerror", lambda error: faults.append(f"uncaught: {error}"))
    # Of the whole context: windows that the page opens are looked at, too.
    context.on("request", on_request)
    yield shown
    context.close()
    assert asked, "the page went nowhere"
    elsewhere = [url for url in asked if _origin(url) != _origin(asked[0])]
    assert (faults, elsewhere) == ([], [])


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.path if parts.scheme == "file" else parts.netloc


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory):
    """The file of a study that has run: two objectives, infeasible points, and a confirmation."""
    path = write_study(
        tmp_path_factory.mktemp("finished"),
        space={
            "parameters": {"widening": [2, 3, 8], "blocks": [1, 2]},
            "constraints": {"max_dense_parameters": 100_000},
        },
        search__objectives=["val_error", "kept_macs"],
        search__trials=5,
        search__replicates=2,
        search__confirm={"top": 2, "seeds": 3},
    )
    sculpt.run(path)
    return path
