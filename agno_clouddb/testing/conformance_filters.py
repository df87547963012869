"""Conformance: what filters let through, beyond an index's partition or as its partition, and tallies of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from agno_clouddb.errors import InvalidRecord, QueryNotIndexed
from agno_clouddb.stores.base import MAX_ANY_OF, Delete, Item, Query, Range, Store, Stored, Tally
from agno_clouddb.testing.conformance_base import (
    FAR_FUTURE,
    LONG_PAST,
    ConformanceBase,
    Samples,
    check_tally,
    fill,
    ids,
    only,
    stamp,
    tally_of,
    walk,
)

__all__ = ["AnyOfCases", "FilterCases", "TallyCases"]

SORTS = [(sort, descending) for sort in ("created_at", "updated_at") for descending in (False, True)]


def varied(samples: Samples) -> list[Item]:
    """Sessions of this test, with values that several of them share; each fifth has no name."""
    items = []
    for n in range(18):
        names = {} if n % 5 == 0 else {"session_name": ["x", "X", "xx", ""][n % 4]}
        fields = {
            "user_id": samples.token + "abc"[n // 2 % 3],
            "component_id": samples.token,
            "session_type": ["agent", "team", "workflow"][n % 3],
            "created_at": f"{samples.token}{n % 4}",
            "updated_at": f"{samples.token}{n % 5}",
            "generation": f"{n % 2}",
        }
        items.append(replace(samples.item(f"{n:02d}"), fields=fields | names))
    return items


async def fill_both(store: Store, model: Store, items: Iterable[Item]) -> None:
    items = list(items)
    await fill(store, items)
    await fill(model, items)


async def compare(store: Store, model: Store, query: Query, sorts: Iterable[tuple[str, bool]] = SORTS) -> None:
    """Hold pages, count and tally of a list in each order against the model's; it must list something."""
    for sort, descending in sorts:
        query = replace(query, sort=sort, descending=descending)
        listed = await walk(model, query, 100)
        assert listed, query
        assert ids(await walk(store, query, 5)) == ids(listed), query
        assert await store.count(query) == len(listed), query
    assert await store.tally(query, "generation") == tally_of(listed, query, "generation"), query


class FilterCases(ConformanceBase):
    """Filters beyond the index's partition."""

    @pytest.mark.parametrize(
        ("low", "high", "wanted"),
        [
            ("2", None, "2345"),
            (None, "3", "12"),
            ("2", "4", "23"),
            ("2", "2", ""),
            ("4", "2", ""),
            ("", "1", ""),
            ("19", "21", "2"),
            ("5", "\U0010ffff", "5"),
            ("6", None, ""),
        ],
    )
    async def test_ranges_include_their_low_end_and_exclude_their_high_end(
        self, store: Store, samples: Samples, low: str | None, high: str | None, wanted: str
    ) -> None:
        token = samples.token
        await fill(store, [samples.item(n, created=n, updated_at=token + n) for n in "12345"])
        limits = Range("created_at", None if low is None else token + low, None if high is None else token + high)
        for sort, descending in SORTS:
            query = replace(samples.query(), sort=sort, descending=descending, ranges=(limits,))
            listed = [name.removeprefix(token) for name in ids(await walk(store, query, 2))]
            assert listed == list(wanted[::-1] if descending else wanted)
            assert await store.count(query) == len(wanted)

    async def test_several_ranges_must_all_hold(self, store: Store, samples: Samples) -> None:
        token = samples.token
        await fill(
            store,
            [samples.item(f"{n}", created=f"{n}", updated_at=f"{9 - n}", session_name=f"{n % 3}") for n in range(9)],
        )
        await fill(store, [samples.item("no name", created="3", updated_at="6")])
        query = replace(
            samples.query(),
            ranges=(
                Range("created_at", token + "1"),
                Range("created_at", token + "0", token + "8"),
                Range("updated_at", "3", "8"),
                Range("session_name", "1", "3"),
            ),
        )
        assert [name.removeprefix(token) for name in ids(await walk(store, query, 2))] == ["2", "4", "5"]
        assert await store.count(query) == 3

    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ("HELLO", "ab"),
            ("hello", "ab"),
            ("lo W", "a"),
            ("strasse", "c"),
            ("STRASSE", "c"),
            ("straße", "c"),
            ("ÉCLAIR", "d"),
            ("%", "e"),
            ("_", "e"),
            ("100% a_b", "e"),
            ("*", ""),
            ("xyz", ""),
        ],
    )
    async def test_contains_compares_whatever_the_case(
        self, store: Store, samples: Samples, text: str, wanted: str
    ) -> None:
        names = {"a": "Hello World", "b": "say hELLo", "c": "Große Straße", "d": "un éclair", "e": "100% a_b", "f": ""}
        await fill(store, [samples.item(key, created=key, session_name=name) for key, name in names.items()])
        await fill(store, [samples.item("nameless", created="g")])
        query = replace(samples.query(), contains={"session_name": text})
        assert ids(await walk(store, query, 2)) == [samples.key(name).id for name in wanted]
        assert await store.count(query) == len(wanted)

    @pytest.mark.parametrize(
        "names",
        [
            ("user_id",),
            ("component_id",),
            ("component_id", "user_id"),
            ("component_id", "session_type"),
            ("component_id", "session_type", "user_id"),
            ("component_id", "generation"),
            ("user_id", "session_name"),
        ],
    )
    async def test_equalities_are_combined(
        self, store: Store, model: Store, samples: Samples, names: tuple[str, ...]
    ) -> None:
        await fill_both(store, model, varied(samples))
        token = samples.token
        values = {
            "user_id": token + "a",
            "component_id": token,
            "session_type": "team",
            "generation": "1",
            "session_name": "x",
        }
        await compare(store, model, Query("sessions", "created_at", equals={name: values[name] for name in names}))


