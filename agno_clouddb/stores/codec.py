"""Payloads as bytes: JSON, compressed where that is smaller, and cut into chunks where a store's items are limited.

JSON is checked before it is encoded, so that what a store keeps is exactly what a reader gets back, on every store:
a value that JSON cannot carry is InvalidRecord with its path, never silently changed.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from typing import Any

import zstandard

from agno_clouddb.errors import CloudDBError, InvalidRecord, RecordTooLarge
from agno_clouddb.stores.base import Payload
from agno_clouddb.stores.items import is_encodable

__all__ = ["MAX_DEPTH", "check_json", "decode", "encode", "join", "split"]

MAX_DEPTH = 200
"""How deep lists and objects may nest."""

_MAX_INT_BITS = 4096
_WIDEST = 10_000  # values of one level that are looked at at once: one inside itself has more with every level
_COMPRESS_FROM = 256  # characters; shorter texts do not become smaller
_MAX_DECODED = 256 * 1024 * 1024  # bytes; so much a reader must hold in memory
_TEXT_MARK, _BYTES_MARK = b"t", b"b"

_local = threading.local()


def _codecs() -> tuple[zstandard.ZstdCompressor, zstandard.ZstdDecompressor]:
    # A zstandard context must not be shared between threads, and making one costs more than compressing a run.
    if not hasattr(_local, "codecs"):
        _local.codecs = (zstandard.ZstdCompressor(level=5), zstandard.ZstdDecompressor())
    codecs: tuple[zstandard.ZstdCompressor, zstandard.ZstdDecompressor] = _local.codecs
    return codecs


def check_json(value: Any, path: str = "data", *, collection: str | None = None) -> None:
    """Raise InvalidRecord unless JSON carries ``value`` exactly.

    Args:
        value: anything.
        path: what the value is called, the start of the path in the error.
        collection: named in the error.

    Raises:
        InvalidRecord: for NaN and infinities, integers over 4,096 bits, lone surrogates, keys that are not text,
            nesting over 200 levels, and every type that is not JSON's own, with the path of the value.
    """
    if _carries(value):
        return
    stack = [(path, value, 1)]
    while stack:
        path, value, depth = stack.pop()
        kind = type(value)
        if kind is str:
            problem = _text_problem(value)
        elif value is None or kind is bool:
            continue
        elif kind is int:
            problem = f"is an integer of over {_MAX_INT_BITS} bits" if value.bit_length() > _MAX_INT_BITS else ""
        elif kind is float:
            problem = "" if math.isfinite(value) else f"is {value}, which JSON has not"
        elif kind is dict or kind is list:
            problem = f"is nested over {MAX_DEPTH} levels deep" if depth > MAX_DEPTH else ""
            if not problem:
                stack.extend(_children(path, value, depth + 1, collection))
        else:
            problem = f"is of type {kind.__name__}, which JSON has not"
        if problem:
            raise InvalidRecord(_shorten(path), problem, collection=collection)


def _carries(value: Any) -> bool:
    """Whether JSON carries a value for certain, judged level by level, without the paths that an error would name."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for each in level:
            kind = type(each)
            if kind is str:
                if not is_encodable(each):
                    return False
            elif kind is dict:
                for name in each:
                    if type(name) is not str or not is_encodable(name):
                        return False
                inner += each.values()
            elif kind is list:
                inner += each
            elif not (
                each is None
                or kind is bool
                or (kind is int and each.bit_length() <= _MAX_INT_BITS)
                or (kind is float and math.isfinite(each))
            ):
                return False
            if len(inner) > _WIDEST:
                return False
        if not inner:
            return True
        level = inner
    return False


def _children(
    path: str, value: dict[Any, Any] | list[Any], depth: int, collection: str | None
) -> Iterator[tuple[str, Any, int]]:
    if isinstance(value, list):
        for position, each in enumerate(value):
            yield f"{path}[{position}]", each, depth
        return
    for name, each in value.items():
        if type(name) is not str:
            raise InvalidRecord(_shorten(path), f"has the key {name!r}, which is not text", collection=collection)
        if problem := _text_problem(name):
            raise InvalidRecord(_shorten(path), f"has a key that {problem}", collection=collection)
        yield f"{path}.{name}", each, depth


def _text_problem(text: str) -> str:
    return "" if is_encodable(text) else "contains a lone surrogate"


def _shorten(path: str) -> str:
    return path if len(path) <= 200 else f"{path[:120]}…{path[-60:]}"


def encode(value: Any) -> Payload:
    """The payload of a value that ``check_json`` has passed: JSON as text, or compressed bytes where smaller.

    Raises:
        RecordTooLarge: the text is over 256 MiB, more than ``decode`` takes.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if len(text) < _COMPRESS_FROM:
        return text
    raw = text.encode()
    if len(raw) > _MAX_DECODED:
        raise RecordTooLarge(len(raw), _MAX_DECODED)
    compressed = _codecs()[0].compress(raw)
    return compressed if len(compressed) < len(raw) else text


def decode(payload: Payload) -> Any:
    """The value in a payload.

    Raises:
        CloudDBError: the payload is damaged, or was not written by this library.
    """
    try:
        if isinstance(payload, bytes):
            if zstandard.frame_content_size(payload) > _MAX_DECODED:
                raise ValueError("the frame is larger than any this library writes")
            payload = _codecs()[1].decompress(payload, max_output_size=_MAX_DECODED).decode()
        return json.loads(payload)
    except (ValueError, zstandard.ZstdError) as error:
        raise CloudDBError(
            "a stored payload cannot be decoded", remedy="It is damaged, or another program has written it"
        ) from error


def split(payload: Payload, size: int) -> list[bytes]:
    """A payload as chunks of at most ``size`` bytes, which ``join`` puts together."""
    raw = _BYTES_MARK + payload if isinstance(payload, bytes) else _TEXT_MARK + payload.encode()
    return [raw[start : start + size] for start in range(0, len(raw), size)]


def join(chunks: list[bytes]) -> Payload:
    """The payload that ``split`` cut into ``chunks``, given in order."""
    raw = b"".join(chunks)
    return raw[1:] if raw[:1] == _BYTES_MARK else raw[1:].decode()
