from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agno_clouddb.errors import CloudDBError, ConfigurationError
from agno_clouddb.stores.base import MAX_ID_BYTES, Key
from agno_clouddb.stores.firestore.names import Layout, escape, unescape

ids = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]) | st.sampled_from("._/0"), min_size=1)


@given(ids)
@example(".")
@example("..")
@example("__x__")
@example("_0")
@example("a/b.c")
def test_an_escaped_id_is_one_that_firestore_accepts_and_comes_back(text: str) -> None:
    name = escape(text)
    assert "/" not in name
    assert name not in (".", "..")
    assert not name.startswith("__")
    assert unescape(name) == text


@given(ids, ids)
@example("_a", "_0a")
@example("a.", "a/")
@example("a/", "a0")
@example("a", "a.")
@example("😀", "\uffee")
def test_escaping_keeps_the_order_by_bytes_of_utf_8(one: str, other: str) -> None:
    assert (escape(one).encode() < escape(other).encode()) == (one.encode() < other.encode())


@pytest.mark.parametrize("text", ["." * MAX_ID_BYTES, "_" + "/" * (MAX_ID_BYTES - 1)])
def test_the_longest_id_fits_into_a_document_id(text: str) -> None:
    assert len(escape(text).encode()) <= 1500


@pytest.mark.parametrize("name", ["a.b", "a.", ".", "__x", "_x"])
def test_a_document_id_that_escape_never_makes_is_an_error(name: str) -> None:
    with pytest.raises(CloudDBError, match="not one that this library writes"):
        unescape(name)


def test_a_child_is_in_a_subcollection_of_its_parents_document() -> None:
    layout = Layout("projects/p/databases/d/documents", "x_")
    run = Key("runs", "r.1", "s/1")
    name = layout.document(run)
    assert name == "projects/p/databases/d/documents/x_sessions/s.11/runs/r.01"
    assert layout.key(name, "runs", "s/1") == run
    assert layout.chunk(name, "v", 3) == f"{name}/chunks/v-0003"


def test_the_key_of_a_document_is_in_its_name() -> None:
    layout = Layout("projects/p/databases/(default)/documents", "x_")
    for key in (Key("sessions", "a/b"), Key("runs", "r.1", "s/1"), Key("spans", "_", "."), Key("replication", "runs")):
        assert layout.key_at(layout.document(key), key.collection) == key


@pytest.mark.parametrize(
    "path",
    [
        "x_sessions/s/other/o/runs/r",
        "y_sessions/s/runs/r",
        "x_sessions2/s/runs/r",
        "x_traces/s/runs/r",
        "x_sessions/s/runs/r/runs/r",
        "runs/r",
    ],
)
def test_a_document_elsewhere_has_no_key(path: str) -> None:
    layout = Layout("projects/p/databases/d/documents", "x_")
    assert layout.key_at(f"{layout.root}/{path}", "runs") is None
    assert layout.is_document(path, "runs")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "runs",
        "x_sessions/s/runs",
        "x_sessions/s",
        "x_sessions//runs/r",
        "x_sessions/../runs/r",
        "runs/" + "r" * 1501,
    ],
)
def test_a_path_that_cannot_be_of_a_document_of_the_collection_is_none(path: str) -> None:
    assert not Layout("projects/p/databases/d/documents", "x_").is_document(path, "runs")


@pytest.mark.parametrize("prefix", ["a/b", "__a", "a\n", "x" * 201])
def test_a_prefix_that_no_collection_can_begin_with_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        Layout.check(prefix)


@pytest.mark.parametrize("prefix", ["", "agno_", "_a", "prod.agno-"])
def test_other_prefixes_are_accepted(prefix: str) -> None:
    Layout.check(prefix)
