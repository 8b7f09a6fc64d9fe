"""Optuna's dashboard of a study's storage, served to browsers.

It has no log-in, and buttons that delete studies. So it answers only requests that a browser sends
from its own pages, and on a loopback address only those that are addressed to one.
"""

import ipaddress
import socket
import sys
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import optuna_dashboard

from sculpt.errors import InputError
from sculpt.storage.store import Store

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class DashboardServer(ThreadingMixIn, WSGIServer):
    """A server with a thread for each request: a page asks for much at once, some of it slow."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report a request that failed, unless the browser just went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """The address for a browser on this machine, without a path."""
        listening = str(self.server_address[0])
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listening, listening)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}"


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Print no line for each request."""


def open_server(store: Store, host: str, port: int) -> DashboardServer:
    """Open a port and the dashboard behind it; `serve_forever` answers.

    Args:
        store: The study. Its whole storage is shown, other studies included.
        host: Name or address to listen at.
        port: Port to listen at; 0 takes a free one.

    Raises:
        InputError: one cannot listen there.
    """
    server_class = type("_Server", (DashboardServer,), {"address_family": _family(host)})
    try:
        server = server_class((host, port), _QuietHandler)
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host, such as "a..b"
        raise InputError(
            "--host and --port must be an address of this machine and a port that is free, but "
            f"got {host:.100} and {port} ({getattr(error, 'strerror', None) or error}); give "
            "another --port (0 takes any free one), or another --host"
        ) from error
    application = optuna_dashboard.wsgi(store.storage, artifact_store=store.artifacts)
    server.set_app(guarded(application, only_loopback=is_loopback(host)))
    return server


def is_loopback(host: str) -> bool:
    """Recognise a host name or address that only this machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def guarded(application: Application, *, only_loopback: bool) -> Application:
    """Refuse what pages of other origins make a browser send.

    Args:
        application: A WSGI application.
        only_loopback: Whether requests must be addressed to a loopback name. A page whose own name
            was made to point here (DNS rebinding) is of the same origin to a browser, but its name
            is in the request. Any port is right, because it may have been forwarded from another.
    """

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
        try:
            name = urlsplit(f"//{host}").hostname or ""
            own = origin is None or urlsplit(origin).netloc == host
        except ValueError:  # such as "[bad"
            name, own = "", False
        if not own or (only_loopback and not is_loopback(name)):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"This dashboard answers only to its own pages, at the address it printed.\n"]

        def start_unframed(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            # In a frame of another page, clicks meant for that page would land here.
            return start_response(status, [*headers, ("X-Frame-Options", "SAMEORIGIN")], *rest)

        return application(environ, start_unframed)

    return answer


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