class AnyOfCases(ConformanceBase):
    """A field must have one of several values, be it an index's partition, kept in the index or neither."""

    async def test_items_with_any_of_the_values_are_listed_once_in_order(
        self, store: Store, model: Store, samples: Samples
    ) -> None:
        await fill_both(store, model, varied(samples))
        dead = samples.item("dead", owner=samples.token + "a", expires_at=LONG_PAST, updated_at=samples.token)
        a, b, c, none = (samples.token + each for each in "abc?")
        for any_of in (
            {"user_id": (a, b)},
            {"user_id": (c,)},
            {"user_id": (b, a, b)},
            {"user_id": (a, none)},
            {"session_name": ("x", "xx")},
            {"user_id": (c, a), "session_name": ("X", "x")},
            {"user_id": (b, c), "session_type": ("team", "team", "workflow"), "generation": ("1",)},
        ):
            query = replace(samples.query(), any_of=any_of)
            await compare(store, model, query, SORTS[:1] + SORTS[-1:])
            if "user_id" in any_of:
                # Beside another partition it is a filter; alone it is the partition itself, or kept in the index.
                query = replace(query, equals={})
                await compare(store, model, query)
        await fill(store, [dead])
        for any_of in ({"user_id": (a, b)}, {"user_id": (a,), "session_type": ("agent", "team")}):
            query = Query("sessions", "created_at", any_of=any_of)
            assert dead.key not in {item.key for item in await walk(store, query, 5)}

    async def test_ranges_and_texts_narrow_it_further(self, store: Store, model: Store, samples: Samples) -> None:
        await fill_both(store, model, varied(samples))
        token = samples.token
        query = Query(
            "sessions",
            "created_at",
            any_of={"user_id": (token + "a", token + "b")},
            ranges=(Range("created_at", token + "1", token + "3"), Range("updated_at", token + "1")),
        )
        await compare(store, model, query)
        await compare(store, model, replace(query, ranges=(), contains={"session_name": "X"}))

    @pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
    async def test_a_cursor_goes_on_in_each_value_and_upon_another_store(
        self, store: Store, model: Store, samples: Samples, descending: bool
    ) -> None:
        owners = [samples.token + name for name in "abc"]
        # Many with one sort value, so that a page ends among items that only their ids order.
        items = [samples.item(f"{n:02d}", created=f"{n // 8}", owner=owners[n % 3]) for n in range(24)]
        await fill_both(store, model, items)
        query = Query("sessions", "created_at", descending, any_of={"user_id": tuple(owners[:2])})
        wanted = [item.key.id for n, item in enumerate(items) if n % 3 < 2]
        listed: list[str] = []
        cursor, sides = None, [store, model]
        while len(listed) < len(wanted):
            page = await sides[0].query(query, limit=3, cursor=cursor)
            assert page.items
            listed += ids(page.items)
            cursor = page.cursor
            sides.reverse()
        assert listed == (wanted[::-1] if descending else wanted)

    async def test_an_item_that_moves_to_another_of_the_values_is_listed_once(
        self, store: Store, samples: Samples
    ) -> None:
        owners = (samples.token + "a", samples.token + "b")
        await fill(store, [samples.item(name, created=name, owner=owners[0]) for name in "xyz"])
        query = Query("sessions", "created_at", any_of={"user_id": owners})
        await fill(store, [samples.item("y", 2, created="y", owner=owners[1])])
        assert ids(await walk(store, query, 1)) == [samples.key(name).id for name in "xyz"]
        await fill(store, [samples.item("x", 2, created="x", owner=samples.token + "c")])
        assert ids(await walk(store, query, 1)) == [samples.key(name).id for name in "yz"]
        assert await store.count(query) == 2

    async def test_as_many_values_as_the_limit_says(self, store: Store, samples: Samples) -> None:
        owners = tuple(f"{samples.token}{n:02d}" for n in range(MAX_ANY_OF))
        await fill(store, [samples.item(owner, created="1", owner=owner) for owner in owners[::7]])
        query = Query("sessions", "created_at", any_of={"user_id": owners})
        assert ids(await walk(store, query, 2)) == [samples.key(owner).id for owner in owners[::7]]
        for any_of in ({"user_id": (*owners, "x")}, {"user_id": owners, "session_type": ("x",)}, {"user_id": ()}):
            for call in (
                store.count(replace(query, any_of=any_of)),
                store.query(replace(query, any_of=any_of), limit=1),
            ):
                with pytest.raises(InvalidRecord) as caught:
                    await call
                assert caught.value.path == ", ".join(any_of)

    async def test_children_of_one_parent_are_filtered(self, store: Store, samples: Samples) -> None:
        runs = [samples.run(f"{n}", n) for n in range(9)]
        await fill(
            store, [replace(run, fields={**run.fields, "generation": "abc"[n % 3]}) for n, run in enumerate(runs)]
        )
        query = replace(samples.runs(), any_of={"generation": ("c", "a")})
        assert ids(await walk(store, query, 2)) == ["0", "2", "3", "5", "6", "8"]
        assert await store.count(query) == 6


