"""moto answers one request after the other, whatever else it has read."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from agno_clouddb.testing.moto_server import OneAtATime


def test_requests_at_once_are_answered_one_after_the_other() -> None:
    under_way, most, bodies = 0, 0, list[bytes]()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        time.sleep(0.01)
        bodies.append(environ["wsgi.input"].read())
        yield b"answer"
        under_way -= 1

    def ask(number: int) -> None:
        environ = {"CONTENT_LENGTH": "1", "wsgi.input": io.BytesIO(b"%d and more" % number)}
        assert list(served(environ, lambda *_: None)) == [b"answer"]

    served = OneAtATime(app)
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert sorted(bodies) == [b"%d" % number for number in range(8)]
