"""Payloads: what JSON carries, how it is encoded, and how it is cut."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from agno_clouddb.errors import CloudDBError, InvalidRecord
from agno_clouddb.stores.codec import MAX_DEPTH, check_json, decode, encode, join, split

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def same(left: Any, right: Any) -> bool:
    """Equal in type too, which `1 == 1.0 == True` is not."""
    return repr(left) == repr(right)


class TestCheckJson:
    @given(VALUES)
    def test_what_passes_comes_back_exactly(self, value: Any) -> None:
        check_json(value)
        assert same(decode(encode(value)), value)

    @pytest.mark.parametrize(
        ("value", "path", "problem"),
        [
            ({"a": [1, math.nan]}, "data.a[1]", "nan"),
            ({"a": {"b": math.inf}}, "data.a.b", "inf"),
            ([-math.inf], "data[0]", "-inf"),
            ({"a": 2**4097}, "data.a", "4096 bits"),
            ({"a": "x\ud800"}, "data.a", "surrogate"),
            ({"a": {"x\udfff": 1}}, "data.a", "surrogate"),
            ({"a": {1: 2}}, "data.a", "not text"),
            ({"a": {None: 2}}, "data.a", "not text"),
            ({"a": (1, 2)}, "data.a", "tuple"),
            ({"a": {1, 2}}, "data.a", "set"),
            ({"a": b"x"}, "data.a", "bytes"),
            ({"a": Decimal(1)}, "data.a", "Decimal"),
            (object(), "data", "object"),
        ],
    )
    def test_what_json_cannot_carry_is_named_by_its_path(self, value: Any, path: str, problem: str) -> None:
        with pytest.raises(InvalidRecord, match=problem) as caught:
            check_json(value, collection="sessions")
        assert (caught.value.path, caught.value.collection) == (path, "sessions")

    def test_the_root_of_the_path_can_be_named(self) -> None:
        with pytest.raises(InvalidRecord) as caught:
            check_json([math.nan], "session_data")
        assert caught.value.path == "session_data[0]"

    def test_nesting_up_to_the_limit_passes_and_deeper_does_not(self) -> None:
        check_json(nested(MAX_DEPTH))
        assert decode(encode(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
        with pytest.raises(InvalidRecord, match="200 levels"):
            check_json(nested(MAX_DEPTH + 1))
        with pytest.raises(InvalidRecord):
            check_json(nested(100_000))

    def test_a_value_inside_itself_is_invalid_rather_than_endless(self) -> None:
        value: list[Any] = []
        value.append(value)
        with pytest.raises(InvalidRecord):
            check_json(value)

    def test_a_value_twice_inside_itself_is_invalid_rather_than_endless(self) -> None:
        value: list[Any] = []
        value += [value, value]
        with pytest.raises(InvalidRecord, match="nested"):
            check_json(value)

    def test_a_level_of_any_width_passes_and_what_is_wrong_in_it_is_named(self) -> None:
        wide: list[Any] = [[None] * 300 for _ in range(300)]
        check_json(wide)
        wide[299][299] = {1}
        with pytest.raises(InvalidRecord) as raised:
            check_json(wide)
        assert raised.value.path == "data[299][299]"

    def test_a_long_path_is_shortened(self) -> None:
        with pytest.raises(InvalidRecord) as caught:
            check_json({"k" * 1_000: {"end": math.nan}})
        assert len(caught.value.path) < 200
        assert caught.value.path.endswith(".end")

    def test_integers_of_4096_bits_pass(self) -> None:
        value = [2**4096 - 1, -(2**4096 - 1)]
        check_json(value)
        assert decode(encode(value)) == value


class TestEncode:
    def test_a_small_value_is_json_as_text(self) -> None:
        assert encode({"é": [1, 2.5, None, True]}) == '{"é":[1,2.5,null,true]}'

    def test_a_large_repetitive_value_is_compressed(self) -> None:
        value = {"messages": ["the same words again"] * 200}
        payload = encode(value)
        assert isinstance(payload, bytes)
        assert len(payload) < len(json.dumps(value)) // 10
        assert decode(payload) == value

    def test_what_compression_does_not_make_smaller_stays_text(self) -> None:
        value = "".join(chr(0x4E00 + (n * 7919) % 20_000) for n in range(300))
        payload = encode(value)
        assert len(payload if isinstance(payload, bytes) else payload.encode()) <= len(value.encode()) + 2
        assert decode(payload) == value

    def test_nan_never_gets_through_unchecked(self) -> None:
        with pytest.raises(ValueError, match="JSON"):
            encode(math.nan)


class TestDecode:
    @pytest.mark.parametrize(
        "payload",
        ["", "{", b"", b"not a frame", zstandard.compress(b"{"), zstandard.compress(b"\xff"), encode("x" * 999)[:-4]],
    )
    def test_a_damaged_payload_is_an_error_of_the_library(self, payload: Any) -> None:
        with pytest.raises(CloudDBError, match="cannot be decoded") as caught:
            decode(payload)
        assert caught.value.__cause__ is not None

    def test_a_frame_that_claims_to_be_huge_is_refused_before_memory_is_taken(self) -> None:
        header = b"\x28\xb5\x2f\xfd" + b"\xe0" + (2**40).to_bytes(8, "little")
        with pytest.raises(CloudDBError, match="cannot be decoded"):
            decode(header)


class TestSplit:
    @given(st.binary() | st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 10))
    def test_chunks_join_to_the_same_payload(self, payload: str | bytes, size: int) -> None:
        chunks = split(payload, size)
        assert all(1 <= len(chunk) <= size for chunk in chunks)
        assert all(len(chunk) == size for chunk in chunks[:-1])
        joined = join(chunks)
        assert (type(joined), joined) == (type(payload), payload)

    def test_text_and_bytes_of_the_same_content_stay_apart(self) -> None:
        assert join(split("abc", 2)) == "abc"
        assert join(split(b"abc", 2)) == b"abc"