class TallyCases(ConformanceBase):
    """What a list has of each value of a field."""

    @pytest.mark.parametrize("by", ["user_id", "session_type", "session_name", "created_at", "generation"])
    async def test_a_tally_is_of_what_is_listed(self, store: Store, samples: Samples, by: str) -> None:
        token = samples.token
        items = varied(samples)
        old = LONG_PAST
        expired = [
            samples.item(f"e{n}", created="9", owner=token + "d", session_name="x", expires_at=old) for n in "12"
        ]
        dead = Item(samples.key("t"), stamp(2), expires_at=FAR_FUTURE, deleted=True)
        await fill(store, [*items, *expired, samples.item("t", 1, created="0", owner=token + "t"), samples.run("r", 1)])
        await fill(store, [dead])
        everything = Query("sessions", "created_at", ranges=(Range("created_at", token, token + "~"),))
        for query in (
            everything,
            samples.query(),
            replace(samples.query(session_type="team"), descending=True),
            replace(everything, any_of={"user_id": (token + "a", token + "c")}, equals={"generation": "1"}),
            replace(samples.query(), ranges=(Range("created_at", token + "1", token + "3"),)),
            replace(samples.query(), contains={"session_name": "X"}),
        ):
            listed, gone = (
                [each for each in among if query.matches(replace(each, expires_at=None), old)]
                for among in (items, expired)
            )
            assert listed
            check_tally(await store.tally(query, by), tally_of(listed, query, by), tally_of(gone, query, by))

    async def test_a_tally_of_children_is_of_one_parent(self, store: Store, samples: Samples) -> None:
        for parent in "pq":
            runs = [samples.run(f"{n}", n, parent=parent) for n in range(5)]
            await fill(
                store,
                [replace(run, fields={**run.fields, "generation": f"{n % 2}{parent}"}) for n, run in enumerate(runs)],
            )
        assert await store.tally(samples.runs("p"), "generation") == {
            "0p": Tally(3, "00000000", "00000004"),
            "1p": Tally(2, "00000001", "00000003"),
        }

    async def test_items_without_the_field_are_left_out_and_nothing_is_an_empty_tally(
        self, store: Store, samples: Samples
    ) -> None:
        await fill(store, [samples.item("a"), samples.item("b", owner="ann")])
        place = samples.item().fields["created_at"]
        assert await store.tally(samples.query(), "user_id") == {"ann": Tally(1, place, place)}
        assert await store.tally(samples.query(), "session_name") == {}
        assert await store.tally(samples.query(session_type="none"), "user_id") == {}

    async def test_a_tally_shows_each_change_at_once(self, store: Store, samples: Samples) -> None:
        token = samples.token
        await fill(store, [samples.item(name, 1, created=name, owner="ann") for name in "abc"])
        await fill(store, [samples.item("a", 2, created="d", owner="bob")])
        assert await only(store, Delete(samples.key("c"), stamp(2))) == Stored(stamp(2))
        assert await store.tally(samples.query(), "user_id") == {
            "ann": Tally(1, token + "b", token + "b"),
            "bob": Tally(1, token + "d", token + "d"),
        }

    async def test_least_and_greatest_are_by_the_bytes_in_utf8(self, store: Store, samples: Samples) -> None:
        await fill(store, [samples.item(value, created=value) for value in ("\ufffd", "z", "😀", "é", "Z")])
        found = await store.tally(samples.query(), "session_type")
        assert found == {"agent": Tally(5, samples.token + "Z", samples.token + "😀")}

    async def test_a_tally_by_an_unknown_field_or_without_an_index_is_refused(
        self, store: Store, samples: Samples
    ) -> None:
        with pytest.raises(InvalidRecord) as caught:
            await store.tally(samples.query(), "colour")
        assert caught.value.path == "colour"
        with pytest.raises(QueryNotIndexed):
            await store.tally(Query("sessions", "session_name"), "user_id")
