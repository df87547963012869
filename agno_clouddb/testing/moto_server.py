"""moto's server, one request at a time: ``python -m agno_clouddb.testing.moto_server HOST PORT``.

moto's own has a thread for each request, and its tables no lock. So of two conditional writes of an item at once both
may be let through, which DynamoDB rules out.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

__all__ = ["OneAtATime", "main"]


class OneAtATime:
    """Lets an application answer one request after the other; their bodies are read before.

    Args:
        app: the WSGI application.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._lock = Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if length := environ.get("CONTENT_LENGTH"):
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(length)))
        with self._lock:
            return list(self._app(environ, start_response))


def main() -> None:
    """Serve until the process is ended."""
    host, port = sys.argv[1:]
    app = OneAtATime(DomainDispatcherApplication(create_backend_app))
    run_simple(host, int(port), app, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    main()
