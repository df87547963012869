"""Names of documents: ids as text that Firestore accepts, in the same order.

Source: https://firebase.google.com/docs/firestore/quotas, "Collections, documents, and fields": a document id is at
most 1,500 bytes of UTF-8, holds no slash, is neither ``.`` nor ``..`` and does not match ``__.*__``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agno_clouddb.errors import CloudDBError, ConfigurationError
from agno_clouddb.stores.base import Key
from agno_clouddb.stores.schema import collection

__all__ = ["CHUNKS", "Layout", "escape", "unescape"]

CHUNKS = "chunks"
"""The subcollection of a document that holds the chunks of its payload."""

_MAX_SEGMENT_BYTES = 1_500
_ESCAPED = re.compile(r"\.[01]")
_PLAIN = {".0": ".", ".1": "/"}
_PREFIX = re.compile(r"(?!__)[^/\x00-\x1f\x7f]{0,200}")


def escape(text: str) -> str:
    """An id as a document id: different for different ids, ordered as they are by bytes of UTF-8.

    A full stop becomes ``.0``, a slash ``.1`` and a leading underscore ``_0``, so that at most twice the bytes
    result. Order is kept since full stop and slash are neighbours in UTF-8 and stay the two least after a full stop.
    """
    if "." in text or "/" in text:
        text = text.replace(".", ".0").replace("/", ".1")
    return f"_0{text[1:]}" if text.startswith("_") else text


def unescape(name: str) -> str:
    """The id that ``escape`` turned into ``name``.

    Raises:
        CloudDBError: ``escape`` does not make such a name, so that another program has written the document.
    """
    text = f"_{name[2:]}" if name.startswith("_0") else name
    text = _ESCAPED.sub(lambda match: _PLAIN[match[0]], text)
    if escape(text) != name:
        raise CloudDBError(
            f"the document id {name!r} is not one that this library writes",
            remedy="Another program writes to this collection; give the store a prefix of its own",
        )
    return text


@dataclass(frozen=True, slots=True)
class Layout:
    """Where documents are in a database.

    Args:
        root: ``projects/PROJECT/databases/DATABASE/documents``.
        prefix: precedes the names of top-level collections; a subcollection is told apart by its parent.
    """

    root: str
    prefix: str

    @staticmethod
    def check(prefix: str) -> None:
        """Raise ConfigurationError unless the names of collections may begin with ``prefix``."""
        if not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(
                f"the prefix {prefix!r} cannot begin the name of a collection",
                remedy="Choose one without slashes, not beginning with two underscores, of at most 200 characters",
            )

    def collection_id(self, name: str) -> str:
        """What a collection of the schema is called on Firestore."""
        return name if collection(name).parent is not None else f"{self.prefix}{name}"

    def parent(self, name: str, parent: str | None) -> str:
        """The document, or the database's root, that has this collection of the schema in it."""
        above = collection(name).parent
        if above is None or parent is None:
            return self.root
        return f"{self.root}/{self.prefix}{above}/{escape(parent)}"

    def document(self, key: Key) -> str:
        """The full name of an item's document."""
        return f"{self.parent(key.collection, key.parent)}/{self.collection_id(key.collection)}/{escape(key.id)}"

    def key(self, document: str, name: str, parent: str | None) -> Key:
        """The key of a document that was found in this collection of the schema."""
        return Key(name, unescape(document.rpartition("/")[2]), parent)

    def key_at(self, document: str, name: str) -> Key | None:
        """The key of a document of this collection of the schema, by its full name alone.

        Returns:
            None where the document is somewhere else: under another prefix, or deeper down.
        """
        path = document.removeprefix(f"{self.root}/").split("/")
        above = collection(name).parent
        place = [self.collection_id(name)] if above is None else [self.collection_id(above), path[1], name]
        if path[:-1] != place:
            return None
        return Key(name, unescape(path[-1]), None if above is None else unescape(path[1]))

    def is_document(self, path: str, name: str) -> bool:
        """Whether a path below the root can be that of a document in a collection of this id, be it foreign."""
        parts = path.split("/")
        return (
            len(parts) % 2 == 0
            and parts[-2] == self.collection_id(name)
            and all(each not in ("", ".", "..") and len(each.encode()) <= _MAX_SEGMENT_BYTES for each in parts)
        )

    @staticmethod
    def chunk(document: str, version: str, number: int) -> str:
        """The full name of the document that holds one chunk of a payload."""
        return f"{document}/{CHUNKS}/{version}-{number:04}"
