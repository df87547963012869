"""A Firestore that gives the same answers again and again, in a process of its own; see ``canned``."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from benchmarks.canned import HOST, running

__all__ = ["canned_firestore"]

_STREAMS = frozenset({"BatchGetDocuments", "RunQuery"})


@asynccontextmanager
async def canned_firestore(answers: Mapping[str, Sequence[bytes]], delay: float = 0) -> AsyncIterator[str]:
    """A server that speaks gRPC as Firestore does; its host and port.

    Args:
        answers: by the name of the method, the messages of its answer, of which a method without a stream has one.
        delay: seconds after which it answers.
    """
    encoded = {name: [base64.b64encode(each).decode() for each in messages] for name, messages in answers.items()}
    async with running("benchmarks.canned_firestore", encoded, delay) as port:
        yield f"{HOST}:{port}"


class _Firestore(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, answers: Mapping[str, Sequence[bytes]], delay: float) -> None:
        self._answers = answers
        self._delay = delay

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        messages = self._answers[name]

        async def answer(request: bytes, context: Any) -> bytes:
            await asyncio.sleep(self._delay)
            return messages[0]

        async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
            await asyncio.sleep(self._delay)
            for message in messages:
                yield message

        if name in _STREAMS:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(answer)


async def _serve(delay: float) -> None:
    given = json.loads(await asyncio.to_thread(sys.stdin.readline))
    answers = {name: [base64.b64decode(each) for each in messages] for name, messages in given.items()}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([_Firestore(answers, delay)])
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
