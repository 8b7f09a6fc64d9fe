"""Commands that serve a study to browsers."""

from typing import Annotated

import typer

from sculpt.cli.options import Kept, Storage, progress_console


def dashboard(
    study: Kept,
    host: Annotated[str, typer.Option(help="Where to listen; there is no log-in.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")
    ] = 8080,
    storage: Storage = None,
) -> None:
    """Show a study in Optuna's dashboard, with notes and layer plots; Ctrl-C ends it.

    Example: sculpt dashboard studies/digits.yaml --port 8081
    """
    from sculpt.errors import SculptError
    from sculpt.results.dashboard.annotations import annotate
    from sculpt.results.dashboard.attributes import StudyAttributes
    from sculpt.results.dashboard.server import is_loopback, open_server
    from sculpt.search.opening import open_store

    store = open_store(study, storage)
    server = None
    try:
        server = open_server(store, host, port)  # first, because a port may be taken
        try:
            annotate(store)
        except SculptError as error:
            _say(f"without new notes and layer plots: {error}")
        if not is_loopback(host):
            _say(
                f"listening at {host}: there is no log-in, and whoever reaches this port can "
                "change and delete studies; 127.0.0.1 is open to this machine alone"
            )
        if store.archive:
            _say(f"{store.archive} is an archive: what is changed in the dashboard is not kept")
        page = server.address + StudyAttributes(store.candidates, store.storage).page
        _say(f"dashboard: {page} (Ctrl-C ends it)")
        server.serve_forever()
    except KeyboardInterrupt:
        pass  # the way to end it, so no failure
    finally:
        if server is not None:
            server.server_close()
        store.storage.close()


def _say(message: str) -> None:
    # Whole lines, so that an address can be clicked and copied however narrow the terminal.
    progress_console.print(message, markup=False, highlight=False, soft_wrap=True)
