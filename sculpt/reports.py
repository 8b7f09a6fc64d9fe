"""A study for people to look at: in numbers, as a page, in a browser.

Nothing here waits for PyTorch to be imported.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from sculpt.errors import SculptError, check_choice
from sculpt.results.records import Results, open_results

ReportFormat = Literal["html", "md"]


def status(study: Results | str | Path, storage: str | None = None) -> dict[str, Any]:
    """Count the trials of a study by their state (docs/reference/json.md).

    Args:
        study: Its results, or whatever `open_results` takes.
        storage: Where it is kept; by default where the file says, or `runs/NAME.db`.

    Raises:
        StorageError: there is no such study.
    """
    results = study if isinstance(study, Results) else open_results(study, storage)
    document: dict[str, Any] = {"study": results.config.study, "trials": results.tally()}
    if results.config.opponents:
        states = {row["trial"]: row["state"] for row in results.opponent_rows}
        labels = (opponent.label for opponent in results.config.opponents)
        document["opponents"] = {label: states.get(label, "to come") for label in labels}
    return document


def report(
    study: Results | str | Path,
    output: str | Path | None = None,
    *,
    format: ReportFormat = "html",
    storage: str | None = None,
) -> Path:
    """Write down what a study has found, the verdict first.

    Args:
        study: Its results, or whatever `open_results` takes.
        output: A file; by default `NAME-report.html` or `NAME-report.md`, here.
        format: `html` is one page that works offline; `md` is Markdown, with its figures as PNG in
            a folder beside it.
        storage: Where the study is kept; by default where the file says, or `runs/NAME.db`.

    Returns:
        The file.

    Raises:
        StorageError: there is no such study.
        InputError: the file cannot be written.
    """
    check_choice("format", format, get_args(ReportFormat))
    results = study if isinstance(study, Results) else open_results(study, storage)
    path = Path(output or f"{results.config.study}-report.{format}")
    if format == "md":
        from sculpt.presentation.markdown import write_markdown

        write_markdown(results, path)
    else:
        from sculpt.presentation.page import write_report

        write_report(results, path)
    return path


def dashboard(
    study: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    storage: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Show a study in Optuna's dashboard, with notes and layer plots, until Ctrl-C.

    Args:
        study: Whatever `open_results` takes.
        host: Where to listen; there is no log-in.
        port: Where to listen; 0 takes a free one.
        storage: Where the study is kept; by default where the file says, or `runs/NAME.db`.
        say: Is told the page's address, and what to know of it.

    Raises:
        StorageError: there is no such study.
        InputError: one cannot listen there.
    """
    from sculpt.presentation.dashboard.annotations import annotate
    from sculpt.presentation.dashboard.attributes import StudyAttributes
    from sculpt.presentation.dashboard.server import is_loopback, open_server
    from sculpt.storage.opening import open_store

    store = open_store(study, storage)
    server = None
    try:
        server = open_server(store, host, port)  # first, because a port may be taken
        try:
            annotate(store)
        except SculptError as error:
            say(f"without new notes and layer plots: {error}")
        if not is_loopback(host):
            say(
                f"listening at {host}: there is no log-in, and anyone who reaches this port can "
                "change and delete studies; 127.0.0.1 is open to this machine alone"
            )
        if store.archive:
            say(f"{store.archive} is an archive: what is changed in the dashboard is not kept")
        page = server.address + StudyAttributes(store.candidates, store.storage).page
        say(f"dashboard: {page} (Ctrl-C ends it)")
        server.serve_forever()
    except KeyboardInterrupt:
        pass  # the way to end it, so no failure
    finally:
        if server is not None:
            server.server_close()
        store.storage.close()
