"""Serving the pages on the loopback interface, for as long as the user wants."""

import socket
import webbrowser
from threading import Thread
from typing import Any

import uvicorn

from micrographia.core.errors import UserError

LOOPBACK = "127.0.0.1"


def listening(port: int) -> socket.socket:
    """A socket on this port of the loopback interface, 0 for any that is free. Raises UserError for one in use."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # so named, asyncio sends at once
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((LOOPBACK, port))
        found.listen(128)
    except OSError as error:
        found.close()
        raise UserError(
            f"Asked to serve on port {port}: {error.strerror}. Give another --port, or none for any free one."
        ) from error
    return found


def address(at: socket.socket, token: str) -> str:
    return f"http://{LOOPBACK}:{at.getsockname()[1]}/?token={token}"


def serve(app: Any, at: socket.socket, *, show: str | None = None) -> None:
    """Answer until interrupted. `show`: the address to open in the user's browser, which waits until it is answered."""
    if show is not None:
        Thread(target=webbrowser.open, args=(show,), daemon=True).start()
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[at])
